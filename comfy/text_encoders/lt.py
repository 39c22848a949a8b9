"""Prompt encoding for LTX-Video: T5-XXL as for Mochi, padded to 128 tokens. LTX 2's is :mod:`comfy.text_encoders.ltxav`."""

from collections.abc import Collection
from typing import Any

from comfy.placeholders import placeholders
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.genmo import MochiT5XXL, mochi_te
from comfy.text_encoders.sole_t5 import FilledT5Tokenizer, SoleT5Tokenizer


class T5XXLTokenizer(FilledT5Tokenizer):
    """T5's tokenizer, padded to 128 tokens."""

    MIN_TOKENS = 128


class LTXVT5Tokenizer(SoleT5Tokenizer):
    """Results are keyed "t5xxl"."""

    WORDS = T5XXLTokenizer


def ltxv_te(**ignored: Any) -> Any:
    """Mochi's, see :func:`mochi_te`."""
    return mochi_te(**ignored)


def ltxv_target(parts: Collection[str]) -> ClipTarget:
    """Of T5-XXL."""
    return ClipTarget(LTXVT5Tokenizer, MochiT5XXL)


def ltxav_target(parts: Collection[str]) -> ClipTarget:
    """Of Gemma 3 12B and what a checkpoint of LTX 2 has for its states."""
    from comfy.text_encoders.gemma3 import LTXAVGemmaTokenizer
    from comfy.text_encoders.ltxav import LTXAVTEModel

    return ClipTarget(LTXAVGemmaTokenizer, LTXAVTEModel)


__getattr__, __dir__ = placeholders(
    __name__,
    "LTX 2 models",
    "Gemma3_Tokenizer=comfy.text_encoders.gemma3 Gemma3_12BTokenizer=comfy.text_encoders.gemma3 "
    "LTXAVGemmaTokenizer=comfy.text_encoders.gemma3 Gemma3_12BModel=comfy.text_encoders.gemma3 gemma3_te=comfy.text_encoders.gemma3 "
    "DualLinearProjection=comfy.text_encoders.ltxav LTXAVTEModel=comfy.text_encoders.ltxav "
    "ltxav_gemma4_tokenizer=comfy.text_encoders.gemma4 ltxav_te() sd_detect()",
)
