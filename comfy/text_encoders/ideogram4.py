"""Ideogram 4's text encoder: the states after thirteen of the layers of Qwen3-VL 8B as one vector per token."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.qwen3vl import LARGE, Qwen3VLClipModel, Qwen3VLTEModel, Qwen3VLTokenizer

IDEOGRAM4_TAP_LAYERS = [*range(1, 36, 3), 36]  # as states before a layer are counted; 36 is after the last


class Ideogram4Qwen3VLTokenizer(Qwen3VLTokenizer):
    """Puts prompts into a conversation, without a thought unless ``thinking`` is asked to be off."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, LARGE)

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, llama_template: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As its base class."""
        return super().tokenize_with_weights(text, return_word_ids, llama_template, **{"thinking": True, **kwargs})


class Ideogram4Qwen3VLClipModel(Qwen3VLClipModel):
    """The states after thirteen layers."""

    LAYER = (IDEOGRAM4_TAP_LAYERS, None)


def _behind_each_other(encoded: tuple[Any, ...]) -> tuple[Any, ...]:
    """*encoded*, whose states are 1 x layers x tokens x width, with one vector per token, in which a value's layers are neighbours."""
    states, *others = encoded
    return (states.permute(0, 2, 3, 1).flatten(2), *others)


class Ideogram4Qwen3VLTEModel(Qwen3VLTEModel):
    """The thirteen states of each token of the conversation as one vector; a mask where some tokens are padding."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device, dtype, model_options, LARGE, Ideogram4Qwen3VLClipModel)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states 1 x tokens x (13 · width), None, {"attention_mask"} or {})."""
        return _behind_each_other(super().encode_token_weights(token_weight_pairs))


def te_qwen3vl(**ignored: Any) -> type[Ideogram4Qwen3VLTEModel]:
    """:class:`Ideogram4Qwen3VLTEModel`. Its dtype, its file says."""
    return Ideogram4Qwen3VLTEModel


def ideogram4_target(parts: Collection[str]) -> ClipTarget:
    """Of the larger Qwen3-VL."""
    return ClipTarget(Ideogram4Qwen3VLTokenizer, Ideogram4Qwen3VLTEModel)
