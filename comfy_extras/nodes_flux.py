"""Nodes for Flux.1: guidance, prompts for both text encoders, Kontext's picture sizes and how it sees them, and kept keys and values.

Those for Flux.2 are in :mod:`comfy_extras.flux2_nodes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.utils
import node_helpers
from comfy.lazy_import import lazy_module
from comfy_extras.flux2_nodes import EmptyFlux2LatentImage, Flux2Scheduler, compute_empirical_mu, generalized_time_snr_shift, get_schedule
from comfy_extras.node_inputs import combo, real, socket, text

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher
    from comfy.text.encoder import CLIP
    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")

__all__ = [
    "CLIPTextEncodeFlux",
    "EmptyFlux2LatentImage",
    "Flux2Scheduler",
    "FluxDisableGuidance",
    "FluxGuidance",
    "FluxKVCache",
    "FluxKontextImageScale",
    "FluxKontextMultiReferenceLatentMethod",
    "KV_Attn_Input",
    "compute_empirical_mu",
    "generalized_time_snr_shift",
    "get_schedule",
]

CATEGORY = "model/conditioning/flux"
KONTEXT_HEIGHTS = {  # by width, in pixels: the portraits that Kontext was trained with; it knows them on their side as well
    672: 1568,
    688: 1504,
    720: 1456,
    752: 1392,
    800: 1328,
    832: 1248,
    880: 1184,
    944: 1104,
    1024: 1024,
}
METHODS = ["offset", "index", "uxo/uno", "index_timestep_zero"]


class _FluxConditioning:
    """Attributes that these nodes share."""

    RETURN_TYPES: tuple[str, ...] = ("CONDITIONING",)
    FUNCTION = "execute"
    CATEGORY = CATEGORY


class CLIPTextEncodeFlux(_FluxConditioning):
    """Encodes one prompt for each of Flux's two text encoders."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        prompts = {name: text(multiline=True, dynamicPrompts=True) for name in ("clip_l", "t5xxl")}
        return {"required": {"clip": socket("CLIP"), **prompts, "guidance": real(3.5, 0.0, 100.0, 0.1)}}

    @classmethod
    def execute(cls, clip: CLIP, clip_l: str, t5xxl: str, guidance: float) -> tuple[Conditioning]:
        """The conditioning of both texts, with *guidance*."""
        tokens = {**clip.tokenize(clip_l), "t5xxl": clip.tokenize(t5xxl)["t5xxl"]}
        return (clip.encode_from_tokens_scheduled(tokens, add_dict={"guidance": guidance}),)

    encode = execute


