"""Text models whose settings are fixed by what was published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

from comfy.sd1_clip import SDClipModel
from comfy.text.text_model import TextModel


class PublishedTextModel(SDClipModel):
    """A text model that a subclass describes in attributes, so that it is made by a device, a dtype and options alone.

    ``LAYER``: which hidden state it gives (a name or numbers, a number). ``MASKED``: whether padding is masked where nothing else is asked
    for; where it is, ``GIVES_MASK`` says whether the diffusion model gets the mask and ``ZEROS_MASKED`` whether masked states become zeros.
    ``SETTINGS`` are further arguments of :class:`comfy.sd1_clip.SDClipModel`, ``NAME`` is the name by which *model_options* speak of it.
    """

    MODEL_CLASS: ClassVar[Callable[..., TextModel]]
    SIZES: ClassVar[Any] = None
    TOKENS: ClassVar[Mapping[str, int | None]] = {}
    LAYER: ClassVar[tuple[str | list[int], int | None]] = ("last", None)
    MASKED: ClassVar[bool] = True
    GIVES_MASK: ClassVar[bool] = True
    ZEROS_MASKED: ClassVar[bool] = False
    SETTINGS: ClassVar[Mapping[str, Any]] = {}
    NAME: ClassVar[str | None] = None

    def __init__(
        self,
        device: Any = "cpu",
        layer: str | list[int] | None = None,
        layer_idx: int | None = None,
        dtype: torch.dtype | None = None,
        attention_mask: bool | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        own_layer, own_number = self.LAYER
        masked = self.MASKED if attention_mask is None else attention_mask
        super().__init__(
            device=device,
            layer=layer or own_layer,
            layer_idx=own_number if layer_idx is None else layer_idx,
            textmodel_json_config=self.SIZES,
            dtype=dtype,
            model_class=self.MODEL_CLASS,
            special_tokens=self.TOKENS,
            enable_attention_masks=masked,
            return_attention_masks=masked and self.GIVES_MASK,
            zero_out_masked=masked and self.ZEROS_MASKED,
            model_options=model_options if self.NAME is None else {**(model_options or {}), "model_name": self.NAME},
            **self.SETTINGS,
        )
