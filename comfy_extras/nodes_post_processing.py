"""Nodes that blend, blur, sharpen, quantize and resize finished images, and join images, masks and latents to batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import node_helpers
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras import image_resizing
from comfy_extras.colour_transfer_node import ColorTransfer
from comfy_extras.core_images import resize_images
from comfy_extras.image_filters import convolve_mirrored, gaussian_kernel, sharpening_kernel
from comfy_extras.image_quantizing import quantize
from comfy_extras.image_resizing import PIXELS_PER_MEGAPIXEL, batch_images, batch_masks, scale_by, scale_dimensions
from comfy_extras.node_inputs import MAX_RESOLUTION, combo, real, socket, whole
from comfy_extras.nodes_latent import reshape_latent_to

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "NODE_CLASS_MAPPINGS",
    "NODE_DISPLAY_NAME_MAPPINGS",
    "BatchImagesNode",
    "BatchLatentsNode",
    "BatchMasksNode",
    "Blend",
    "Blur",
    "ColorTransfer",
    "ImageScaleToTotalPixels",
    "Quantize",
    "ResizeImageMaskNode",
    "Sharpen",
    "batch_images",
    "batch_latents",
    "batch_masks",
    "gaussian_kernel",
    "scale_by",
    "scale_dimensions",
]

numpy = lazy_module("numpy")
pil_image = lazy_module("PIL.Image")
torch = lazy_module("torch")

UPSCALE_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
CROP_METHODS = ["disabled", "center"]


def _soft_light(base: Tensor, top: Tensor) -> Tensor:
    """Soft light as the W3C compositing document defines it."""
    lightest = torch.where(base <= 0.25, ((16 * base - 12) * base + 4) * base, torch.sqrt(base))
    return torch.where(top <= 0.5, base - (1 - 2 * top) * base * (1 - base), base + (2 * top - 1) * (lightest - base))


_BLEND_MODES = {
    "normal": lambda base, top: top,
    "multiply": lambda base, top: base * top,
    "screen": lambda base, top: 1 - (1 - base) * (1 - top),
    "overlay": lambda base, top: torch.where(base <= 0.5, 2 * base * top, 1 - 2 * (1 - base) * (1 - top)),
    "soft_light": _soft_light,
    "difference": lambda base, top: base - top,
}


class _FilterNode:
    """Attributes that the filters of this module share."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/filters"


class Blend(_FilterNode):
    """Lays one image over another in a blend mode."""

    ESSENTIALS_CATEGORY = "Image Tools"
    SEARCH_ALIASES = ["mix images"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image1": socket("IMAGE"),
                "image2": socket("IMAGE"),
                "blend_factor": real(0.5, 0.0, 1.0),
                "blend_mode": combo(list(_BLEND_MODES)),
            }
        }

    @classmethod
    def execute(cls, image1: Tensor, image2: Tensor, blend_factor: float, blend_mode: str) -> tuple[Tensor]:
        """*image1* mixed with the blended image by *blend_factor*; *image2* first takes the size and channels of *image1*."""
        base, top = node_helpers.image_alpha_fix(image1, image2.to(image1.device))
        if base.shape != top.shape:
            top = resize_images(top, base.shape[2], base.shape[1], "bicubic", "center")
        blended = base * (1 - blend_factor) + _BLEND_MODES[blend_mode](base, top) * blend_factor
        return (torch.clamp(blended, 0, 1),)

    blend_images = execute


class Blur(_FilterNode):
    """Blurs images with a Gaussian."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE"), "blur_radius": whole(1, 1, 31, 1), "sigma": real(1.0, 0.1, 10.0, 0.1)}}

    @classmethod
    def execute(cls, image: Tensor, blur_radius: int, sigma: float) -> tuple[Tensor]:
        """The blurred images; *sigma* is relative to the radius. A radius of 0 changes nothing."""
        if blur_radius == 0:
            return (image,)
        kernel = gaussian_kernel(blur_radius * 2 + 1, sigma, image.device, image.dtype)
        return (convolve_mirrored(image.movedim(-1, 1), kernel).movedim(1, -1),)

    blur = execute


class Quantize(_FilterNode):
    """Reduces images to few colours."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        dithers = ["none", "floyd-steinberg", *(f"bayer-{order}" for order in (2, 4, 8, 16))]
        return {"required": {"image": socket("IMAGE"), "colors": whole(256, 1, 256, 1), "dither": combo(dithers)}}

    @classmethod
    def execute(cls, image: Tensor, colors: int, dither: str) -> tuple[Tensor]:
        """Each image in a palette of its own with *colors* colours; an alpha channel does not change."""
        reduced = image.clone()
        for frame in reduced:
            picture = pil_image.fromarray((frame[..., :3] * 255).to(torch.uint8).cpu().numpy())
            levels = numpy.array(quantize(picture, colors, dither)).astype(numpy.float32)
            frame[..., :3] = torch.from_numpy(levels) / 255
        return (reduced,)

    quantize = execute


