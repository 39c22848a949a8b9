"""The node that returns a colour picked on the page."""

from __future__ import annotations

import re
from typing import Any

from comfy_extras.node_inputs import socket

_HEX_COLOUR = re.compile(r"#([0-9a-fA-F]{6})([0-9a-fA-F]{2})?")


class ColorToRGBInt:
    """Returns a colour as a number, as text, and its opacity."""

    RETURN_TYPES, RETURN_NAMES = ("INT", "COLOR", "FLOAT"), ("rgb_int", "hex", "alpha")
    FUNCTION = "execute"
    CATEGORY = "utilities"
    DESCRIPTION = "Gives a colour as a number (0xRRGGBB), as #RRGGBB and its opacity."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"color": socket("COLOR", default="#ffffff", socketless=True)}}

    @classmethod
    def execute(cls, color: Any) -> tuple[int, Any, float]:
        """0xRRGGBB, ``#RRGGBB`` and the opacity (0 to 1) of ``#RRGGBB`` or ``#RRGGBBAA``. Raises ``ValueError`` for other text."""
        parts = _HEX_COLOUR.fullmatch(color)
        if parts is None:
            raise ValueError(f"{color!r} is not a colour; write #RRGGBB or #RRGGBBAA")
        rgb, alpha = parts.groups()
        return int(rgb, 16), f"#{rgb}", int(alpha, 16) / 255.0 if alpha else 1.0


NODE_CLASS_MAPPINGS = {"ColorToRGBInt": ColorToRGBInt}

NODE_DISPLAY_NAME_MAPPINGS = {"ColorToRGBInt": "Color Picker"}
