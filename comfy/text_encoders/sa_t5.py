"""Prompt encoding for Stable Audio: T5 base, masked states set to zero."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.families.t5_text import T5Transformer
from comfy.families.t5_text_sizes import T5_BASE
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.t5_tokenizer import TOKENS, T5Tokenizer
from comfy.text_encoders.published_model import PublishedTextModel

MIN_TOKENS = 128


class T5BaseModel(PublishedTextModel):
    """T5 1.0 base."""

    MODEL_CLASS, SIZES, TOKENS = T5Transformer, T5_BASE, TOKENS
    GIVES_MASK, ZEROS_MASKED = False, True


class T5BaseTokenizer(T5Tokenizer):
    """T5's tokenizer, padded to 128 tokens; no embeddings of files."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(None, tokenizer_data, MIN_TOKENS, embedding_key="t5base", embedding_size=T5_BASE.hidden_size)


class SAT5Tokenizer(SD1Tokenizer):
    """Results are keyed "t5base"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, tokenizer=T5BaseTokenizer, name="t5base")


class SAT5Model(SD1ClipModel):
    """T5 base alone, as ``t5base``."""

    def __init__(
        self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(device=device, dtype=dtype, model_options=model_options, name="t5base", clip_model=T5BaseModel, **kwargs)


def stable_audio_target(parts: Collection[str]) -> ClipTarget:
    """Of T5 base."""
    return ClipTarget(SAT5Tokenizer, SAT5Model)
