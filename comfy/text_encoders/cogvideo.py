"""Prompt encoding for CogVideoX: T5-XXL without mask, padded to 226 tokens."""

from collections.abc import Collection
from typing import Any

from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.sole_t5 import FilledT5Tokenizer, SoleT5, SoleT5Tokenizer


class CogVideoXT5Tokenizer(FilledT5Tokenizer):
    """T5's tokenizer, padded to 226 tokens."""

    MIN_TOKENS = 226


class CogVideoXTokenizer(SoleT5Tokenizer):
    """Results are keyed "t5xxl"."""

    WORDS = CogVideoXT5Tokenizer


class CogVideoXT5XXL(SoleT5):
    """T5-XXL alone, as ``t5xxl``."""


def cogvideo_te(**ignored: Any) -> Any:
    """:class:`CogVideoXT5XXL`. What T5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""
    return CogVideoXT5XXL


def cogvideo_target(parts: Collection[str]) -> ClipTarget:
    """Of T5-XXL."""
    return ClipTarget(CogVideoXTokenizer, CogVideoXT5XXL)
