"""Nodes that join separate values to a list, and that take one out of it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_extras.list_values import items_of


class CreateList(io.ComfyNode):
    """Joins its inputs to one list; nodes that receive the list run once per item."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.MatchType.Template("type")
        inputs = io.Autogrow.TemplatePrefix(io.MatchType.Input("input", template=template), prefix="input", min=1, max=10)
        return io.Schema(
            node_id="CreateList",
            display_name="Create List",
            is_input_list=True,
            category="utilities",
            search_aliases=["Image Iterator", "Text Iterator", "Iterator"],
            inputs=[io.Autogrow.Input("inputs", template=inputs)],
            outputs=[io.MatchType.Output(template=template, is_output_list=True, display_name="list")],
        )

    @classmethod
    def execute(cls, inputs: Any) -> io.NodeOutput:
        """The items of all inputs, in order."""
        return io.NodeOutput([item for items in inputs.values() for item in items])


class GetItemFromList(io.ComfyNode):
    """Takes one item out of a list."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GetItemFromList",
            display_name="Get Item From List",
            is_input_list=True,
            category="utilities",
            inputs=[io.AnyType.Input("list"), io.Int.Input("index", default=0, tooltip="From 0 on; below 0 from the end.")],
            outputs=[io.AnyType.Output()],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, list: Any, index: Any) -> io.NodeOutput:
        """The item. Raises ``ValueError`` where the list has none there."""
        dynprompt = cls.hidden.dynprompt
        items = items_of(dynprompt, dynprompt.get_node(cls.hidden.unique_id)["inputs"]["list"], list)
        try:
            return io.NodeOutput(items[index[0]])
        except IndexError:
            raise ValueError(f"the list has {len(items)} items, so there is none at index {index[0]}; choose a smaller index") from None


NODE_CLASS_MAPPINGS = {"CreateList": CreateList, "GetItemFromList": GetItemFromList}

NODE_DISPLAY_NAME_MAPPINGS = {"CreateList": "Create List", "GetItemFromList": "Get Item From List"}
