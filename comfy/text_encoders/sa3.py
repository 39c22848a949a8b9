"""T5Gemma's tokenizer and hidden states, as Stable Audio 3 takes them; those of padding are zeros."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.one_chunk import OneChunkTokenizer
from comfy.text.t5_gemma import T5_GEMMA, T5GemmaModel
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.spiece_tokenizer import SavesSentencePiece

PART = "t5gemma"


class T5GemmaSDClipModel(PublishedTextModel):
    """T5Gemma's last states."""

    MODEL_CLASS, SIZES, TOKENS = T5GemmaModel, T5_GEMMA, {"pad": 0}
    GIVES_MASK, ZEROS_MASKED = False, True


class T5GemmaSDTokenizer(SavesSentencePiece, OneChunkTokenizer):
    """One chunk of any length, without marks around it; no embeddings of files."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            WantedTokenizer(
                PART, PART, "google/t5gemma-b-b-ul2", files=("tokenizer.json",), sentence_piece={"add_bos": False, "add_eos": False}
            ),
            tokenizer_data,
            embedding_size=T5_GEMMA.hidden_size,
            has_start_token=False,
            has_end_token=False,
            min_length=1,
            pad_token=0,
        )


class SAT5GemmaTokenizer(SD1Tokenizer):
    """Results are keyed "t5gemma"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, tokenizer=T5GemmaSDTokenizer, name=PART)


class SAT5GemmaModel(SD1ClipModel):
    """T5Gemma alone, as ``t5gemma``."""

    def __init__(
        self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(device=device, dtype=dtype, model_options=model_options, name=PART, clip_model=T5GemmaSDClipModel, **kwargs)


def t5_gemma_target(parts: Collection[str]) -> ClipTarget:
    """Of T5Gemma."""
    return ClipTarget(SAT5GemmaTokenizer, SAT5GemmaModel)
