"""Boogu's text encoder: Qwen3-VL with eight billion parameters, which also looks at the pictures that an instruction is about."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.supported_models_base import ClipTarget
from comfy.text.qwen.conversations import CHANGE, ONE_PICTURE
from comfy.text_encoders.qwen3vl import LARGE, NormalisedStates, Qwen3VLTEModel, Qwen3VLTokenizer

DRAW = "You are a helpful assistant that generates high-quality images based on user instructions. The instructions are as follows."
SPOKEN = "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{before}{{}}<|im_end|>\n"


class BooguTokenizer(Qwen3VLTokenizer):
    """Puts prompts into the conversations that Boogu was trained with: to draw, or, about pictures and without words, to change."""

    THINKING = True  # an empty one is put there where it is asked to be off

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, LARGE)
        self.llama_template = SPOKEN.format(system=DRAW, before="")
        self.llama_template_images = SPOKEN.format(system=CHANGE, before=ONE_PICTURE)
        self.llama_template_drop = SPOKEN.format(system=CHANGE, before="")

    def template(self, text: str, pictures: int) -> str:
        """The conversation for *text* about so many *pictures*."""
        return super().template(text, pictures) if pictures or text.strip() else self.llama_template_drop


class BooguTEModel(Qwen3VLTEModel):
    """The normalised states of the whole conversation, and which tokens are no padding."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device, dtype, model_options, LARGE, NormalisedStates)


def te(**ignored: Any) -> type[BooguTEModel]:
    """:class:`BooguTEModel`. Its dtype, its file says."""
    return BooguTEModel


def boogu_target(parts: Collection[str]) -> ClipTarget:
    """Of the larger Qwen3-VL."""
    return ClipTarget(BooguTokenizer, BooguTEModel)
