"""Mage-Flow's text encoder: Qwen3-VL with four billion parameters, which also looks at the pictures that an instruction is about."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.supported_models_base import ClipTarget
from comfy.text.qwen.conversations import ABOUT_PICTURES, FROM_TEXT, ONE_PICTURE
from comfy.text_encoders.qwen3vl import SMALL, NormalisedStates, Qwen3VLTEModel, Qwen3VLTokenizer
from comfy.text_encoders.qwen_image import users_part


class MageFlowTokenizer(Qwen3VLTokenizer):
    """Puts prompts into the conversations that Mage-Flow was trained with, in which pictures are numbered."""

    THINKING = True  # an empty one is put there where it is asked to be off

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, SMALL)
        self.llama_template, self.llama_template_images = FROM_TEXT, ABOUT_PICTURES

    def template(self, text: str, pictures: int) -> str:
        """The conversation for *text* about so many *pictures*."""
        numbered = "".join(f"Image {number}: {ONE_PICTURE}" for number in range(1, pictures + 1))
        return self.llama_template_images.replace("{}", numbered + "{}", 1) if pictures else self.llama_template


class MageFlowTEModel(Qwen3VLTEModel):
    """The normalised states of the user's part and what follows; a mask where some tokens are padding."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device, dtype, model_options, SMALL, NormalisedStates)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any], template_end: int = -1) -> tuple[Any, ...]:
        """(states 1 x tokens x width, None, {"attention_mask"} or {}). *template_end*: the first token to keep; -1: found by the marks."""
        encoded = super().encode_token_weights(token_weight_pairs)
        chunk = token_weight_pairs[SMALL][0]
        return users_part(encoded, chunk, template_end)


def te(**ignored: Any) -> type[MageFlowTEModel]:
    """:class:`MageFlowTEModel`. Its dtype, its file says."""
    return MageFlowTEModel


def mage_flow_target(parts: Collection[str]) -> ClipTarget:
    """Of the smaller Qwen3-VL."""
    return ClipTarget(MageFlowTokenizer, MageFlowTEModel)
