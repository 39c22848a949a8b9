"""Prompt encoding for Cosmos 1: the first T5-XXL, masked states set to zero."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.families.t5_text import T5Transformer
from comfy.families.t5_text_sizes import T5_XXL_OLD
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.t5_tokenizer import TOKENS, T5Tokenizer
from comfy.text_encoders.published_model import PublishedTextModel

MIN_TOKENS = 512


class T5XXLModel(PublishedTextModel):
    """T5 1.0 XXL."""

    MODEL_CLASS, SIZES, TOKENS = T5Transformer, T5_XXL_OLD, TOKENS
    ZEROS_MASKED = True


class CosmosT5XXL(SD1ClipModel):
    """The model alone, as ``t5xxl``."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name="t5xxl", clip_model=T5XXLModel, model_options=model_options)


class T5XXLTokenizer(T5Tokenizer):
    """T5's tokenizer, padded to 512 tokens."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, MIN_TOKENS, embedding_size=T5_XXL_OLD.hidden_size)


class CosmosT5Tokenizer(SD1Tokenizer):
    """Results are keyed "t5xxl"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, tokenizer=T5XXLTokenizer, name="t5xxl")


def te(**ignored: Any) -> Any:
    """:class:`CosmosT5XXL`. What T5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""
    return CosmosT5XXL


def cosmos_target(parts: Collection[str]) -> ClipTarget:
    """Of the first T5-XXL."""
    return ClipTarget(CosmosT5Tokenizer, CosmosT5XXL)
