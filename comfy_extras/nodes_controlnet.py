"""Nodes that tell a union ControlNet what kind of hint it gets, and that apply a ControlNet for filling in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy.cldm.control_types import UNION_CONTROLNET_TYPES
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.core_control import ControlNetApplyAdvanced
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.control.base import ControlBase
    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning

scaling = lazy_module("comfy.utils")

UNKNOWN = "auto"
SIDES = ("positive", "negative")


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


class ControlNetInpaintingAliMamaApply(io.ComfyNode):
    """Lets a ControlNet fill in a part of a picture: one that knows of masks gets the mask, and the picture without that part."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlNetInpaintingAliMamaApply",
            display_name="Apply ControlNet Inpainting (AliMama)",
            category="model/conditioning/controlnet",
            search_aliases=["masked controlnet"],
            inputs=[
                *(io.Conditioning.Input(side) for side in SIDES),
                io.ControlNet.Input("control_net"),
                io.Vae.Input("vae"),
                io.Image.Input("image", tooltip="The picture of which a part is filled in."),
                io.Mask.Input("mask", tooltip="White where it is filled in."),
                io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01),
                *(
                    io.Float.Input(f"{end}_percent", default=share, min=0.0, max=1.0, step=0.001, advanced=True)
                    for end, share in (("start", 0.0), ("end", 1.0))
                ),
            ],
            outputs=[io.Conditioning.Output(display_name=side) for side in SIDES],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        control_net: ControlBase,
        vae: VAE,
        image: Tensor,
        mask: Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
    ) -> io.NodeOutput:
        """Both sides with the control. *mask* (B×H×W) is 1 where *image* is to be filled in."""
        kept_B1HW = []
        if control_net.concat_mask:
            kept_B1HW = [1.0 - mask.reshape(-1, 1, *mask.shape[-2:])]
            fitting = scaling.common_upscale(kept_B1HW[0], image.shape[2], image.shape[1], "bilinear", "center").round()
            image = image * fitting.movedim(1, -1)
        return io.NodeOutput(
            *ControlNetApplyAdvanced().apply_controlnet(
                positive, negative, control_net, image, strength, start_percent, end_percent, vae=vae, extra_concat=kept_B1HW
            )
        )

    apply_inpaint_controlnet = execute


comfy_entrypoint = extension_of(SetUnionControlNetType, ControlNetInpaintingAliMamaApply)
