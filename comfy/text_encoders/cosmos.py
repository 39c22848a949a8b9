"""Prompt encoding for Cosmos 1: the first T5-XXL, masked states set to zero."""

from collections.abc import Collection
from typing import Any

from comfy.families.t5_text import T5Transformer
from comfy.families.t5_text_sizes import T5_XXL_OLD
from comfy.supported_models_base import ClipTarget
from comfy.text.t5_tokenizer import TOKENS
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.sole_t5 import FilledT5Tokenizer, SoleT5, SoleT5Tokenizer


class T5XXLModel(PublishedTextModel):
    """T5 1.0 XXL."""

    MODEL_CLASS, SIZES, TOKENS = T5Transformer, T5_XXL_OLD, TOKENS
    ZEROS_MASKED = True


class CosmosT5XXL(SoleT5):
    """The model alone, as ``t5xxl``."""

    MODEL = T5XXLModel


class T5XXLTokenizer(FilledT5Tokenizer):
    """T5's tokenizer, padded to 512 tokens."""

    MIN_TOKENS, WIDTH = 512, T5_XXL_OLD.hidden_size


class CosmosT5Tokenizer(SoleT5Tokenizer):
    """Results are keyed "t5xxl"."""

    WORDS = T5XXLTokenizer


def te(**ignored: Any) -> Any:
    """:class:`CosmosT5XXL`. What T5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""
    return CosmosT5XXL


def cosmos_target(parts: Collection[str]) -> ClipTarget:
    """Of the first T5-XXL."""
    return ClipTarget(CosmosT5Tokenizer, CosmosT5XXL)
