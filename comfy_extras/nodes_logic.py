"""Nodes that decide: switch, not, and, or, and a list of choices that the user writes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_extras.node_inputs import socket

NOT_CONNECTED = object()


class SwitchNode(io.ComfyNode):
    """Passes on one of two inputs; the other one is not computed. One that is not connected is None."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.MatchType.Template("switch")
        branches = [io.MatchType.Input(name, template=template, lazy=True, optional=True) for name in ("on_false", "on_true")]
        return io.Schema(
            node_id="ComfySwitchNode",
            display_name="If/Else Switch",
            category="utilities/logic",
            is_experimental=True,
            search_aliases=["if", "then", "switch", "conditional", "branch"],
            inputs=[io.Boolean.Input("switch"), *branches],
            outputs=[io.MatchType.Output(template=template, display_name="output")],
        )

    @classmethod
    def check_lazy_status(cls, switch: bool, on_false: Any = NOT_CONNECTED, on_true: Any = NOT_CONNECTED) -> list[str]:
        """The name of the chosen input, as long as it has not been computed; where only the other one is connected, nothing is."""
        name, value, other = ("on_true", on_true, on_false) if switch else ("on_false", on_false, on_true)
        return [name] if value is None or value is other is NOT_CONNECTED else []

    @classmethod
    def execute(cls, switch: bool, on_true: Any = None, on_false: Any = None) -> io.NodeOutput:
        """The chosen input."""
        return io.NodeOutput(on_true if switch else on_false)


class CustomComboNode(io.ComfyNode):
    """A drop-down list whose entries the user writes; the page keeps them, so the server accepts every choice."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CustomCombo",
            display_name="Custom Combo",
            category="utilities",
            is_experimental=True,
            accept_all_inputs=True,
            inputs=[io.Combo.Input("choice", options=[])],
            outputs=[io.String.Output(display_name="STRING"), io.Int.Output(display_name="INDEX")],
        )

    @classmethod
    def validate_inputs(cls, choice: str, index: Any = 0, **_entries: Any) -> bool | str:
        """Accept every choice, because only the page knows the entries."""
        return True

    @classmethod
    def execute(cls, choice: str, index: Any = 0, **_entries: Any) -> io.NodeOutput:
        """The chosen text and its position in the list."""
        return io.NodeOutput(choice, index)


class NotNode:
    """Returns true when Python counts its input as false: false, 0, empty."""

    RETURN_TYPES = ("BOOLEAN",)
    FUNCTION = "execute"
    CATEGORY = "utilities/logic"
    DESCRIPTION = "True for values that Python counts as false: false, zero, nothing, empty text and lists."
    SEARCH_ALIASES = ["invert", "toggle", "negate", "flip boolean"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": socket("*")}}

    @classmethod
    def execute(cls, value: Any) -> tuple[bool]:
        """Whether Python counts *value* as false."""
        return (not value,)


def _many_values(node_id: str, title: str, description: str, aliases: list[str]) -> Any:
    template = io.Autogrow.TemplatePrefix(io.AnyType.Input("value"), prefix="value", min=1)
    return io.Schema(
        node_id=node_id,
        display_name=title,
        category="utilities/logic",
        description=description,
        search_aliases=aliases,
        inputs=[io.Autogrow.Input("values", template=template)],
        outputs=[io.Boolean.Output()],
    )


class AndNode(io.ComfyNode):
    """Returns true when Python counts every input as true."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _many_values("ComfyAndNode", "And", "True when Python counts every value as true.", ["all", "every"])

    @classmethod
    def execute(cls, values: Any) -> io.NodeOutput:
        """Whether all *values* count as true."""
        return io.NodeOutput(all(values.values()))


class OrNode(io.ComfyNode):
    """Returns true when Python counts any input as true."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _many_values("ComfyOrNode", "Or", "True when Python counts any value as true.", ["any", "some"])

    @classmethod
    def execute(cls, values: Any) -> io.NodeOutput:
        """Whether any of *values* counts as true."""
        return io.NodeOutput(any(values.values()))


NODE_CLASS_MAPPINGS = {
    "ComfySwitchNode": SwitchNode,
    "CustomCombo": CustomComboNode,
    "ComfyNotNode": NotNode,
    "ComfyAndNode": AndNode,
    "ComfyOrNode": OrNode,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "ComfySwitchNode": "If/Else Switch",
    "CustomCombo": "Custom Combo",
    "ComfyNotNode": "Not",
    "ComfyAndNode": "And",
    "ComfyOrNode": "Or",
}
