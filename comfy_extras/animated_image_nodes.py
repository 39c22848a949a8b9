"""Nodes that save a batch of images as one animated file (part of ``nodes_images``)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_extras import image_writing
from comfy_extras.node_inputs import boolean, combo, real, socket, text, whole
from utils.whole_files import write_whole

if TYPE_CHECKING:
    from torch import Tensor

_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


class _AnimationNode:
    """Saves a batch as an animation; derived classes define how pictures become one file."""

    RETURN_TYPES, RETURN_NAMES = ("IMAGE",), ("images",)
    FUNCTION, OUTPUT_NODE = "execute", True
    CATEGORY = "image"
    EXTENSION = ""

    @classmethod
    def _save(cls, images: Any, filename_prefix: str, fps: float, options: dict[str, Any]) -> dict[str, Any]:
        height, width = images[0].shape[:2]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        file_name = f"{name}_{counter:05}_.{cls.EXTENSION}"
        first, *others = (image_writing.to_picture(image) for image in images)
        settings = {"format": cls.EXTENSION, "save_all": True, "append_images": others, "duration": int(1000.0 / fps), **options}
        write_whole(os.path.join(folder, file_name), lambda opened: first.save(opened, **settings))
        shown = {"images": [{"filename": file_name, "subfolder": subfolder, "type": "output"}]}
        return {"ui": {**shown, "animated": (True,)} if others else shown, "result": (images,)}


class SaveAnimatedWEBP(_AnimationNode):
    """Saves a batch as an animated WEBP with the prompt and workflow in its EXIF data."""

    EXTENSION = "webp"
    COMPRESS_METHODS = {"default": 4, "fastest": 0, "slowest": 6}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": socket("IMAGE"),
                "filename_prefix": text("ComfyUI", False),
                "fps": real(6.0, 0.01, 1000.0),
                "lossless": boolean(True),
                "quality": whole(80, 0, 100),
                "method": combo(list(cls.COMPRESS_METHODS)),
            },
            "hidden": _HIDDEN,
        }

    @classmethod
    def execute(
        cls,
        images: Tensor,
        fps: float,
        filename_prefix: str,
        lossless: bool,
        quality: int,
        method: str,
        num_frames: Any = 0,
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict[str, Any]:
        """Write the file; returns it for the page and the unchanged *images*. *num_frames* is not used."""
        texts = image_writing.metadata_texts(prompt, extra_pnginfo)
        exif = image_writing.exif_metadata(texts, image_writing.to_picture(images[0]))
        return cls._save(
            images, filename_prefix, fps, {"exif": exif, "lossless": lossless, "quality": quality, "method": cls.COMPRESS_METHODS[method]}
        )

    save_images = execute


class SaveAnimatedPNG(_AnimationNode):
    """Saves a batch as an animated PNG with the prompt and workflow in private chunks."""

    EXTENSION = "png"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": socket("IMAGE"),
                "filename_prefix": text("ComfyUI", False),
                "fps": real(6.0, 0.01, 1000.0),
                "compress_level": whole(4, 0, 9, advanced=True),
            },
            "hidden": _HIDDEN,
        }

    @classmethod
    def execute(
        cls,
        images: Tensor,
        fps: float,
        compress_level: int,
        filename_prefix: str = "ComfyUI",
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict[str, Any]:
        """Write the file; returns it for the page and the unchanged *images*."""
        chunks = image_writing.animated_png_metadata(image_writing.metadata_texts(prompt, extra_pnginfo))
        return cls._save(images, filename_prefix, fps, {"pnginfo": chunks, "compress_level": compress_level})

    save_images = execute
