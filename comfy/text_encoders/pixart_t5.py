"""Prompt encoding for PixArt and Chroma: T5-XXL without padding or mask; weights count from padding alone."""

from collections.abc import Collection, Mapping
from typing import Any

from comfy.sd1_clip import gen_empty_tokens
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import sd3_clip
from comfy.text_encoders.sole_t5 import FilledT5Tokenizer, SoleT5, SoleT5Tokenizer


class T5XXLModel(sd3_clip.T5XXLModel):
    """T5-XXL whose empty prompt has no end token."""

    def gen_empty_tokens(self, special_tokens: Mapping[str, int | None], length: int) -> list[int | None]:
        """Padding alone."""
        return gen_empty_tokens({name: token for name, token in special_tokens.items() if name != "end"}, length)


class PixArtT5XXL(SoleT5):
    """T5-XXL alone, as ``t5xxl``."""

    MODEL = T5XXLModel


class T5XXLTokenizer(FilledT5Tokenizer):
    """T5's tokenizer without padding."""


class PixArtTokenizer(SoleT5Tokenizer):
    """Results are keyed "t5xxl"."""

    WORDS = T5XXLTokenizer


def pixart_te(**ignored: Any) -> Any:
    """:class:`PixArtT5XXL`. What T5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""
    return PixArtT5XXL


def pixart_target(parts: Collection[str]) -> ClipTarget:
    """Of T5-XXL."""
    return ClipTarget(PixArtTokenizer, PixArtT5XXL)
