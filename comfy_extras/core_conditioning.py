"""Core nodes that make conditioning from text and change where, when and how strongly it acts.

A CONDITIONING is a list of pairs: cross-attention context (batch × tokens × width) and a dict of options. Nodes return new lists.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import node_helpers
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import pixels, real, whole

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.text.encoder import CLIP
    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")

log = logging.getLogger(__name__)

PIXELS_PER_CELL = 8
TRANSFORM = "model/conditioning/transform"


def _strength() -> tuple[str, dict[str, Any]]:
    return real(1.0, 0.0, 10.0)


class CLIPTextEncode:
    """Encodes a prompt for a diffusion model."""

    RETURN_TYPES = ("CONDITIONING",)
    OUTPUT_TOOLTIPS = ("The encoded prompt, for a sampler.",)
    FUNCTION = "encode"
    CATEGORY = "model/conditioning"
    DESCRIPTION = "Encodes a text prompt into conditioning that guides the diffusion model."
    SEARCH_ALIASES = ["text", "prompt", "text prompt", "positive prompt", "negative prompt", "encode text", "text encoder", "encode prompt"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "text": ("STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": "The prompt; (word:1.2) changes a weight."}),
                "clip": ("CLIP", {"tooltip": "The text encoder."}),
            }
        }

    def encode(self, clip: CLIP, text: str) -> tuple[Conditioning]:
        """Encode *text*. Raises ``RuntimeError`` when *clip* is None, as from a checkpoint without a text encoder."""
        if clip is None:
            raise RuntimeError(
                "there is no text encoder: the checkpoint it should come from has none. "
                "Load one with a CLIP loader node and connect it here"
            )
        return (clip.encode_from_tokens_scheduled(clip.tokenize(text)),)


class CLIPSetLastLayer:
    """Takes a text encoder's output from an earlier layer ("clip skip")."""

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "set_last_layer"
    CATEGORY = "model/conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip": ("CLIP",), "stop_at_clip_layer": whole(-1, -24, -1, 1, advanced=True)}}

    def set_last_layer(self, clip: CLIP, stop_at_clip_layer: int) -> tuple[CLIP]:
        """A clone whose output comes from the layer *stop_at_clip_layer*, counted from the end (-1: the last)."""
        clip = clip.clone()
        clip.clip_layer(stop_at_clip_layer)
        return (clip,)


class ConditioningCombine:
    """Joins two prompts that act at the same time; the sampler averages their results."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "combine"
    CATEGORY = TRANSFORM
    ESSENTIALS_CATEGORY = "Image Generation"
    SEARCH_ALIASES = ["combine", "merge conditioning", "combine prompts", "merge prompts", "mix prompts", "add prompt"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning_1": ("CONDITIONING",), "conditioning_2": ("CONDITIONING",)}}

    def combine(self, conditioning_1: Conditioning, conditioning_2: Conditioning) -> tuple[Conditioning]:
        """Both lists in one."""
        return (conditioning_1 + conditioning_2,)


def _only_entry(conditioning: list[Any], node: str) -> Any:
    if len(conditioning) > 1:
        log.warning("%s: conditioning_from has %d entries; only the first one is used", node, len(conditioning))
    return conditioning[0]


class ConditioningAverage:
    """Mixes two prompts token by token."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "addWeighted"
    CATEGORY = TRANSFORM
    SEARCH_ALIASES = ["blend prompts", "interpolate conditioning", "mix prompts", "style fusion", "weighted blend"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning_to": ("CONDITIONING",),
                "conditioning_from": ("CONDITIONING",),
                "conditioning_to_strength": real(1.0, 0.0, 1.0),
            }
        }

    def addWeighted(
        self, conditioning_to: Conditioning, conditioning_from: Conditioning, conditioning_to_strength: float
    ) -> tuple[Conditioning]:  # noqa: N802 - the name packs call
        """*conditioning_to* times its strength plus *conditioning_from*, cut or zero-padded to its length, times the rest."""
        context_from, options_from = _only_entry(conditioning_from, "ConditioningAverage")[:2]
        pooled_from = options_from.get("pooled_output")

        def mix(to: Tensor, other: Tensor) -> Tensor:
            return to * conditioning_to_strength + other * (1.0 - conditioning_to_strength)

        mixed = []
        for context, options in (entry[:2] for entry in conditioning_to):
            other = context_from[:, : context.shape[1]]
            missing = context.shape[1] - other.shape[1]
            if missing > 0:
                other = torch.cat([other, other.new_zeros((1, missing, context.shape[2]))], dim=1)
            options = options.copy()
            if pooled_from is not None:
                options["pooled_output"] = mix(options.get("pooled_output", pooled_from), pooled_from)
            mixed.append([mix(context, other), options])
        return (mixed,)


