"""Core nodes that read pictures from the server's folders and write them there."""

from __future__ import annotations

import hashlib
import os
import random
import string
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy import model_management
from comfy.interruption import interrupt_flag
from comfy.lazy_import import lazy_module
from comfy_extras import image_reading, image_writing
from utils.folder_walk import regular_files_in
from utils.regular_files import open_regular

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

PREVIEW_SUFFIX_LENGTH = 5


class SaveImage:
    """Writes each image of a batch as PNG into the output folder and passes the batch on.

    Packs derive from it and set ``output_dir``, ``type``, ``prefix_append`` and ``compress_level`` on the instance.
    """

    CATEGORY = "image"
    ESSENTIALS_CATEGORY: str | None = "Basics"
    DESCRIPTION = "Writes the images into the output folder."
    FUNCTION, OUTPUT_NODE = "save_images", True
    RETURN_TYPES: tuple[str, ...] = ("IMAGE",)
    RETURN_NAMES: tuple[str, ...] = ("images",)
    SEARCH_ALIASES = ["save", "save image", "export image", "output image", "write image", "download"]

    def __init__(self) -> None:
        self.type, self.output_dir = "output", folder_paths.get_output_directory()
        self.compress_level, self.prefix_append = 4, ""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        prefix_help = (
            "Start of the file name. Tokens such as %date:yyyy-MM-dd%, %width% or %KSampler.seed% are replaced by the date, "
            "the size and values of other nodes."
        )
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures that will be written."}),
                "filename_prefix": ("STRING", {"default": "ComfyUI", "tooltip": prefix_help}),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save_images(
        self, images: Tensor, filename_prefix: str = "ComfyUI", prompt: Any = None, extra_pnginfo: Any = None
    ) -> dict[str, Any]:
        """Write *images* (B×H×W×C, 0…1); returns the list of files for the page, and *images* unchanged."""
        height, width = images[0].shape[:2]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix + self.prefix_append, self.output_dir, width, height
        )
        texts = image_writing.metadata_texts(prompt, extra_pnginfo)
        saved = []
        for number, image in enumerate(images):
            interrupt_flag.raise_if_set()
            file_name = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}_.png"
            picture = image_writing.to_picture(image)
            image_writing.save_png(os.path.join(folder, file_name), picture, texts, self.compress_level)
            saved.append({"filename": file_name, "subfolder": subfolder, "type": self.type})
        return {"ui": {"images": saved}, "result": (images,)}


class PreviewImage(SaveImage):
    """Shows images on the page: writes them into the folder for temporary files."""

    DESCRIPTION = "Shows the images without keeping them in the output folder."
    SEARCH_ALIASES = ["preview", "preview image", "show image", "view image", "display image", "image viewer"]

    def __init__(self) -> None:
        super().__init__()
        self.type, self.output_dir = "temp", folder_paths.get_temp_directory()
        suffix = "".join(random.choices(string.ascii_lowercase, k=PREVIEW_SUFFIX_LENGTH))
        self.compress_level, self.prefix_append = 1, f"_temp_{suffix}"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",)}, "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}}


class LoadImage:
    """Reads a picture of the input folder: its frames as images, its transparency as masks."""

    RETURN_TYPES: tuple[str, ...] = ("IMAGE", "MASK")
    FUNCTION = "load_image"
    CATEGORY = "image"
    ESSENTIALS_CATEGORY = "Basics"
    SEARCH_ALIASES = ["load image", "open image", "import image", "image input", "upload image", "read image", "image loader"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = [entry.name for entry in regular_files_in(folder_paths.get_input_directory())]
        pictures = folder_paths.filter_files_content_types(names, ["image"])
        return {"required": {"image": (sorted(pictures), {"image_upload": True})}}

    def load_image(self, image: str) -> tuple[Tensor, Tensor]:
        """Images (B×H×W×3) and masks (B×H×W, 1 where transparent) of the file named *image*."""
        pictures, masks = image_reading.read_image(folder_paths.get_annotated_filepath(image))
        device, dtype = model_management.intermediate_device(), model_management.intermediate_dtype()
        return pictures.to(device, dtype), masks.to(device, dtype)

    @classmethod
    def IS_CHANGED(cls, image: str) -> Any:
        """The SHA-256 of the file's contents."""
        with open_regular(folder_paths.get_annotated_filepath(image)) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:
        """Whether the file exists inside its folder; otherwise the error text."""
        return True if folder_paths.exists_annotated_filepath(image) else f"Invalid image file: {image}"


class LoadImageMask(LoadImage):
    """Reads one channel of a picture of the input folder as a mask."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "load_image_mask"
    ESSENTIALS_CATEGORY = "Image Tools"
    SEARCH_ALIASES = ["import mask", "alpha mask", "channel mask"]
    _color_channels = ["alpha", "red", "green", "blue"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {**super().INPUT_TYPES()["required"], "channel": (cls._color_channels,)}}

    def load_image_mask(self, image: str, channel: str) -> tuple[Tensor]:
        """The mask (B×H×W) that *channel* holds; ``alpha`` gives 1 where the picture is transparent."""
        pictures, masks = self.load_image(image)
        return (masks if channel == "alpha" else pictures[..., ("red", "green", "blue").index(channel)].clone(),)

    @classmethod
    def IS_CHANGED(cls, image: str, channel: str = "alpha") -> Any:
        """The SHA-256 of the file's contents."""
        return super().IS_CHANGED(image)


class LoadImageOutput(LoadImage):
    """Reads a picture of the output folder; the page fills the list from the server."""

    EXPERIMENTAL = True
    DESCRIPTION = "Loads a picture from the output folder. The refresh button reads the list again and picks its first entry."
    SEARCH_ALIASES = ["output image", "previous generation"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        remote = {"route": "/internal/files/output", "refresh_button": True, "control_after_refresh": "first"}
        return {"required": {"image": ("COMBO", {"image_upload": True, "image_folder": "output", "remote": remote})}}


NODE_CLASS_MAPPINGS = {
    "SaveImage": SaveImage,
    "PreviewImage": PreviewImage,
    "LoadImage": LoadImage,
    "LoadImageMask": LoadImageMask,
    "LoadImageOutput": LoadImageOutput,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "SaveImage": "Save Image",
    "PreviewImage": "Preview Image",
    "LoadImage": "Load Image",
    "LoadImageMask": "Load Image (as Mask)",
    "LoadImageOutput": "Load Image (from Outputs)",
}
