"""Prompt encoding for Mochi: T5-XXL with its attention mask."""

from collections.abc import Collection
from typing import Any

from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import sd3_clip
from comfy.text_encoders.sole_t5 import FilledT5Tokenizer, SoleT5, SoleT5Tokenizer


class T5XXLModel(sd3_clip.T5XXLModel):
    """T5-XXL that masks padding."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "attention_mask": True})


class MochiT5XXL(SoleT5):
    """T5-XXL alone, as ``t5xxl``."""

    MODEL = T5XXLModel


class T5XXLTokenizer(FilledT5Tokenizer):
    """T5's tokenizer, padded to 256 tokens."""

    MIN_TOKENS = 256


class MochiT5Tokenizer(SoleT5Tokenizer):
    """Results are keyed "t5xxl"."""

    WORDS = T5XXLTokenizer


def mochi_te(**ignored: Any) -> Any:
    """:class:`MochiT5XXL`. What T5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""
    return MochiT5XXL


def mochi_target(parts: Collection[str]) -> ClipTarget:
    """Of T5-XXL."""
    return ClipTarget(MochiT5Tokenizer, MochiT5XXL)
