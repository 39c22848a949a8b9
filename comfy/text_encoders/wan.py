"""Prompt encoding for Wan: UMT5-XXL, masked states set to zero. Its files carry their tokenizer."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.families.t5_text import T5Transformer
from comfy.families.t5_text_sizes import UMT5_XXL
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.one_chunk import OneChunkTokenizer
from comfy.text.t5_tokenizer import TOKENS
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.spiece_tokenizer import SavesSentencePiece

MIN_TOKENS = 512
TOKENIZER = WantedTokenizer("umt5xxl", "umt5", "google/umt5-xxl", files=("spiece.model",))


class UMT5XXlModel(PublishedTextModel):
    """UMT5-XXL."""

    MODEL_CLASS, SIZES, TOKENS = T5Transformer, UMT5_XXL, TOKENS
    GIVES_MASK, ZEROS_MASKED = False, True


class UMT5XXlTokenizer(SavesSentencePiece, OneChunkTokenizer):
    """UMT5's tokenizer, padded to 512 tokens; no embeddings of files."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            TOKENIZER, tokenizer_data, embedding_size=UMT5_XXL.hidden_size, has_start_token=False, min_length=MIN_TOKENS, pad_token=0
        )


class WanT5Tokenizer(SD1Tokenizer):
    """Results are keyed "umt5xxl"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, tokenizer=UMT5XXlTokenizer, name="umt5xxl")


class WanT5Model(SD1ClipModel):
    """UMT5-XXL alone, as ``umt5xxl``."""

    def __init__(
        self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(device=device, dtype=dtype, model_options=model_options, name="umt5xxl", clip_model=UMT5XXlModel, **kwargs)


def te(**ignored: Any) -> Any:
    """:class:`WanT5Model`. What UMT5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""
    return WanT5Model


def wan_target(parts: Collection[str]) -> ClipTarget:
    """Of UMT5-XXL."""
    return ClipTarget(WanT5Tokenizer, WanT5Model)
