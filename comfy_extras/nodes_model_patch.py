"""Nodes for model patches: ControlNets of Qwen-Image, Z-Image and Wan, USO's style for Flux, LLLite for Anima."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import real

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy.model_patcher import ModelPatcher

loading = lazy_module("comfy.loading.model_patch")
model_base = lazy_module("comfy.model_base")
patches = lazy_module("comfy.control.model_patches")
z_image = lazy_module("comfy.ldm.lumina.controlnet")
blockwise = lazy_module("comfy.ldm.qwen_image.blockwise")
lllite = lazy_module("comfy.ldm.anima.lllite")
lllite_patches = lazy_module("comfy.control.lllite_patches")
style = lazy_module("comfy.ldm.flux.siglip_style")
uni3c = lazy_module("comfy.ldm.wan.uni3c")
uni3c_patch = lazy_module("comfy.control.uni3c")

PICTURES, VIDEOS = 2, 3  # dimensions of latents
_STRENGTH = {"strength": real(1.0, -10.0, 10.0, 0.01)}


class ModelPatchLoader:
    """Loads a model patch."""

    RETURN_TYPES = ("MODEL_PATCH",)
    FUNCTION = "load_model_patch"
    CATEGORY = "model/loaders"
    EXPERIMENTAL = True
    READS_AHEAD = {"name": "model_patches"}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": (folder_paths.get_filename_list("model_patches"),)}}

    def load_model_patch(self, name: str) -> tuple[ModelPatcher]:
        """The patcher of its network."""
        return (loading.load_model_patch(folder_paths.get_full_path_or_raise("model_patches", name)),)


class QwenImageDiffsynthControlnet:
    """Lets a ControlNet look at a picture as the model runs: DiffSynth's for Qwen-Image, or Fun's for Z-Image."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "diffsynth_controlnet"
    CATEGORY = "model/patch/qwen"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sockets = {"model": ("MODEL",), "model_patch": ("MODEL_PATCH",), "vae": ("VAE",), "image": ("IMAGE",)}
        return {"required": {**sockets, **_STRENGTH}, "optional": {"mask": ("MASK",)}}

    def diffsynth_controlnet(
        self,
        model: ModelPatcher,
        model_patch: ModelPatcher,
        vae: VAE,
        image: Tensor | None = None,
        strength: float = 1.0,
        inpaint_image: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[ModelPatcher]:
        """A clone of *model* that *model_patch* corrects. *mask* (B x height x width) is 1 where to paint.

        Raises ``ValueError``, naming the files, for a model or an autoencoder of another kind.
        """
        image, inpaint_image = (None if picture is None else picture[..., :3] for picture in (image, inpaint_image))
        if mask is not None:
            mask = 1.0 - mask.reshape(-1, 1, *mask.shape[-2:])
        network: Any = model_patch.model
        patched = model.clone()
        if isinstance(network, z_image.ZImage_Control):
            patches.check_model(model_patch, model, model_base.Lumina2, {"dim": network.dim})
            patches.check_autoencoder(model_patch, vae, PICTURES, z_image.LATENT_CHANNELS)
            if image is None and (inpaint_image is None or not network.additional_in_dim):
                raise ValueError(
                    f"{network.source_name} looks at an image{' or an inpaint_image' * bool(network.additional_in_dim)}; connect it"
                )
            patch = patches.ZImageControlPatch(model_patch, vae, image, strength, inpaint_image, mask)
            patched.set_model_noise_refiner_patch(patch)
        elif isinstance(network, blockwise.QwenImageBlockWiseControlNet):
            patches.check_model(model_patch, model, model_base.QwenImage, {"inner_dim": network.dim}, "transformer_blocks")
            patches.check_autoencoder(model_patch, vae, VIDEOS, blockwise.LATENT_CHANNELS)
            if image is None:
                raise ValueError(f"{network.source_name} looks at an image; connect it")
            patch = patches.DiffSynthPatch(model_patch, vae, image, strength, mask)
        else:
            raise ValueError(f"{network.source_name} is no ControlNet of Qwen-Image or Z-Image, but a {type(network).__name__}")
        patched.set_model_double_block_patch(patch)
        return (patched,)


class ZImageFunControlnet(QwenImageDiffsynthControlnet):
    """The same, where the picture may be left out and one to fill in may be given."""

    CATEGORY = "model/patch/z-image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sockets = {"model": ("MODEL",), "model_patch": ("MODEL_PATCH",), "vae": ("VAE",)}
        optional = {"image": ("IMAGE",), "inpaint_image": ("IMAGE",), "mask": ("MASK",)}
        return {"required": {**sockets, **_STRENGTH}, "optional": optional}


class USOStyleReference:
    """Lets Flux draw in the style of a picture."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply_patch"
    CATEGORY = "model/patch/flux"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sockets = {"model": ("MODEL",), "model_patch": ("MODEL_PATCH",), "clip_vision_output": ("CLIP_VISION_OUTPUT",)}
        return {"required": sockets}

    def apply_patch(self, model: ModelPatcher, model_patch: ModelPatcher, clip_vision_output: Any) -> tuple[ModelPatcher]:
        """A clone of *model* that reads the picture's tokens before the text's.

        Raises ``ValueError``, naming the files, for another model than Flux and another image encoder than SigLIP.
        """
        network: Any = model_patch.model
        if not isinstance(network, style.SigLIPMultiFeatProjModel):
            raise ValueError(f"{network.source_name} is no style projector of USO, but a {type(network).__name__}")
        patches.check_model(model_patch, model, model_base.Flux, {"hidden_size": network.hidden_size})
        patched = model.clone()
        patched.set_model_post_input_patch(patches.StylePatch(model_patch, patches.style_states(clip_vision_output, network)))
        return (patched,)


class AnimaLLLiteApply:
    """Lets Anima follow a picture by LLLite."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply_patch"
    CATEGORY = "model_patches/anima"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sockets = {"model": ("MODEL",), "model_patch": ("MODEL_PATCH",), "image": ("IMAGE",)}
        shares = {name: real(default, 0.0, 1.0, 0.001) for name, default in (("start_percent", 0.0), ("end_percent", 1.0))}
        return {"required": {**sockets, **_STRENGTH, **shares}, "optional": {"mask": ("MASK",)}}

    def apply_patch(
        self,
        model: ModelPatcher,
        model_patch: ModelPatcher,
        image: Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
        mask: Tensor | None = None,
    ) -> tuple[ModelPatcher]:
        """A clone of *model* that *model_patch* corrects in that share of the sampling. *mask* (B x height x width) is 1 where to paint;
        files for one take its absence as nowhere, others do not look at it.

        Raises ``ValueError``, naming the files, for another model than Anima or Cosmos-Predict2.
        """
        network: Any = model_patch.model
        if not isinstance(network, lllite.AnimaLLLite):
            raise ValueError(f"{network.source_name} is no LLLite of Anima, but a {type(network).__name__}")
        patches.check_model(model_patch, model, (model_base.Anima, model_base.CosmosPredict2), {"model_channels": network.model_dim})
        image = image[..., :3]
        if lllite_patches.has_mask(network):
            mask = image.new_zeros(image.shape[:3]) if mask is None else mask
        else:
            mask = None
        levels = (float(model.get_model_object("model_sampling").percent_to_sigma(share)) for share in (start_percent, end_percent))
        patch = lllite_patches.AnimaLLLitePatch(model_patch, image, mask, strength, *levels)
        own = {letter: f"self_attn_{letter}_proj" for letter in "qkv"}
        patched = model.clone()
        patched.set_model_post_input_patch(patch)
        patched.set_model_attn1_patch(lllite_patches.AnimaLLLiteAttentionPatch(patch, own))
        patched.set_model_attn2_patch(lllite_patches.AnimaLLLiteAttentionPatch(patch, {"q": "cross_attn_q_proj"}))
        patched.set_model_patch(lllite_patches.AnimaLLLiteMLPPatch(patch), "mlp_patch")
        return (patched,)


class WanUni3CControlnetApply:
    """Lets Wan's videos follow a rendering of the scene from where the camera is to be."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply_patch"
    CATEGORY = "model/patch/wan"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        seen = "The scene as the camera is to see it, such as points of a picture's depth that are drawn anew for each frame."
        sockets: dict[str, Any] = {"model": ("MODEL",), "model_patch": ("MODEL_PATCH",), "vae": ("VAE",)}
        sockets["render_video"] = ("IMAGE", {"tooltip": seen})
        shares = {name: real(default, 0.0, 1.0, 0.001) for name, default in (("start_percent", 0.0), ("end_percent", 1.0))}
        return {"required": {**sockets, **_STRENGTH, **shares}}

    def apply_patch(
        self,
        model: ModelPatcher,
        model_patch: ModelPatcher,
        vae: VAE,
        render_video: Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
    ) -> tuple[ModelPatcher]:
        """A clone of *model* that *model_patch* corrects in that share of the sampling. *render_video*: F x height x width x channels.

        Raises ``ValueError``, naming the files, for a model or an autoencoder of another kind.
        """
        network: Any = model_patch.model
        if not isinstance(network, uni3c.WanUni3CControlnet):
            raise ValueError(f"{network.source_name} is no ControlNet of Uni3C, but a {type(network).__name__}")
        patches.check_model(model_patch, model, model_base.WAN21, {"dim": network.time_embed_dim})
        patches.check_autoencoder(model_patch, vae, VIDEOS, uni3c.LATENT_CHANNELS)
        levels = (float(model.get_model_object("model_sampling").percent_to_sigma(share)) for share in (start_percent, end_percent))
        latents = model.get_model_object("latent_format")
        patched = model.clone()
        patched.set_model_double_block_patch(uni3c_patch.Uni3CPatch(model_patch, render_video[..., :3], vae, latents, strength, *levels))
        return (patched,)


NODE_CLASS_MAPPINGS = {
    "ModelPatchLoader": ModelPatchLoader,
    "QwenImageDiffsynthControlnet": QwenImageDiffsynthControlnet,
    "ZImageFunControlnet": ZImageFunControlnet,
    "USOStyleReference": USOStyleReference,
    "AnimaLLLiteApply": AnimaLLLiteApply,
    "WanUni3CControlnetApply": WanUni3CControlnetApply,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ModelPatchLoader": "Load Model Patch",
    "QwenImageDiffsynthControlnet": "Apply Qwen Image DiffSynth ControlNet",
    "ZImageFunControlnet": "Apply Z-Image Fun ControlNet",
    "USOStyleReference": "Apply USO Style Reference",
    "AnimaLLLiteApply": "Apply Anima LLLite",
    "WanUni3CControlnetApply": "Apply Wan Uni3C ControlNet",
}
