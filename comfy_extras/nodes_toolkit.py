"""The node that joins separate values to a list."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io


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


NODE_CLASS_MAPPINGS = {"CreateList": CreateList}

NODE_DISPLAY_NAME_MAPPINGS = {"CreateList": "Create List"}
