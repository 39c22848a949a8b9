"""Nodes that return a value typed on the page."""

from __future__ import annotations

from typing import Any

from comfy_extras.node_inputs import socket, text

LARGEST = 2**63 - 1


class _ValueNode:
    """Passes its only input on; derived classes set its type."""

    FUNCTION = "execute"
    CATEGORY = "utilities/primitive"

    @classmethod
    def execute(cls, value: Any) -> tuple[Any]:
        """*value* unchanged."""
        return (value,)


class String(_ValueNode):
    """A line of text."""

    RETURN_TYPES = ("STRING",)
    SEARCH_ALIASES = ["text", "string", "text box", "prompt"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": text(multiline=False)}}


class StringMultiline(_ValueNode):
    """A text of several lines."""

    RETURN_TYPES = ("STRING",)
    ESSENTIALS_CATEGORY = "Basics"
    SEARCH_ALIASES = ["text", "string", "text multiline", "string multiline", "text box", "prompt"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": text(multiline=True)}}


class Int(_ValueNode):
    """A whole number, which the page can change after each run."""

    RETURN_TYPES = ("INT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": socket("INT", min=-LARGEST, max=LARGEST, control_after_generate="fixed")}}


class Float(_ValueNode):
    """A number."""

    RETURN_TYPES = ("FLOAT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": socket("FLOAT", min=-LARGEST, max=LARGEST, step=0.1)}}


class Boolean(_ValueNode):
    """Yes or no."""

    RETURN_TYPES = ("BOOLEAN",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": socket("BOOLEAN")}}


NODE_CLASS_MAPPINGS = {
    "PrimitiveString": String,
    "PrimitiveStringMultiline": StringMultiline,
    "PrimitiveInt": Int,
    "PrimitiveFloat": Float,
    "PrimitiveBoolean": Boolean,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "PrimitiveString": "Text",
    "PrimitiveStringMultiline": "Text (Multiline)",
    "PrimitiveInt": "Int",
    "PrimitiveFloat": "Float",
    "PrimitiveBoolean": "Boolean",
}
