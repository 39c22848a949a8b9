"""Core nodes that make and reshape images (B×H×W×C, values 0…1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import pixels, real, whole

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

UPSCALE_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
CROP_METHODS = ["disabled", "center"]


def resize_images(images_BHWC: Any, width: int, height: int, method: str, crop: str = "disabled") -> Any:
    """``comfy.utils.common_upscale`` for images with channels last."""
    return comfy.utils.common_upscale(images_BHWC.movedim(-1, 1), width, height, method, crop).movedim(1, -1)


class ImageScale:
    """Resizes images to a size in pixels; a side of 0 is computed from the other one."""

    upscale_methods = UPSCALE_METHODS
    crop_methods = CROP_METHODS
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"
    ESSENTIALS_CATEGORY = "Image Tools"
    SEARCH_ALIASES = ["resize", "resize image", "scale image", "image resize", "zoom", "zoom in", "change size"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (cls.upscale_methods,),
                "width": pixels(512),
                "height": pixels(512),
                "crop": (cls.crop_methods,),
            }
        }

    def upscale(self, image: Tensor, upscale_method: str, width: int, height: int, crop: str) -> tuple[Tensor]:
        """The images at *width* × *height*; unchanged if both are 0."""
        if width == 0 and height == 0:
            return (image,)
        old_height, old_width = image.shape[1:3]
        width = width or max(1, round(old_width * height / old_height))
        height = height or max(1, round(old_height * width / old_width))
        return (resize_images(image, width, height, upscale_method, crop),)


class ImageScaleBy:
    """Resizes images by a factor."""

    upscale_methods = UPSCALE_METHODS
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"
    ESSENTIALS_CATEGORY = "Image Tools"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "upscale_method": (cls.upscale_methods,), "scale_by": real(1.0, 0.01, 8.0)}}

    def upscale(self, image: Tensor, upscale_method: str, scale_by: float) -> tuple[Tensor]:
        """The images with both sides multiplied by *scale_by* and rounded."""
        height, width = (round(side * scale_by) for side in image.shape[1:3])
        return (resize_images(image, width, height, upscale_method),)


class ImageInvert:
    """Inverts images: every value becomes 1 minus itself."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "invert"
    CATEGORY = "image/color"
    ESSENTIALS_CATEGORY = "Image Tools"
    SEARCH_ALIASES = ["reverse colors"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def invert(self, image: Tensor) -> tuple[Tensor]:
        """The negative of *image*."""
        return (1.0 - image,)


class ImageBatch:
    """Joins two batches; the second takes the size of the first, and a missing alpha channel becomes opaque."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "batch"
    CATEGORY = "image/batch"
    DEPRECATED = True
    SEARCH_ALIASES = ["combine images", "merge images", "stack images"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image1": ("IMAGE",), "image2": ("IMAGE",)}}

    def batch(self, image1: Tensor, image2: Tensor) -> tuple[Tensor]:
        """*image1* followed by *image2*."""
        channels = max(image1.shape[-1], image2.shape[-1])
        first, second = (
            image if image.shape[-1] == channels else torch.nn.functional.pad(image, (0, 1), value=1.0) for image in (image1, image2)
        )
        if first.shape[1:] != second.shape[1:]:
            second = resize_images(second, first.shape[2], first.shape[1], "bilinear", "center")
        return (torch.cat((first, second), dim=0),)


class EmptyImage:
    """Makes images of one colour."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "generate"
    CATEGORY = "image"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "width": pixels(512, 1),
                "height": pixels(512, 1),
                "batch_size": whole(1, 1, 4096),
                "color": whole(0, 0, 0xFFFFFF, 1, display="color"),
            }
        }

    def generate(self, width: int, height: int, batch_size: int = 1, color: int = 0) -> tuple[Tensor]:
        """*batch_size* images filled with *color*, given as 0xRRGGBB."""
        levels = [(color >> shift & 0xFF) / 0xFF for shift in (16, 8, 0)]
        pixel = torch.tensor(levels, dtype=model_management.intermediate_dtype(), device=model_management.intermediate_device())
        return (pixel.repeat(batch_size, height, width, 1),)


class ImagePadForOutpaint:
    """Adds grey borders to images, and makes the mask of the parts to paint, which fades into the picture."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "expand_image"
    CATEGORY = "image/transform"
    SEARCH_ALIASES = ["extend canvas", "expand image"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        borders = {side: pixels(0, step=8) for side in ("left", "top", "right", "bottom")}
        return {"required": {"image": ("IMAGE",), **borders, "feathering": pixels(40, advanced=True)}}

    def expand_image(self, image: Tensor, left: int, top: int, right: int, bottom: int, feathering: int) -> tuple[Tensor, Tensor]:
        """The padded images and one mask: 1 in the borders, falling to 0 within *feathering* pixels of a padded side."""
        batch, height, width, channels = image.shape
        inside = (slice(top, top + height), slice(left, left + width))
        padded = torch.full((batch, height + top + bottom, width + left + right, channels), 0.5, dtype=torch.float32)
        padded[:, *inside] = image
        mask = torch.ones(padded.shape[1:3], dtype=torch.float32)
        mask[inside] = 0.0
        if 0 < feathering * 2 < min(height, width):
            rows, columns = torch.arange(height), torch.arange(width)
            far = torch.tensor(max(height, width))
            from_edge = torch.minimum(
                torch.minimum(rows if top else far, height - rows if bottom else far)[..., None].expand(height, 1),
                torch.minimum(columns if left else far, width - columns if right else far).expand(1, width),
            )
            share = (feathering - from_edge).clamp(min=0).to(torch.float64) / feathering
            mask[inside] = (share * share).to(torch.float32)
        return padded, mask.unsqueeze(0)


NODE_CLASS_MAPPINGS = {
    "ImageScale": ImageScale,
    "ImageScaleBy": ImageScaleBy,
    "ImageInvert": ImageInvert,
    "ImageBatch": ImageBatch,
    "EmptyImage": EmptyImage,
    "ImagePadForOutpaint": ImagePadForOutpaint,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "ImageScale": "Upscale Image",
    "ImageScaleBy": "Upscale Image By",
    "ImageInvert": "Invert Image Colors",
    "ImageBatch": "Batch Images (DEPRECATED)",
    "EmptyImage": "Empty Image",
    "ImagePadForOutpaint": "Pad Image for Outpainting",
}
