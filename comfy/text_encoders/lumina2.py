"""Prompt encoding for Lumina 2: Gemma 2's layer before the last, with its mask. Gemma 3 is in ``gemma3.py``."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.placeholders import placeholders
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.gemma import GEMMA_2_2B, GemmaTextModel
from comfy.text.one_chunk import OneChunkTokenizer
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.spiece_tokenizer import SavesSentencePiece

END_OF_TURN = {"<end_of_turn>": 107}
TOKENIZER = WantedTokenizer(
    "gemma2_2b",
    "gemma2",
    "google/gemma-2-2b",
    files=("tokenizer.model",),
    sentence_piece={"add_bos": True, "add_eos": False, "special_tokens": END_OF_TURN},
)


class Gemma2BTokenizer(SavesSentencePiece, OneChunkTokenizer):
    """Gemma 2's tokenizer: a start token, no end token, no padding; no embeddings of files."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(TOKENIZER, tokenizer_data, embedding_size=GEMMA_2_2B.hidden_size, has_end_token=False, min_length=1)


class LuminaTokenizer(SD1Tokenizer):
    """Results are keyed "gemma2_2b"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, tokenizer=Gemma2BTokenizer, name="gemma2_2b")


class Gemma2_2BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """Gemma 2 2B."""

    MODEL_CLASS, SIZES, TOKENS = GemmaTextModel, GEMMA_2_2B, {"start": 2, "pad": 0}
    LAYER, SETTINGS = ("hidden", -2), {"layer_norm_hidden_state": False}


class LuminaModel(SD1ClipModel):
    """Gemma 2 alone, as ``gemma2_2b``."""

    def __init__(
        self,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
        name: str = "gemma2_2b",
        clip_model: Any = Gemma2_2BModel,
    ) -> None:
        super().__init__(device=device, dtype=dtype, name=name, clip_model=clip_model, model_options=model_options)


def te(**ignored: Any) -> Any:
    """:class:`LuminaModel`. What Gemma is kept in, its file says, so ``dtype_llama`` needs no passing on."""
    return LuminaModel


def lumina_target(parts: Collection[str]) -> ClipTarget:
    """Of Gemma 2."""
    return ClipTarget(LuminaTokenizer, LuminaModel)


__getattr__, __dir__ = placeholders(
    __name__,
    "Gemma 3 models",
    "Gemma3_4BTokenizer=comfy.text_encoders.gemma3 NTokenizer=comfy.text_encoders.gemma3 Gemma3_4BModel=comfy.text_encoders.gemma3 "
    "Gemma3_4B_Vision_Model=comfy.text_encoders.gemma3",
)