class ConditioningConcat:
    """Appends the tokens of one prompt to another's."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "concat"
    CATEGORY = TRANSFORM

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning_to": ("CONDITIONING",), "conditioning_from": ("CONDITIONING",)}}

    def concat(self, conditioning_to: Conditioning, conditioning_from: Conditioning) -> tuple[Conditioning]:
        """Every entry of *conditioning_to*, followed by the tokens of the first entry of *conditioning_from*."""
        context_from = _only_entry(conditioning_from, "ConditioningConcat")[0]
        return ([[torch.cat((entry[0], context_from), 1), entry[1].copy()] for entry in conditioning_to],)


class ConditioningMultiply:
    """Multiplies encoded prompts by a number."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "multiply"
    CATEGORY = TRANSFORM
    SEARCH_ALIASES = ["scale conditioning", "scale prompt", "multiply conditioning", "multiply prompt"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": ("CONDITIONING",), "multiplier": real(1.0, -100.0, 100.0)}}

    def multiply(self, conditioning: Conditioning, multiplier: float) -> tuple[Conditioning]:
        """The conditioning with its text, and the pooled text where it has one, times *multiplier*."""
        result = []
        for states, values in conditioning:
            pooled = values.get("pooled_output")
            scaled = {} if pooled is None else {"pooled_output": pooled * multiplier}
            result += node_helpers.conditioning_set_values([[states * multiplier, values]], scaled)
        return (result,)


class ConditioningSetArea:
    """Limits a prompt to a rectangle given in pixels."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = TRANSFORM
    SEARCH_ALIASES = ["regional prompt", "area prompt", "spatial conditioning", "localized prompt"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": ("CONDITIONING",),
                "width": pixels(64, 64, 8),
                "height": pixels(64, 64, 8),
                "x": pixels(0, step=8),
                "y": pixels(0, step=8),
                "strength": _strength(),
            }
        }

    def append(self, conditioning: Conditioning, width: int, height: int, x: int, y: int, strength: float) -> tuple[Conditioning]:
        """The conditioning limited to the rectangle, with *strength*."""
        area = tuple(length // PIXELS_PER_CELL for length in (height, width, y, x))
        return (node_helpers.conditioning_set_values(conditioning, {"area": area, "strength": strength, "set_area_to_bounds": False}),)


class ConditioningSetAreaPercentage:
    """Limits a prompt to a rectangle given in shares of the picture."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = TRANSFORM

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sizes = {"width": real(1.0, 0, 1.0), "height": real(1.0, 0, 1.0), "x": real(0, 0, 1.0), "y": real(0, 0, 1.0)}
        return {"required": {"conditioning": ("CONDITIONING",), **sizes, "strength": _strength()}}

    def append(self, conditioning: Conditioning, width: float, height: float, x: float, y: float, strength: float) -> tuple[Conditioning]:
        """The conditioning limited to the rectangle, with *strength*."""
        area = ("percentage", height, width, y, x)
        return (node_helpers.conditioning_set_values(conditioning, {"area": area, "strength": strength, "set_area_to_bounds": False}),)


class ConditioningSetAreaStrength:
    """Sets how strongly a prompt counts where others act as well."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = TRANSFORM

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": ("CONDITIONING",), "strength": _strength()}}

    def append(self, conditioning: Conditioning, strength: float) -> tuple[Conditioning]:
        """The conditioning with *strength*."""
        return (node_helpers.conditioning_set_values(conditioning, {"strength": strength}),)


class ConditioningSetMask:
    """Limits a prompt to a mask."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = TRANSFORM
    SEARCH_ALIASES = ["masked prompt", "regional inpaint conditioning", "mask conditioning"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": ("CONDITIONING",),
                "mask": ("MASK",),
                "strength": _strength(),
                "set_cond_area": (["default", "mask bounds"],),
            }
        }

    def append(self, conditioning: Conditioning, mask: Tensor, set_cond_area: str, strength: float) -> tuple[Conditioning]:
        """The conditioning limited to *mask*; with "mask bounds" the model sees only the rectangle around the mask."""
        mask = mask.unsqueeze(0) if mask.ndim < 3 else mask
        return (
            node_helpers.conditioning_set_values(
                conditioning, {"mask": mask, "set_area_to_bounds": set_cond_area != "default", "mask_strength": strength}
            ),
        )