class Sharpen(_FilterNode):
    """Sharpens images by subtracting a Gaussian blur."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": socket("IMAGE"),
                "sharpen_radius": whole(1, 1, 31, 1, advanced=True),
                "sigma": real(1.0, 0.1, 10.0, advanced=True),
                "alpha": real(1.0, 0.0, 5.0, advanced=True),
            }
        }

    @classmethod
    def execute(cls, image: Tensor, sharpen_radius: int, sigma: float, alpha: float) -> tuple[Tensor]:
        """The sharpened images, clipped to 0…1; *alpha* is the strength. A radius of 0 changes nothing."""
        if sharpen_radius == 0:
            return (image,)
        kernel = sharpening_kernel(sharpen_radius * 2 + 1, sigma, alpha, image.device, image.dtype)
        return (torch.clamp(convolve_mirrored(image.movedim(-1, 1), kernel).movedim(1, -1), 0, 1),)

    sharpen = execute


class ImageScaleToTotalPixels(_FilterNode):
    """Resizes images to a number of pixels."""

    CATEGORY = "image/upscaling"
    upscale_methods = UPSCALE_METHODS
    crop_methods = CROP_METHODS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": socket("IMAGE"),
                "upscale_method": combo(cls.upscale_methods),
                "megapixels": real(1.0, 0.01, 16.0),
                "resolution_steps": whole(1, 1, 256, advanced=True),
            }
        }

    @classmethod
    def execute(cls, image: Tensor, upscale_method: str, megapixels: float, resolution_steps: int = 1) -> tuple[Tensor]:
        """The images with about *megapixels* × 1024² pixels, the same aspect ratio and sides that *resolution_steps* divides."""
        height, width = image.shape[1:3]
        scale = math.sqrt(megapixels * PIXELS_PER_MEGAPIXEL / (width * height))
        new_width, new_height = (round(side * scale / resolution_steps) * resolution_steps for side in (width, height))
        return (resize_images(image, new_width, new_height, upscale_method),)

    upscale = execute


def _side(name: str, default: int = 512, lowest: int = 0, tooltip: str | None = None) -> Any:
    return io.Int.Input(name, default=default, min=lowest, max=MAX_RESOLUTION, step=1, tooltip=tooltip)


def _resize_options() -> list[Any]:
    """The ways to give a size, in the order of the list on the page."""
    crop = io.Combo.Input(
        "crop",
        options=CROP_METHODS,
        default="center",
        tooltip="What happens when the aspect ratio changes: 'disabled' stretches the picture, 'center' cuts its sides.",
    )
    option = io.DynamicCombo.Option
    return [
        option("scale dimensions", [_side("width", tooltip="0: from the height."), _side("height", tooltip="0: from the width."), crop]),
        option("scale by multiplier", [io.Float.Input("multiplier", default=1.0, min=0.01, max=8.0, step=0.01)]),
        option("scale longer dimension", [_side("longer_size", tooltip="New length of the longer side.")]),
        option("scale shorter dimension", [_side("shorter_size", tooltip="New length of the shorter side.")]),
        option("scale width", [_side("width", tooltip="The height follows.")]),
        option("scale height", [_side("height", tooltip="The width follows.")]),
        option(
            "scale total pixels",
            [io.Float.Input("megapixels", default=1.0, min=0.01, max=16.0, step=0.01, tooltip="1.0 stands for 1024×1024 pixels.")],
        ),
        option("match size", [io.MultiType.Input("match", [io.Image, io.Mask], tooltip="Its size is taken."), crop]),
        option("scale to multiple", [_side("multiple", 8, 1, "Both sides become divisible by this number.")]),
    ]


_RESIZERS = {
    "scale dimensions": lambda values, how, method: scale_dimensions(values, how["width"], how["height"], method, how["crop"]),
    "scale by multiplier": lambda values, how, method: scale_by(values, how["multiplier"], method),
    "scale longer dimension": lambda values, how, method: image_resizing.scale_side(values, how["longer_size"], method),
    "scale shorter dimension": lambda values, how, method: image_resizing.scale_side(values, how["shorter_size"], method, shorter=True),
    "scale width": lambda values, how, method: scale_dimensions(values, how["width"], 0, method),
    "scale height": lambda values, how, method: scale_dimensions(values, 0, how["height"], method),
    "scale total pixels": lambda values, how, method: image_resizing.scale_total_pixels(values, how["megapixels"], method),
    "match size": lambda values, how, method: image_resizing.resize(values, *image_resizing.size_of(how["match"]), method, how["crop"]),
    "scale to multiple": lambda values, how, method: image_resizing.scale_to_multiple(values, how["multiple"], method),
}


class ResizeImageMaskNode(io.ComfyNode):
    """Resizes images or masks in one of many ways."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.MatchType.Template("input_type", [io.Image, io.Mask])
        return io.Schema(
            node_id="ResizeImageMaskNode",
            display_name="Resize Image/Mask",
            category="image/transform",
            description="Resizes images or masks.",
            search_aliases=[
                "resize",
                "resize image",
                "resize mask",
                "scale",
                "scale image",
                "scale mask",
                "image resize",
                "change size",
                "dimensions",
                "shrink",
                "enlarge",
            ],
            inputs=[
                io.MatchType.Input("input", template=template),
                io.DynamicCombo.Input("resize_type", options=_resize_options(), tooltip="How the new size is given."),
                io.Combo.Input(
                    "scale_method",
                    options=UPSCALE_METHODS,
                    default="area",
                    tooltip="'area' suits making smaller, 'lanczos' making larger, 'nearest-exact' pixel art.",
                ),
            ],
            outputs=[io.MatchType.Output(template=template, display_name="resized")],
        )

    @classmethod
    def execute(cls, input: Any, scale_method: str, resize_type: Any) -> io.NodeOutput:
        """*input* resized as *resize_type* says, a dict that holds the chosen way under ``resize_type`` and its values."""
        return io.NodeOutput(_RESIZERS[resize_type["resize_type"]](input, resize_type, scale_method))


