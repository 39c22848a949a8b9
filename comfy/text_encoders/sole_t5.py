"""A T5-XXL that is a family's only text model: what the families' encoders and tokenizers share."""

from collections.abc import Mapping
from typing import Any

import torch

from comfy.families.t5_text_sizes import T5_XXL
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.text.t5_tokenizer import T5Tokenizer
from comfy.text_encoders.sd3_clip import T5XXLModel

PART = "t5xxl"


class SoleT5(SD1ClipModel):
    """The text model ``MODEL`` alone, as ``t5xxl``."""

    MODEL: type = T5XXLModel

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name=PART, clip_model=self.MODEL, model_options=model_options)


class FilledT5Tokenizer(T5Tokenizer):
    """T5's tokenizer, filled up to ``MIN_TOKENS``; embeddings have ``WIDTH`` values."""

    MIN_TOKENS, WIDTH = 1, T5_XXL.hidden_size

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, self.MIN_TOKENS, embedding_size=self.WIDTH)


class SoleT5Tokenizer(SD1Tokenizer):
    """The tokenizer ``WORDS``; results are keyed "t5xxl"."""

    WORDS: type = FilledT5Tokenizer

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, tokenizer=self.WORDS, name=PART)
