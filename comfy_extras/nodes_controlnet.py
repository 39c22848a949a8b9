"""The node that tells a union ControlNet what kind of hint it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy.cldm.control_types import UNION_CONTROLNET_TYPES
from comfy_api.latest import ComfyExtension, io

if TYPE_CHECKING:
    from comfy.control.base import ControlBase

UNKNOWN = "auto"


class SetUnionControlNetType(io.ComfyNode):
    """Tells a union ControlNet what kind of hint it gets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SetUnionControlNetType",
            display_name="Set Union ControlNet Type",
            category="model/conditioning/controlnet",
            search_aliases=["set controlnet type", "union controlnet type"],
            inputs=[io.ControlNet.Input("control_net"), io.Combo.Input("type", options=[UNKNOWN, *UNION_CONTROLNET_TYPES])],
            outputs=[io.ControlNet.Output()],
        )

    @classmethod
    def execute(cls, control_net: ControlBase, type: str) -> io.NodeOutput:
        """A copy that knows; "auto" tells nothing."""
        told = control_net.copy()
        told.set_extra_arg("control_type", [UNION_CONTROLNET_TYPES[type]] if type in UNION_CONTROLNET_TYPES else [])
        return io.NodeOutput(told)

    set_controlnet_type = execute


class ControlNetExtension(ComfyExtension):
    """The node of this module."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [SetUnionControlNetType]


async def comfy_entrypoint() -> ControlNetExtension:
    """What the server loads."""
    return ControlNetExtension()
