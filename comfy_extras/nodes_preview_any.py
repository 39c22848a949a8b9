"""The node that shows any value as text."""

from __future__ import annotations

import json
import sys
from typing import Any

from comfy_extras.node_inputs import socket

SHOWN_EDGE_ITEMS, USUAL_EDGE_ITEMS = 6, 3


def as_text(value: Any) -> str:
    """*value* as readable text: text unchanged, data as JSON, everything else as Python shows it."""
    if isinstance(value, str) or value is None:
        return "None" if value is None else value
    try:
        return str(value) if isinstance(value, bool | int | float) else json.dumps(value, indent=4)
    except (TypeError, ValueError, RecursionError):
        return _shown_by_python(value)


def _shown_by_python(value: Any) -> str:
    torch = sys.modules.get("torch")  # without it there can be no tensors
    try:
        if torch is not None:
            torch.set_printoptions(edgeitems=SHOWN_EDGE_ITEMS)
        return str(value)
    except Exception as error:  # a foreign object's own __str__
        return f"a {type(value).__name__} that cannot be shown as text ({type(error).__name__}: {error})"
    finally:
        if torch is not None:
            torch.set_printoptions(edgeitems=USUAL_EDGE_ITEMS)


class PreviewAny:
    """Shows any value as text on the node and passes the text on."""

    RETURN_TYPES = ("STRING",)
    FUNCTION, OUTPUT_NODE = "main", True
    CATEGORY = "utilities"
    DESCRIPTION = "Shows any value as text."
    SEARCH_ALIASES = ["show output", "inspect", "debug", "print value", "show text"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"source": socket("*")}}

    def main(self, source: Any = None) -> dict[str, Any]:
        """The text of *source*, for the page and as the result."""
        shown = as_text(source)
        return {"ui": {"text": (shown,)}, "result": (shown,)}


NODE_CLASS_MAPPINGS = {"PreviewAny": PreviewAny}

NODE_DISPLAY_NAME_MAPPINGS = {"PreviewAny": "Preview as Text"}