class FluxGuidance(_FluxConditioning):
    """Sets the guidance that Flux was distilled with."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": socket("CONDITIONING"), "guidance": real(3.5, 0.0, 100.0, 0.1)}}

    @classmethod
    def execute(cls, conditioning: Conditioning, guidance: float) -> tuple[Conditioning]:
        """A copy of *conditioning* with *guidance*."""
        return (node_helpers.conditioning_set_values(conditioning, {"guidance": guidance}),)

    append = execute


class FluxDisableGuidance(_FluxConditioning):
    """Leaves the guidance embedding out."""

    DESCRIPTION = "The model gets no guidance value at all: for Flux and models like it."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": socket("CONDITIONING")}}

    @classmethod
    def execute(cls, conditioning: Conditioning) -> tuple[Conditioning]:
        """A copy of *conditioning* without a guidance value."""
        return (node_helpers.conditioning_set_values(conditioning, {"guidance": None}),)

    append = execute


class FluxKontextImageScale(_FluxConditioning):
    """Scales a picture to the size nearest in shape to its own that Kontext was trained with."""

    RETURN_TYPES = ("IMAGE",)
    DESCRIPTION = "Scales and crops a picture to the size, among those Flux Kontext knows best, that is nearest to its shape."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE")}}

    @classmethod
    def execute(cls, image: Tensor) -> tuple[Tensor]:
        """*image*, B x height x width x channels, cropped around the centre."""
        ratio = image.shape[2] / image.shape[1]
        sizes = {**KONTEXT_HEIGHTS, **{height: width for width, height in KONTEXT_HEIGHTS.items()}}
        width, height = min(sorted(sizes.items()), key=lambda size: abs(ratio - size[0] / size[1]))
        return (comfy.utils.common_upscale(image.movedim(-1, 1), width, height, "lanczos", "center").movedim(1, -1),)

    scale = execute


class FluxKontextMultiReferenceLatentMethod(_FluxConditioning):
    """Sets where a model sees the pictures it looks at: beside the picture it makes, or numbered behind it."""

    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": socket("CONDITIONING"), "reference_latents_method": combo(METHODS, advanced=True)}}

    @classmethod
    def execute(cls, conditioning: Conditioning, reference_latents_method: str) -> tuple[Conditioning]:
        """A copy of *conditioning* with the method; those of UXO, UNO and USO are one."""
        of_uxo = any(name in reference_latents_method for name in ("uxo", "uso"))
        method = "uxo" if of_uxo else reference_latents_method
        return (node_helpers.conditioning_set_values(conditioning, {"reference_latents_method": method}),)

    append = execute


class KV_Attn_Input:  # noqa: N801 - the name node packs import
    """Keeps the keys and values of the pictures that a model looks at, from the first step on, and adds them in later steps.

    A patch of the attention (``set_model_attn1_patch``); one sampling at a time. ``cleanup`` forgets them.
    """

    def __init__(self) -> None:
        self.cache: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        """Queries, keys and values (B x H x N x D), with what is kept behind the last two; the last tokens of the first step are kept."""
        tokens = sum(extra_options.get("reference_image_num_tokens", ()))
        if not tokens:
            return {}
        place = f"{extra_options['block_type']}_{extra_options['block_index']}"
        if place not in self.cache:
            self.cache[place] = k[:, :, -tokens:].clone(), v[:, :, -tokens:].clone()
            return {"q": q, "k": k, "v": v}
        kept = (comfy.utils.repeat_to_batch_size(one, len(q)) for one in self.cache[place])
        return {"q": q, **{name: torch.cat((own, more), dim=2) for name, own, more in zip("kv", (k, v), kept)}}

    def without_references(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The embedded input without the pictures' tokens, once their keys and values are kept (``set_model_post_input_patch``)."""
        tokens = sum(inputs["transformer_options"].get("reference_image_num_tokens", ()))
        return {**inputs, "img": inputs["img"][:, :-tokens]} if self.cache and tokens else inputs

    def cleanup(self) -> None:
        """Forget what is kept; called when sampling ends."""
        self.cache = {}


class FluxKVCache:
    """Computes the pictures that a model looks at in the first step only."""

    RETURN_TYPES = ("MODEL",)
    OUTPUT_TOOLTIPS = ("The model, which keeps keys and values of reference pictures.",)
    FUNCTION = "execute"
    CATEGORY = "experimental"
    EXPERIMENTAL = True
    DESCRIPTION = "Keeps what a Flux model made of its reference pictures in the first step for the later ones."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": socket("MODEL", tooltip="The model that keeps them.")}}

    @classmethod
    def execute(cls, model: ModelPatcher) -> tuple[ModelPatcher]:
        """A clone of *model* whose references have the time zero, so that they are the same in every step."""
        clone = model.clone()
        kept = KV_Attn_Input()
        clone.set_model_attn1_patch(kept)
        clone.set_model_post_input_patch(kept.without_references)
        owner = "params." if hasattr(clone.model.diffusion_model, "params") else ""
        clone.add_object_patch(f"diffusion_model.{owner}default_ref_method", "index_timestep_zero")
        return (clone,)


NODE_CLASS_MAPPINGS = {
    node.__name__: node
    for node in (
        CLIPTextEncodeFlux,
        FluxGuidance,
        FluxDisableGuidance,
        FluxKontextImageScale,
        FluxKontextMultiReferenceLatentMethod,
        FluxKVCache,
        EmptyFlux2LatentImage,
        Flux2Scheduler,
    )
}
NODE_DISPLAY_NAME_MAPPINGS = {"FluxKontextMultiReferenceLatentMethod": "Edit Model Reference Method", "FluxKVCache": "Flux KV Cache"}
