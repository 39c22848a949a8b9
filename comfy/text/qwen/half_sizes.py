"""The sizes of the first half of Qwen3-VL 32B, as MiniMax H3 has it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comfy.text.qwen.sizes import QwenTextConfig, read_qwen3_vl_config

LAYERS = 50
Shape = tuple[int, ...]


def read_half_config(shapes: Mapping[str, Shape], settings: Mapping[str, Any] | None = None) -> QwenTextConfig | None:
    """The first layers of the Qwen3-VL that *shapes* describe; None if they describe none, or one of fewer layers, as smaller ones are."""
    whole = read_qwen3_vl_config(shapes, settings)
    return None if whole is None or whole.num_layers < LAYERS else replace(whole, num_layers=LAYERS, has_head=False)
