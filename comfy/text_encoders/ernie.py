"""ERNIE-Image's text encoder: Ministral 3, which also writes its prompts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.llama import LlamaTextModel
from comfy.text_encoders.flux2 import MISTRAL_WIDTH, Mistral3Tokenizer
from comfy.text_encoders.published_model import PublishedTextModel

PART = "ministral3_3b"


class Ministral3_3BTokenizer(Mistral3Tokenizer):  # noqa: N801 - ComfyUI's name
    """Mistral's tokenizer."""

    def __init__(
        self,
        embedding_directory: Any = None,
        embedding_size: int = MISTRAL_WIDTH,
        embedding_key: str = PART,
        tokenizer_data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(embedding_directory, embedding_size, embedding_key, tokenizer_data)


class ErnieTokenizer(SD1Tokenizer):
    """Results are keyed "ministral3_3b". Weights in parentheses are plain text; there is no conversation around it."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=PART, tokenizer=Ministral3_3BTokenizer)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{"ministral3_3b": chunks of (token, weight)}."""
        return super().tokenize_with_weights(text, return_word_ids, **{**kwargs, "disable_weights": True})


class Ministral3_3BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """The state after the layer before the last."""

    MODEL_CLASS, TOKENS, LAYER = LlamaTextModel, {"start": 1, "pad": 0}, ("hidden", -2)
    SETTINGS = {"layer_norm_hidden_state": False}


class ErnieTEModel(SD1ClipModel):
    """Ministral alone; *name* and *clip_model* say of which text model."""

    def __init__(
        self,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
        name: str = PART,
        clip_model: Any = Ministral3_3BModel,
    ) -> None:
        super().__init__(device=device, dtype=dtype, name=name, clip_model=clip_model, model_options=model_options)


def te(**ignored: Any) -> type[ErnieTEModel]:
    """:class:`ErnieTEModel`. Its dtype, its file says."""
    return ErnieTEModel


def ernie_target(parts: Collection[str]) -> ClipTarget:
    """Of Ministral alone."""
    return ClipTarget(ErnieTokenizer, ErnieTEModel)
