"""Qwen-Image 2.1's text encoder: Qwen3-VL with eight billion parameters. Of pictures that the diffusion model gets as latents, it says
where they stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from comfy.supported_models_base import ClipTarget
from comfy.text.qwen.conversations import ONE_PICTURE, SYSTEM
from comfy.text.qwen.pictures import MERGED, fitting_size
from comfy.text_encoders.qwen3vl import LARGE, Qwen3VLTEModel, Qwen3VLTokenizer
from comfy.text_encoders.qwen_image import START

SPOKEN = SYSTEM.format(system="Comprehend and analyze the provided prompt.", before="")


class QwenImage21Tokenizer(Qwen3VLTokenizer):
    """Puts prompts into the conversation that Qwen-Image 2.1 was trained with. Pictures are numbered: ``<image1>`` and so on."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, LARGE)
        self.llama_template = self.llama_template_images = SPOKEN

    def template(self, text: str, pictures: int) -> str:
        """The conversation, which begins with the *pictures*."""
        numbered = " ".join(f"<image{number}>{ONE_PICTURE}" for number in range(1, pictures + 1))
        return SPOKEN.replace("{}", numbered + "{}")

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, llama_template: str | None = None, *, keep_vision: bool = True, **kwargs: Any
    ) -> dict[str, Any]:
        """As its base class. Without *keep_vision*, the states of pictures are left out, see :class:`QwenImage21TEModel`."""
        tokens = super().tokenize_with_weights(text, return_word_ids, llama_template, **{"thinking": True, **kwargs})
        for chunks in tokens.values():
            for chunk in chunks:
                chunk[:] = [({**token[0], "keep_vision": keep_vision}, *token[1:]) if _is_picture(token[0]) else token for token in chunk]
        return tokens


class QwenImage21TEModel(Qwen3VLTEModel):
    """The states of all but the system's part of the conversation, before the last norm.

    Where pictures are to be left out, their states are, and ``image_slots`` says before which of the others they stood.
    """

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device, dtype, model_options, LARGE)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states 1 x tokens x width, None, {"image_slots"} or {})."""
        states, pooled, extra = super().encode_token_weights(token_weight_pairs)
        chunk = [token[0] for token in token_weight_pairs[LARGE][0]]
        inner: Any = self.qwen3vl_8b
        patch = inner.transformer.config.eyes.patch_size
        start = _users_turn(chunk)
        kept: list[int] = []
        slots: list[int] = []
        place = 0
        for number, token in enumerate(chunk):
            size = _tokens_of(token["data"], patch) if _is_picture(token) else 1
            if number >= start:
                if _is_picture(token) and not token["keep_vision"]:
                    slots.append(len(kept))
                else:
                    kept += range(place, place + size)
            place += size
        others = {name: value for name, value in extra.items() if name != "attention_mask"}
        return states[:, kept], pooled, {**others, "image_slots": slots} if slots else others


def _is_picture(token: Any) -> bool:
    return isinstance(token, Mapping) and token.get("type") == "image"


def _tokens_of(picture: torch.Tensor, patch: int) -> int:
    """How many tokens *picture* (B x height x width x colours) becomes."""
    height, width = fitting_size(picture.shape[1], picture.shape[2], patch)
    return (height // (patch * MERGED)) * (width // (patch * MERGED))


def _users_turn(tokens: Sequence[Any]) -> int:
    """The second mark of a speaker among *tokens*: the first token after the system's part; 0 where there is none."""
    marks = [number for number, token in enumerate(tokens) if isinstance(token, int) and token == START]
    return marks[1] if len(marks) > 1 else 0


def te(**ignored: Any) -> type[QwenImage21TEModel]:
    """:class:`QwenImage21TEModel`. Its dtype, its file says."""
    return QwenImage21TEModel


def qwen_image21_target(parts: Collection[str]) -> ClipTarget:
    """Of the larger Qwen3-VL."""
    return ClipTarget(QwenImage21Tokenizer, QwenImage21TEModel)
