"""Prompt encoding for PixArt and Chroma: T5-XXL without padding or mask; weights count from padding alone."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, gen_empty_tokens
from comfy.supported_models_base import ClipTarget
from comfy.text.t5_tokenizer import T5Tokenizer
from comfy.text_encoders import sd3_clip


class T5XXLModel(sd3_clip.T5XXLModel):
    """T5-XXL whose empty prompt has no end token."""

    def gen_empty_tokens(self, special_tokens: Mapping[str, int | None], length: int) -> list[int | None]:
        """Padding alone."""
        return gen_empty_tokens({name: token for name, token in special_tokens.items() if name != "end"}, length)


class PixArtT5XXL(SD1ClipModel):
    """T5-XXL alone, as ``t5xxl``."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name="t5xxl", clip_model=T5XXLModel, model_options=model_options)


class T5XXLTokenizer(T5Tokenizer):
    """T5's tokenizer without padding."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, 1)


class PixArtTokenizer(SD1Tokenizer):
    """Results are keyed "t5xxl"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, tokenizer=T5XXLTokenizer, name="t5xxl")


def pixart_te(**ignored: Any) -> Any:
    """:class:`PixArtT5XXL`. What T5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""
    return PixArtT5XXL


def pixart_target(parts: Collection[str]) -> ClipTarget:
    """Of T5-XXL."""
    return ClipTarget(PixArtTokenizer, PixArtT5XXL)
