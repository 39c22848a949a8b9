"""Core nodes that load ControlNets and add them to conditioning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import real

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.control.base import ControlBase
    from comfy.images.vae import VAE
    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")
controlnet = lazy_module("comfy.controlnet")

LOADERS = "model/loaders"
CONTROL = "model/conditioning/controlnet"


def _strength() -> tuple[str, dict[str, Any]]:
    return real(1.0, 0.0, 10.0)


class ControlNetLoader:
    """Loads a ControlNet."""

    RETURN_TYPES = ("CONTROL_NET",)
    FUNCTION = "load_controlnet"
    CATEGORY = LOADERS
    READS_AHEAD = {"control_net_name": "controlnet"}
    SEARCH_ALIASES = ["controlnet", "control net", "cn", "load controlnet", "controlnet loader"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"control_net_name": (folder_paths.get_filename_list("controlnet"),)}}

    def load_controlnet(self, control_net_name: str) -> tuple[ControlBase]:
        """The ControlNet."""
        return (controlnet.load_controlnet(folder_paths.get_full_path_or_raise("controlnet", control_net_name)),)


class DiffControlNetLoader:
    """Loads a ControlNet that was saved as the difference to a model."""

    RETURN_TYPES = ("CONTROL_NET",)
    FUNCTION = "load_controlnet"
    CATEGORY = LOADERS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "control_net_name": (folder_paths.get_filename_list("controlnet"),)}}

    def load_controlnet(self, model: ModelPatcher, control_net_name: str) -> tuple[ControlBase]:
        """The ControlNet for *model*."""
        return (controlnet.load_controlnet(folder_paths.get_full_path_or_raise("controlnet", control_net_name), model),)


class ControlNetApply:
    """Applies a ControlNet during the whole sampling, to both sides of guidance; the older node."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "apply_controlnet"
    CATEGORY = CONTROL
    DEPRECATED = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"conditioning": ("CONDITIONING",), "control_net": ("CONTROL_NET",), "image": ("IMAGE",), "strength": _strength()}
        }

    def apply_controlnet(self, conditioning: Conditioning, control_net: ControlBase, image: Tensor, strength: float) -> tuple[Conditioning]:
        """The conditioning with the control added to its chain; unchanged with *strength* 0."""
        if strength == 0:
            return (conditioning,)
        hint = image.movedim(-1, 1)
        controlled = []
        for context, options in (entry[:2] for entry in conditioning):
            control = control_net.copy().set_cond_hint(hint, strength)
            if "control" in options:
                control.set_previous_controlnet(options["control"])
            controlled.append([context, {**options, "control": control, "control_apply_to_uncond": True}])
        return (controlled,)


class ControlNetApplyAdvanced:
    """Lets a ControlNet steer both sides of guidance during a part of the sampling."""

    RETURN_TYPES = ("CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("positive", "negative")
    FUNCTION = "apply_controlnet"
    CATEGORY = CONTROL
    SEARCH_ALIASES = ["controlnet", "apply controlnet", "use controlnet", "control net"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "control_net": ("CONTROL_NET",),
                "image": ("IMAGE",),
                "strength": _strength(),
                "start_percent": real(0.0, 0.0, 1.0, 0.001),
                "end_percent": real(1.0, 0.0, 1.0, 0.001),
            },
            "optional": {"vae": ("VAE",)},
        }

    def apply_controlnet(
        self,
        positive: Conditioning,
        negative: Conditioning,
        control_net: ControlBase,
        image: Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
        vae: VAE | None = None,
        extra_concat: Any = (),
    ) -> tuple[Conditioning, Conditioning]:
        """Both sides with the control added to their chains; entries with the same chain share one control."""
        if strength == 0:
            return (positive, negative)
        hint = image.movedim(-1, 1)
        controls: dict[Any, Any] = {}

        def control_after(previous: Any) -> Any:
            if previous not in controls:
                control = control_net.copy().set_cond_hint(
                    hint, strength, (start_percent, end_percent), vae=vae, extra_concat=list(extra_concat)
                )
                controls[previous] = control.set_previous_controlnet(previous)
            return controls[previous]

        def controlled(side: Conditioning) -> Conditioning:
            return [
                [context, {**options, "control": control_after(options.get("control")), "control_apply_to_uncond": False}]
                for context, options in (entry[:2] for entry in side)
            ]

        return controlled(positive), controlled(negative)


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (ControlNetLoader, DiffControlNetLoader, ControlNetApply, ControlNetApplyAdvanced)}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ControlNetLoader": "Load ControlNet Model",
    "DiffControlNetLoader": "Load ControlNet Model (diff)",
    "ControlNetApply": "Apply ControlNet (DEPRECATED)",
    "ControlNetApplyAdvanced": "Apply ControlNet",
}
