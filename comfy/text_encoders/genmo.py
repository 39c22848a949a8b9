"""Prompt encoding for Mochi: T5-XXL with its attention mask."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.t5_tokenizer import T5Tokenizer
from comfy.text_encoders import sd3_clip

MIN_TOKENS = 256


class T5XXLModel(sd3_clip.T5XXLModel):
    """T5-XXL that masks padding."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "attention_mask": True})


class MochiT5XXL(SD1ClipModel):
    """T5-XXL alone, as ``t5xxl``."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name="t5xxl", clip_model=T5XXLModel, model_options=model_options)


class T5XXLTokenizer(T5Tokenizer):
    """T5's tokenizer, padded to 256 tokens."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, MIN_TOKENS)


class MochiT5Tokenizer(SD1Tokenizer):
    """Results are keyed "t5xxl"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, tokenizer=T5XXLTokenizer, name="t5xxl")


def mochi_te(**ignored: Any) -> Any:
    """:class:`MochiT5XXL`. What T5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""
    return MochiT5XXL


def mochi_target(parts: Collection[str]) -> ClipTarget:
    """Of T5-XXL."""
    return ClipTarget(MochiT5Tokenizer, MochiT5XXL)
