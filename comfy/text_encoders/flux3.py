"""Flux.3's text encoder: the states before eight of the layers of Qwen3-VL 4B as one vector per token, padding included.

The diffusion model was trained to look at padding too, whose tokens attend to the text alone and stand, all of them, at the second place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.supported_models_base import ClipTarget
from comfy.text.memory import Memory
from comfy.text.qwen.vision3 import Qwen3VLTextModel
from comfy.text_encoders.qwen3vl import SMALL, Qwen3VLClipModel, Qwen3VLTEModel, Qwen3VLTokenizer
from comfy.text_encoders.qwen_image import PAD

FLUX3_TAP_LAYERS = list(range(4, 33, 4))
WINDOW = 80  # texts are filled up to a multiple of this many tokens
PADDINGS_PLACE = 1


class Flux3Tokenizer(Qwen3VLTokenizer):
    """Puts prompts into a conversation, without a thought unless ``thinking`` is asked to be off."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, SMALL)

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, llama_template: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As its base class."""
        return super().tokenize_with_weights(text, return_word_ids, llama_template, **{"thinking": True, **kwargs})


class PaddedQwen3VL(Qwen3VLTextModel):
    """Qwen3-VL, whose padding has one place."""

    def _layer_arguments(
        self, embeds: torch.Tensor, attention_mask: torch.Tensor | None, positions: torch.Tensor, memory: Memory | None
    ) -> tuple[dict[str, Any], ...]:
        if attention_mask is not None and memory is None:
            positions = positions.masked_fill(attention_mask[0].to(positions.device) == 0, PADDINGS_PLACE)
        return super()._layer_arguments(embeds, attention_mask, positions, memory)


class Flux3Qwen3VLClipModel(Qwen3VLClipModel):
    """The states before every fourth layer."""

    MODEL_CLASS, LAYER, GIVES_MASK = PaddedQwen3VL, (FLUX3_TAP_LAYERS, None), False


class Flux3TEModel(Qwen3VLTEModel):
    """The eight states of each token of the conversation and its padding as one vector, layer after layer."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device, dtype, model_options, SMALL, Flux3Qwen3VLClipModel)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states 1 x tokens x (8 · width), None)."""
        chunks = [[*chunk, *[(PAD, 1.0)] * (-len(chunk) % WINDOW)] for chunk in token_weight_pairs[SMALL]]
        states, *others = super().encode_token_weights({SMALL: chunks})
        return (states.movedim(1, 2).flatten(2), *others)


def te(**ignored: Any) -> type[Flux3TEModel]:
    """:class:`Flux3TEModel`. Its dtype, its file says."""
    return Flux3TEModel


def flux3_target(parts: Collection[str]) -> ClipTarget:
    """Of the smaller Qwen3-VL."""
    return ClipTarget(Flux3Tokenizer, Flux3TEModel)
