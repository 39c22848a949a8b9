"""Nodes for video models whose batch is the frames: loading, what a video begins with, guidance by frame, and areas in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
import node_helpers
from comfy.lazy_import import lazy_module
from comfy_extras.empty_latents import MAX_BATCH, empty_latent
from comfy_extras.node_inputs import MAX_RESOLUTION, real
from comfy_extras.nodes_model_merging import CheckpointSave, save_checkpoint
from comfy_extras.wan_conditioning import fitted

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.clip_vision import ClipVisionModel
    from comfy.images.vae import VAE
    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")
sd = lazy_module("comfy.sd")


class ImageOnlyCheckpointLoader:
    """Loads a checkpoint that is told by pictures alone, with its image encoder."""

    RETURN_TYPES = ("MODEL", "CLIP_VISION", "VAE")
    FUNCTION = "load_checkpoint"
    CATEGORY = "model/loaders"
    READS_AHEAD = {"ckpt_name": "checkpoints"}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": (folder_paths.get_filename_list("checkpoints"),)}}

    def load_checkpoint(
        self, ckpt_name: str, output_vae: bool = True, output_clip: bool = True
    ) -> tuple[ModelPatcher, ClipVisionModel | None, VAE | None]:
        """Model patcher, image encoder and VAE; None for a part that the file does not hold."""
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        folders = folder_paths.get_folder_paths("embeddings")
        model, _, vae, eyes = sd.load_checkpoint_guess_config(path, output_clip=False, output_clipvision=True, embedding_directory=folders)
        return model, eyes, vae


class ImageOnlyCheckpointSave(CheckpointSave):
    """Saves such a model, its image encoder and its autoencoder as one checkpoint."""

    SEARCH_ALIASES = []
    CATEGORY = "model/merging"
    WHAT = {"model": "MODEL", "clip_vision": "CLIP_VISION", "vae": "VAE"}

    def save(  # type: ignore[override]
        self,
        model: ModelPatcher,
        clip_vision: ClipVisionModel,
        vae: VAE,
        filename_prefix: str,
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict[str, Any]:
        """Write them with their patches."""
        save_checkpoint(model, None, vae, clip_vision, filename_prefix, self.output_dir, prompt, extra_pnginfo)
        return {}


class SVD_img2vid_Conditioning:  # noqa: N801 - ComfyUI's name
    """Makes a video of Stable Video Diffusion begin with a picture."""

    RETURN_TYPES = ("CONDITIONING", "CONDITIONING", "LATENT")
    RETURN_NAMES = ("positive", "negative", "latent")
    FUNCTION = "encode"
    CATEGORY = "model/conditioning/stable video"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def whole(default: int, lowest: int, highest: int, **options: Any) -> tuple[str, dict[str, Any]]:
            return ("INT", {"default": default, "min": lowest, "max": highest, **options})

        return {
            "required": {
                "clip_vision": ("CLIP_VISION",),
                "init_image": ("IMAGE",),
                "vae": ("VAE",),
                "width": whole(1024, 16, MAX_RESOLUTION, step=8),
                "height": whole(576, 16, MAX_RESOLUTION, step=8),
                "video_frames": whole(14, 1, MAX_BATCH),
                "motion_bucket_id": whole(127, 1, 1023, advanced=True),
                "fps": whole(6, 1, 1024),
                "augmentation_level": real(0.0, 0.0, 10.0, advanced=True),
            }
        }

    def encode(
        self,
        clip_vision: ClipVisionModel,
        init_image: Tensor,
        vae: VAE,
        width: int,
        height: int,
        video_frames: int,
        motion_bucket_id: int,
        fps: int,
        augmentation_level: float,
    ) -> tuple[Conditioning, Conditioning, Latent]:
        """What the image encoder sees with the picture's latent, zeros for both, and an empty latent for each frame."""
        seen = clip_vision.encode_image(init_image)["image_embeds"][None]
        pixels = fitted(init_image, width, height)
        if augmentation_level > 0:
            pixels = pixels + torch.randn_like(pixels) * augmentation_level
        latent = vae.encode(pixels)
        told = {"motion_bucket_id": motion_bucket_id, "fps": fps, "augmentation_level": augmentation_level}
        positive, negative = (
            [[sight, {**told, "concat_latent_image": begun}]]
            for sight, begun in ((seen, latent), (torch.zeros_like(seen), torch.zeros_like(latent)))
        )
        return positive, negative, empty_latent(video_frames, 4, height // 8, width // 8)


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
    node.__name__: node
    for node in (
        ImageOnlyCheckpointLoader,
        SVD_img2vid_Conditioning,
        VideoLinearCFGGuidance,
        VideoTriangleCFGGuidance,
        ImageOnlyCheckpointSave,
        ConditioningSetAreaPercentageVideo,
    )
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ImageOnlyCheckpointLoader": "Load Checkpoint Image Only (img2vid model)",
    "VideoLinearCFGGuidance": "Video Linear CFG Guidance",
    "VideoTriangleCFGGuidance": "Video Triangle CFG Guidance",
    "ConditioningSetAreaPercentageVideo": "Conditioning (Set Area with Percentage for Video)",
}