class ConditioningZeroOut:
    """Replaces an encoded prompt by zeros, which differ from an encoded empty prompt."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "zero_out"
    CATEGORY = TRANSFORM
    SEARCH_ALIASES = ["null conditioning", "clear conditioning"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": ("CONDITIONING",)}}

    def zero_out(self, conditioning: Conditioning) -> tuple[Conditioning]:
        """The conditioning with zeros for its context and pooled vector; everything else stays."""
        zeroed = []
        for context, options in (entry[:2] for entry in conditioning):
            zeros = {
                key: torch.zeros_like(options[key]) for key in ("pooled_output", "conditioning_lyrics") if options.get(key) is not None
            }
            zeroed.append([torch.zeros_like(context), {**options, **zeros}])
        return (zeroed,)


class ConditioningSetTimestepRange:
    """Limits a prompt to a part of the sampling."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "set_range"
    CATEGORY = TRANSFORM

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": ("CONDITIONING",), "start": real(0.0, 0.0, 1.0, 0.001), "end": real(1.0, 0.0, 1.0, 0.001)}}

    def set_range(self, conditioning: Conditioning, start: float, end: float) -> tuple[Conditioning]:
        """The conditioning limited to the sampling from the share *start* to the share *end* (0 to 1)."""
        return (node_helpers.conditioning_set_values(conditioning, {"start_percent": start, "end_percent": end}),)


class unCLIPConditioning:  # noqa: N801 - ComfyUI's name
    """Has a model that draws after pictures see one."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "apply_adm"
    CATEGORY = "model/conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": ("CONDITIONING",),
                "clip_vision_output": ("CLIP_VISION_OUTPUT",),
                "strength": real(1.0, -10.0, 10.0),
                "noise_augmentation": real(0.0, 0.0, 1.0),
            }
        }

    def apply_adm(
        self, conditioning: Conditioning, clip_vision_output: Any, strength: float, noise_augmentation: float
    ) -> tuple[Conditioning]:
        """The conditioning with one more picture, unless its *strength* is 0."""
        if strength == 0:
            return (conditioning,)
        seen = {"clip_vision_output": clip_vision_output, "strength": strength, "noise_augmentation": noise_augmentation}
        return (node_helpers.conditioning_set_values(conditioning, {"unclip_conditioning": [seen]}, append=True),)


_TITLES = {
    CLIPTextEncode: "CLIP Text Encode (Prompt)",
    CLIPSetLastLayer: "CLIP Set Last Layer",
    ConditioningCombine: "Conditioning (Combine)",
    ConditioningAverage: "Conditioning (Average)",
    ConditioningConcat: "Conditioning (Concat)",
    ConditioningMultiply: "Conditioning (Multiply)",
    ConditioningSetArea: "Conditioning (Set Area)",
    ConditioningSetAreaPercentage: "Conditioning (Set Area with Percentage)",
    ConditioningSetAreaStrength: "Conditioning (Set Area Strength)",
    ConditioningSetMask: "Conditioning (Set Mask)",
    ConditioningZeroOut: "Conditioning Zero Out",
    ConditioningSetTimestepRange: None,
    unCLIPConditioning: None,
}
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _TITLES}
NODE_DISPLAY_NAME_MAPPINGS = {node.__name__: title for node, title in _TITLES.items() if title is not None}