def batch_latents(latents: list[dict[str, Any]]) -> dict[str, Any]:
    """One latent with the samples of all, resized to the first; each keeps its batch indices."""
    shape = latents[0]["samples"].shape
    samples = [reshape_latent_to(shape, latent["samples"], repeat_batch=False) for latent in latents]
    index = [number for latent in latents for number in latent.get("batch_index", range(latent["samples"].shape[0]))]
    return {**latents[0], "samples": torch.cat(samples, dim=0), "batch_index": index}


def _batch_schema(node_id: str, title: str, category: str, kind: Any, name: str, **more: Any) -> Any:
    template = io.Autogrow.TemplatePrefix(kind.Input(name), prefix=name, min=1, max=50)
    return io.Schema(
        node_id=node_id,
        display_name=title,
        category=category,
        outputs=[kind.Output()],
        inputs=[io.Autogrow.Input(f"{name}s", template=template)],
        **more,
    )


class BatchImagesNode(io.ComfyNode):
    """Joins any number of image batches."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _batch_schema(
            "BatchImagesNode",
            "Batch Images",
            "image/batch",
            io.Image,
            "image",
            essentials_category="Image Tools",
            search_aliases=["batch", "image batch", "batch images", "combine images", "merge images", "stack images"],
        )

    @classmethod
    def execute(cls, images: Any) -> io.NodeOutput:
        return io.NodeOutput(batch_images(list(images.values())))


class BatchMasksNode(io.ComfyNode):
    """Joins any number of mask batches."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _batch_schema(
            "BatchMasksNode", "Batch Masks", "image/mask", io.Mask, "mask", search_aliases=["combine masks", "stack masks", "merge masks"]
        )

    @classmethod
    def execute(cls, masks: Any) -> io.NodeOutput:
        return io.NodeOutput(batch_masks(list(masks.values())))


class BatchLatentsNode(io.ComfyNode):
    """Joins any number of latent batches."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _batch_schema(
            "BatchLatentsNode",
            "Batch Latents",
            "model/latent/batch",
            io.Latent,
            "latent",
            search_aliases=["combine latents", "stack latents", "merge latents"],
        )

    @classmethod
    def execute(cls, latents: Any) -> io.NodeOutput:
        return io.NodeOutput(batch_latents(list(latents.values())))


NODE_CLASS_MAPPINGS = {
    "ImageBlend": Blend,
    "ImageBlur": Blur,
    "ImageQuantize": Quantize,
    "ImageSharpen": Sharpen,
    "ImageScaleToTotalPixels": ImageScaleToTotalPixels,
    "ResizeImageMaskNode": ResizeImageMaskNode,
    "BatchImagesNode": BatchImagesNode,
    "BatchMasksNode": BatchMasksNode,
    "BatchLatentsNode": BatchLatentsNode,
    "ColorTransfer": ColorTransfer,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "ImageBlend": "Blend Images",
    "ImageBlur": "Blur Image",
    "ImageQuantize": "Quantize Image",
    "ImageSharpen": "Sharpen Image",
    "ImageScaleToTotalPixels": "Scale Image to Total Pixels",
    "ResizeImageMaskNode": "Resize Image/Mask",
    "BatchImagesNode": "Batch Images",
    "BatchMasksNode": "Batch Masks",
    "BatchLatentsNode": "Batch Latents",
    "ColorTransfer": "Transfer Color",
}
