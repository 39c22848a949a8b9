"""Core nodes for image encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.clip_vision import ClipVisionModel, Output

clip_vision = lazy_module("comfy.clip_vision")


class CLIPVisionLoader:
    """Loads an image encoder."""

    RETURN_TYPES = ("CLIP_VISION",)
    FUNCTION = "load_clip"
    CATEGORY = "model/loaders"
    READS_AHEAD = {"clip_name": "clip_vision"}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip_name": (folder_paths.get_filename_list("clip_vision"),)}}

    def load_clip(self, clip_name: str) -> tuple[ClipVisionModel]:
        """The image encoder. Raises ``RuntimeError`` when the file does not hold one."""
        model = clip_vision.load(folder_paths.get_full_path_or_raise("clip_vision", clip_name))
        if model is None:
            raise RuntimeError(
                f"{clip_name} holds no image encoder; supported: those of CLIP, in transformers' or open_clip's names, and of SigLIP"
            )
        return (model,)


class CLIPVisionEncode:
    """Encodes pictures by an image encoder."""

    RETURN_TYPES = ("CLIP_VISION_OUTPUT",)
    FUNCTION = "encode"
    CATEGORY = "model/conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip_vision": ("CLIP_VISION",), "image": ("IMAGE",), "crop": (["center", "none"],)}}

    def encode(self, clip_vision: ClipVisionModel, image: Tensor, crop: str) -> tuple[Output]:
        """What the encoder makes of *image*, whose middle is taken ("center") or which is stretched ("none")."""
        return (clip_vision.encode_image(image, crop=crop == "center"),)


NODE_CLASS_MAPPINGS = {"CLIPVisionLoader": CLIPVisionLoader, "CLIPVisionEncode": CLIPVisionEncode}
NODE_DISPLAY_NAME_MAPPINGS = {"CLIPVisionLoader": "Load CLIP Vision", "CLIPVisionEncode": "CLIP Vision Encode"}
