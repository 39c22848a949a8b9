"""Nodes for video models whose batch is the frames: guidance that changes from frame to frame, and areas in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import node_helpers
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import real

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")


class _GuidanceByFrame:
    """A node that gives every frame a guidance scale of its own, between *min_cfg* and the sampler's."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "model/sampling/guiders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "min_cfg": real(1.0, 0.0, 100.0, 0.5, round=0.01, advanced=True)}}

    @staticmethod
    def shares(frames: int, device: Any) -> Tensor:
        """How far from the lowest scale to the sampler's each frame is, 0 to 1."""
        raise NotImplementedError

    def patch(self, model: ModelPatcher, min_cfg: float) -> tuple[ModelPatcher]:
        """A clone of *model*; frames are along the batch."""

        def guided(args: dict[str, Any]) -> Tensor:
            cond, uncond = args["cond"], args["uncond"]
            scale = min_cfg + self.shares(cond.shape[0], cond.device) * (args["cond_scale"] - min_cfg)
            return uncond + scale.view(-1, *[1] * (cond.ndim - 1)) * (cond - uncond)

        clone = model.clone()
        clone.set_model_sampler_cfg_function(guided)
        return (clone,)


class VideoLinearCFGGuidance(_GuidanceByFrame):
    """Raises guidance evenly from the first frame to the last."""

    @staticmethod
    def shares(frames: int, device: Any) -> Tensor:
        return torch.linspace(0, 1, frames, device=device)


class VideoTriangleCFGGuidance(_GuidanceByFrame):
    """Raises guidance up to the middle frame and lowers it again."""

    @staticmethod
    def shares(frames: int, device: Any) -> Tensor:
        place = torch.linspace(0, 1, frames, device=device)
        return 2 * (place - torch.floor(place + 0.5)).abs()


class ConditioningSetAreaPercentageVideo:
    """Limits conditioning to a part of picture and time, in shares of their sizes."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "model/conditioning/transform"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sizes = {name: real(1.0, 0, 1.0) for name in ("width", "height", "temporal")}
        places = {name: real(0, 0, 1.0) for name in ("x", "y", "z")}
        return {"required": {"conditioning": ("CONDITIONING",), **sizes, **places, "strength": real(1.0, 0.0, 10.0)}}

    def append(
        self, conditioning: Conditioning, width: float, height: float, temporal: float, x: float, y: float, z: float, strength: float
    ) -> tuple[Conditioning]:
        """The conditioning with its area: *z* and *temporal* are along time."""
        area = ("percentage", temporal, height, width, z, y, x)
        values = {"area": area, "strength": strength, "set_area_to_bounds": False}
        return (node_helpers.conditioning_set_values(conditioning, values),)


NODE_CLASS_MAPPINGS = {
    node.__name__: node for node in (VideoLinearCFGGuidance, VideoTriangleCFGGuidance, ConditioningSetAreaPercentageVideo)
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "VideoLinearCFGGuidance": "Video Linear CFG Guidance",
    "VideoTriangleCFGGuidance": "Video Triangle CFG Guidance",
    "ConditioningSetAreaPercentageVideo": "Conditioning (Set Area with Percentage for Video)",
}
