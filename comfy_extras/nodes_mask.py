"""Nodes that make, change and combine masks; ``mask_pasting_nodes`` defines those that paste through a mask.

Masks are B×H×W (or H×W), values 0…1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_extras.core_image_files import PreviewImage
from comfy_extras.mask_pasting_nodes import ImageCompositeMasked, LatentCompositeMasked, composite
from comfy_extras.node_inputs import MAX_RESOLUTION, boolean, combo, pixels, real, socket, whole

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

__all__ = [
    "NODE_CLASS_MAPPINGS",
    "NODE_DISPLAY_NAME_MAPPINGS",
    "CropMask",
    "FeatherMask",
    "GrowMask",
    "ImageColorToMask",
    "ImageCompositeMasked",
    "ImageToMask",
    "InvertMask",
    "LatentCompositeMasked",
    "MaskComposite",
    "MaskPreview",
    "MaskToImage",
    "SolidMask",
    "ThresholdMask",
    "composite",
]

PREVIEW_PREFIX = "ComfyUI"
_CHANNELS = ["red", "green", "blue", "alpha"]
_SIDES = ("left", "top", "right", "bottom")


def _planes(mask: Tensor) -> Tensor:
    return mask.reshape(-1, *mask.shape[-2:])


class _MaskNode:
    """Attributes that most nodes of this module share."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "execute"
    CATEGORY = "image/mask"


