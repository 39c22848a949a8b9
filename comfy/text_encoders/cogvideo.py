"""Prompt encoding for CogVideoX: T5-XXL without mask, padded to 226 tokens."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.t5_tokenizer import T5Tokenizer
from comfy.text_encoders.sd3_clip import T5XXLModel

MIN_TOKENS = 226


class CogVideoXT5Tokenizer(T5Tokenizer):
    """T5's tokenizer, padded to 226 tokens."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, MIN_TOKENS)


class CogVideoXTokenizer(SD1Tokenizer):
    """Results are keyed "t5xxl"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, tokenizer=CogVideoXT5Tokenizer, name="t5xxl")


class CogVideoXT5XXL(SD1ClipModel):
    """T5-XXL alone, as ``t5xxl``."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name="t5xxl", clip_model=T5XXLModel, model_options=model_options)


def cogvideo_te(**ignored: Any) -> Any:
    """:class:`CogVideoXT5XXL`. What T5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""
    return CogVideoXT5XXL


def cogvideo_target(parts: Collection[str]) -> ClipTarget:
    """Of T5-XXL."""
    return ClipTarget(CogVideoXTokenizer, CogVideoXT5XXL)
