"""Krea 2's text encoder: the states that twelve of Qwen3-VL's layers get, as one vector per token."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.supported_models_base import ClipTarget
from comfy.text.qwen.conversations import FROM_TEXT
from comfy.text_encoders.qwen3vl import SMALL, Qwen3VLClipModel, Qwen3VLTEModel, Qwen3VLTokenizer
from comfy.text_encoders.qwen_image import users_part

KREA2_TEMPLATE = FROM_TEXT
KREA2_TAP_LAYERS = list(range(2, 36, 3))


class Krea2Tokenizer(Qwen3VLTokenizer):
    """Puts prompts into the conversation that Krea 2 was trained with, without a thought unless ``thinking`` is asked to be off."""

    THINKING = True  # an empty one is put there where it is asked to be off

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, SMALL)
        self.llama_template = KREA2_TEMPLATE


class Krea2Qwen3VLClipModel(Qwen3VLClipModel):
    """The states before every third layer."""

    LAYER = (KREA2_TAP_LAYERS, None)


class Krea2TEModel(Qwen3VLTEModel):
    """The twelve states of each token of the user's part and what follows as one vector; a mask where some tokens are padding."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device, dtype, model_options, SMALL, Krea2Qwen3VLClipModel)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any], template_end: int = -1) -> tuple[Any, ...]:
        """(states 1 x tokens x (12 · width), None, {"attention_mask"} or {}). *template_end*: the first token to keep; -1: found."""
        states, *others = super().encode_token_weights(token_weight_pairs)
        return users_part((states.movedim(1, 2).flatten(2), *others), token_weight_pairs[SMALL][0], template_end)


def te(**ignored: Any) -> type[Krea2TEModel]:
    """:class:`Krea2TEModel`. Its dtype, its file says."""
    return Krea2TEModel


def krea2_target(parts: Collection[str]) -> ClipTarget:
    """Of the smaller Qwen3-VL."""
    return ClipTarget(Krea2Tokenizer, Krea2TEModel)