class MaskToImage(_MaskNode):
    """Turns masks into grey images."""

    RETURN_TYPES = ("IMAGE",)
    SEARCH_ALIASES = ["convert mask"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": socket("MASK")}}

    @classmethod
    def execute(cls, mask: Tensor) -> tuple[Tensor]:
        """Images B×H×W×3; a view of the mask."""
        return (_planes(mask).unsqueeze(-1).expand(-1, -1, -1, 3),)

    mask_to_image = execute


class ImageToMask(_MaskNode):
    """Takes one channel of images as a mask."""

    SEARCH_ALIASES = ["extract channel", "channel to mask"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE"), "channel": combo(_CHANNELS)}}

    @classmethod
    def execute(cls, image: Tensor, channel: str) -> tuple[Tensor]:
        """The channel's values. Raises ``IndexError`` when the images have no alpha."""
        index = _CHANNELS.index(channel)
        if index >= image.shape[-1]:
            raise IndexError(f"the images have {image.shape[-1]} channels and no {channel!r}; choose another channel")
        return (image[..., index],)

    image_to_mask = execute


class ImageColorToMask(_MaskNode):
    """Marks the pixels of exactly one colour."""

    SEARCH_ALIASES = ["color keying", "chroma key"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE"), "color": whole(0, 0, 0xFFFFFF, 1, display="number")}}

    @classmethod
    def execute(cls, image: Tensor, color: int) -> tuple[Tensor]:
        """1 where the pixel, rounded to 8 bits per channel, is *color* (0xRRGGBB)."""
        levels = (torch.clamp(image[..., :3], 0, 1.0) * 255.0).round().to(torch.int)
        wanted = torch.tensor([color >> 16, color >> 8 & 0xFF, color & 0xFF], device=image.device)
        return ((levels == wanted).all(dim=-1).float(),)

    image_to_mask = execute


class SolidMask(_MaskNode):
    """Makes a mask of one value."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": real(1.0, 0.0, 1.0), "width": pixels(512, 1), "height": pixels(512, 1)}}

    @classmethod
    def execute(cls, value: float, width: int, height: int) -> tuple[Tensor]:
        """A mask 1×H×W filled with *value*."""
        return (torch.full((1, height, width), value, dtype=torch.float32, device=model_management.intermediate_device()),)

    solid = execute


class InvertMask(_MaskNode):
    """Inverts masks: every value becomes 1 minus itself."""

    SEARCH_ALIASES = ["reverse mask", "flip mask"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": socket("MASK")}}

    @classmethod
    def execute(cls, mask: Tensor) -> tuple[Tensor]:
        """The inverted mask."""
        return (1.0 - mask,)

    invert = execute


class CropMask(_MaskNode):
    """Cuts a rectangle out of masks."""

    SEARCH_ALIASES = ["cut mask", "extract mask region", "mask slice"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sizes = {"x": pixels(0), "y": pixels(0), "width": pixels(512, 1), "height": pixels(512, 1)}
        return {"required": {"mask": socket("MASK"), **sizes}}

    @classmethod
    def execute(cls, mask: Tensor, x: int, y: int, width: int, height: int) -> tuple[Tensor]:
        """The rectangle, cut off at the mask's edges."""
        return (_planes(mask)[:, y : y + height, x : x + width],)

    crop = execute


class MaskComposite(_MaskNode):
    """Combines a mask with another one placed on it."""

    SEARCH_ALIASES = ["combine masks", "blend masks", "layer masks", "masks composition"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "destination": socket("MASK"),
                "source": socket("MASK"),
                "x": pixels(0),
                "y": pixels(0),
                "operation": combo(["multiply", "add", "subtract", "and", "or", "xor"]),
            }
        }

    @classmethod
    def execute(cls, destination: Tensor, source: Tensor, x: int, y: int, operation: str) -> tuple[Tensor]:
        """A copy of *destination*, changed where *source* lies on it at (*x*, *y*), clipped to 0…1."""
        combined = _planes(destination).clone()
        source = _planes(source).to(combined.device)
        target = combined[:, y : y + source.shape[-2], x : x + source.shape[-1]]
        source = source[:, : target.shape[-2], : target.shape[-1]]
        if target.numel():
            target[:] = _combine(target, source, operation)
        return (torch.clamp(combined, 0.0, 1.0),)

    combine = execute


def _combine(first: Tensor, second: Tensor, operation: str) -> Tensor:
    if operation in ("and", "or", "xor"):
        truth = getattr(torch, f"logical_{operation}")(first.round().bool(), second.round().bool())
        return truth.float()
    return {"multiply": torch.mul, "add": torch.add, "subtract": torch.sub}[operation](first, second)


class FeatherMask(_MaskNode):
    """Fades masks out towards their sides."""

    SEARCH_ALIASES = ["soft edge mask", "blur mask edges", "gradient mask edge"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": socket("MASK"), **{side: pixels(0) for side in _SIDES}}}

    @classmethod
    def execute(cls, mask: Tensor, left: int, top: int, right: int, bottom: int) -> tuple[Tensor]:
        """The mask, which falls linearly to 0 over the given number of pixels at each side."""
        faded = _planes(mask).clone()
        rows, columns = faded.movedim(-2, -1), faded
        for values, width, at_end in ((columns, left, False), (columns, right, True), (rows, top, False), (rows, bottom, True)):
            _fade(values, width, at_end)
        return (faded,)

    feather = execute


def _fade(values: Tensor, width: int, at_end: bool) -> None:
    """Multiply the last dimension of *values* in place by a ramp of *width* steps at its start or end."""
    width = min(width, values.shape[-1])
    if width:
        ramp = torch.tensor([(step + 1) / width for step in range(width)], dtype=values.dtype, device=values.device)
        if at_end:
            values[..., -width:] *= ramp.flip(0)
        else:
            values[..., :width] *= ramp


class GrowMask(_MaskNode):
    """Grows masks by a number of pixels; a negative number shrinks them."""

    SEARCH_ALIASES = ["expand mask", "shrink mask"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mask": socket("MASK"),
                "expand": whole(0, -MAX_RESOLUTION, MAX_RESOLUTION, 1),
                "tapered_corners": boolean(True, advanced=True),
            }
        }

    @classmethod
    def execute(cls, mask: Tensor, expand: int, tapered_corners: bool) -> tuple[Tensor]:
        """Every pixel becomes the largest (if shrinking, smallest) value within reach: in a diamond if tapered, else in a square."""
        grown = _planes(mask)
        if expand < 0:
            grown = -grown
        # after as many steps as the mask has rows and columns, nothing can change
        for _ in range(min(abs(expand), sum(grown.shape[-2:]))):
            wide, tall = (
                torch.nn.functional.max_pool2d(grown, size, stride=1, padding=(size[0] // 2, size[1] // 2)) for size in ((1, 3), (3, 1))
            )
            grown = torch.maximum(wide, tall) if tapered_corners else torch.nn.functional.max_pool2d(wide, (3, 1), 1, (1, 0))
        return (-grown if expand < 0 else grown.clone() if expand == 0 else grown,)

    expand_mask = execute


class ThresholdMask(_MaskNode):
    """Makes masks black and white."""

    SEARCH_ALIASES = ["binary mask"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": socket("MASK"), "value": real(0.5, 0.0, 1.0)}}

    @classmethod
    def execute(cls, mask: Tensor, value: float) -> tuple[Tensor]:
        """1 above *value*, else 0."""
        return ((mask > value).float(),)

    image_to_mask = execute


class MaskPreview(PreviewImage):
    """Shows masks on the page."""

    RETURN_TYPES, RETURN_NAMES = ("MASK",), ("mask",)
    FUNCTION = "preview"
    CATEGORY = "image/mask"
    ESSENTIALS_CATEGORY = None
    DESCRIPTION = "Shows the masks without keeping them in the output folder."
    SEARCH_ALIASES = ["show mask", "view mask", "inspect mask", "debug mask"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": socket("MASK")}, "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}}

    def preview(self, mask: Tensor, prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        """Write the masks as grey pictures for the page; passes *mask* on."""
        shown = self.save_images(*MaskToImage.execute(mask), PREVIEW_PREFIX, prompt, extra_pnginfo)
        return {"ui": {**shown["ui"], "animated": (False,)}, "result": (mask,)}


NODE_CLASS_MAPPINGS = {
    node.__name__: node
    for node in (
        CropMask,
        FeatherMask,
        GrowMask,
        ImageColorToMask,
        ImageCompositeMasked,
        ImageToMask,
        InvertMask,
        LatentCompositeMasked,
        MaskComposite,
        MaskPreview,
        MaskToImage,
        SolidMask,
        ThresholdMask,
    )
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "LatentCompositeMasked": "Latent Composite Masked",
    "ImageCompositeMasked": "Image Composite Masked",
    "MaskToImage": "Convert Mask to Image",
    "ImageToMask": "Convert Image to Mask",
    "ImageColorToMask": "Convert Image Color to Mask",
    "SolidMask": "Create Solid Mask",
    "InvertMask": "Invert Mask",
    "CropMask": "Crop Mask",
    "MaskComposite": "Combine Masks",
    "FeatherMask": "Feather Mask",
    "GrowMask": "Grow Mask",
    "ThresholdMask": "Threshold Mask",
    "MaskPreview": "Preview Mask",
}
