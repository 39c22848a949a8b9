"""Prompt encoding for Stable Diffusion 2: open_clip's ViT-H text model."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.families.clip_text_config import ClipTextConfig
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel
from comfy.supported_models_base import ClipTarget
from comfy.text.clip_tokenizer import SDTokenizer

CLIP_H = ClipTextConfig(
    vocabulary=49408,
    positions=77,
    hidden_size=1024,
    intermediate_size=4096,
    num_layers=24,
    num_heads=16,
    hidden_act="gelu",
    projection=1024,
)


class SD2ClipHModel(SDClipModel):
    """The layer before the last with the final norm, projected pooled output, padding with token 0."""

    def __init__(
        self,
        arch: str = "ViT-H-14",
        device: Any = "cpu",
        max_length: int = 77,
        freeze: bool = True,
        layer: str = "penultimate",
        layer_idx: int | None = None,
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        penultimate = layer == "penultimate"
        super().__init__(
            device=device,
            max_length=max_length,
            freeze=freeze,
            layer="hidden" if penultimate else layer,
            layer_idx=-2 if penultimate else layer_idx,
            textmodel_json_config=CLIP_H,
            dtype=dtype,
            special_tokens={"start": 49406, "end": 49407, "pad": 0},
            model_options={**(model_options or {}), "model_name": "clip_h"},
        )


class SD2ClipHTokenizer(SDTokenizer):
    """CLIP's tokenizer with CLIP-H's padding and embedding width."""

    def __init__(
        self, tokenizer_path: str | None = None, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(
            tokenizer_path,
            pad_with_end=False,
            embedding_directory=embedding_directory,
            embedding_size=CLIP_H.hidden_size,
            embedding_key="clip_h",
            tokenizer_data=tokenizer_data,
        )


class SD2Tokenizer(SD1Tokenizer):
    """Results are keyed "h"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, clip_name="h", tokenizer=SD2ClipHTokenizer)


class SD2ClipModel(SD1ClipModel):
    """CLIP-H alone, as ``clip_h``."""

    def __init__(
        self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(device=device, dtype=dtype, model_options=model_options, clip_name="h", clip_model=SD2ClipHModel, **kwargs)


def sd2_target(parts: Collection[str]) -> ClipTarget:
    """Of CLIP-H alone."""
    return ClipTarget(SD2Tokenizer, SD2ClipModel)
