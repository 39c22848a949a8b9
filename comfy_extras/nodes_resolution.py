"""The node that computes a size from an aspect ratio and a number of pixels."""

from __future__ import annotations

import math
from typing import Any

from comfy_extras.node_inputs import combo, real, whole

_RATIOS = {
    "1:1 (Square)": (1, 1),
    "2:3 (Portrait Photo)": (2, 3),
    "3:2 (Photo)": (3, 2),
    "3:4 (Portrait Standard)": (3, 4),
    "4:3 (Standard)": (4, 3),
    "9:16 (Portrait Widescreen)": (9, 16),
    "16:9 (Widescreen)": (16, 9),
    "21:9 (Ultrawide)": (21, 9),
}


class ResolutionSelector:
    """Computes width and height from an aspect ratio and megapixels."""

    RETURN_TYPES, RETURN_NAMES = ("INT", "INT"), ("width", "height")
    OUTPUT_TOOLTIPS = ("Width in pixels.", "Height in pixels.")
    FUNCTION = "execute"
    CATEGORY = "utilities"
    DESCRIPTION = "Gives the width and height for an aspect ratio and a number of pixels, for empty latents for example."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "aspect_ratio": combo(list(_RATIOS), default="1:1 (Square)", tooltip="Width to height."),
                "megapixels": real(1.0, 0.1, 16.0, 0.1, tooltip="1.0 stands for 1024×1024 pixels."),
                "multiple": whole(8, 8, 128, 4, advanced=True, tooltip="Both sides become divisible by this number."),
            }
        }

    @classmethod
    def execute(cls, aspect_ratio: str, megapixels: float, multiple: int) -> tuple[int, int]:
        """Width and height, each rounded to the nearest multiple of *multiple*."""
        across, down = _RATIOS[aspect_ratio]
        unit = math.sqrt(megapixels * 1024 * 1024 / (across * down))
        width, height = (round(share * unit / multiple) * multiple for share in (across, down))
        return width, height


NODE_CLASS_MAPPINGS = {"ResolutionSelector": ResolutionSelector}

NODE_DISPLAY_NAME_MAPPINGS = {"ResolutionSelector": "Resolution Selector"}
