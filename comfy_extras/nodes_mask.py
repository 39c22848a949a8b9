"""Nodes that make, change and combine masks, and the ones that paste with a mask.

Masks are B×H×W (or H×W), values 0…1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.utils
import node_helpers
from comfy.lazy_import import lazy_module
from comfy.residency.intermediate import intermediate_device
from comfy_extras.core_image_files import PreviewImage
from comfy_extras.node_inputs import MAX_RESOLUTION, boolean, combo, pixels, real, socket, whole

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

PREVIEW_PREFIX = "ComfyUI"
_CHANNELS = ["red", "green", "blue", "alpha"]
_SIDES = ("left", "top", "right", "bottom")


def composite(
    destination: Tensor, source: Tensor, x: int, y: int, mask: Tensor | None = None, multiplier: int = 8, resize_source: bool = False
) -> Tensor:
    """Paste *source* over *destination* (both B×C×H×W) in place where *mask* is 1, mixing where it is between; returns *destination*.

    *x* and *y* count in units of 1/*multiplier* cell and may be negative; what sticks out is cut off. The source is repeated to
    the batch of the destination, with *resize_source* also stretched to its size; the mask is stretched to the source.
    """
    source = source.to(destination.device)
    height, width = destination.shape[-2:]
    if resize_source:
        source = torch.nn.functional.interpolate(source, size=(height, width), mode="bilinear")
    source = comfy.utils.repeat_to_batch_size(source, destination.shape[0])
    mask = _paste_mask(mask, source)
    left, top = x // multiplier, y // multiplier
    skip_left, skip_top = max(0, -left), max(0, -top)
    area = (..., slice(skip_top, max(0, height - top)), slice(skip_left, max(0, width - left)))
    source, mask = source[area], mask[area]
    rows = slice(top + skip_top, top + skip_top + source.shape[-2])
    target = destination[..., rows, left + skip_left : left + skip_left + source.shape[-1]]
    if target.numel():
        target[:] = mask * source + (torch.ones_like(mask) - mask) * target
    return destination


def _paste_mask(mask: Tensor | None, source: Tensor) -> Tensor:
    if mask is None:
        return torch.ones_like(source)
    planes = mask.to(source.device).reshape(-1, 1, *mask.shape[-2:])
    planes = torch.nn.functional.interpolate(planes, size=source.shape[-2:], mode="bilinear")
    planes = comfy.utils.repeat_to_batch_size(planes, source.shape[0])
    return planes if planes.ndim == source.ndim else planes.unsqueeze(1)


def _planes(mask: Tensor) -> Tensor:
    return mask.reshape(-1, *mask.shape[-2:])


class _PastingNode:
    """Inputs of the two nodes that paste with a mask."""

    FUNCTION = "execute"
    STEP = 1

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kind = cls.RETURN_TYPES[0]
        return {
            "required": {
                "destination": socket(kind),
                "source": socket(kind),
                "x": pixels(0, step=cls.STEP),
                "y": pixels(0, step=cls.STEP),
                "resize_source": boolean(False),
            },
            "optional": {"mask": socket("MASK")},
        }


class LatentCompositeMasked(_PastingNode):
    """Pastes latents into others through a mask; positions are in pixels."""

    RETURN_TYPES = ("LATENT",)
    CATEGORY = "model/latent"
    SEARCH_ALIASES = ["overlay latent", "layer latent", "paste latent", "inpaint latent"]
    STEP = 8

    @classmethod
    def execute(cls, destination, source, x, y, resize_source, mask=None):
        """A copy of *destination* with *source* pasted in."""
        samples = composite(destination["samples"].clone(), source["samples"], x, y, mask, 8, resize_source)
        return ({**destination, "samples": samples},)

    composite = execute


class ImageCompositeMasked(_PastingNode):
    """Pastes images into others through a mask."""

    RETURN_TYPES = ("IMAGE",)
    CATEGORY = "image/compositing"
    SEARCH_ALIASES = ["overlay", "layer", "paste image", "images composition"]

    @classmethod
    def execute(cls, destination, source, x, y, resize_source, mask=None):
        """A copy of *destination* with *source* pasted in."""
        destination, source = node_helpers.image_alpha_fix(destination, source)
        pasted = composite(destination.clone().movedim(-1, 1), source.movedim(-1, 1), x, y, mask, 1, resize_source)
        return (pasted.movedim(1, -1),)

    composite = execute


class _MaskNode:
    """What most nodes of this module have in common."""

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
    def execute(cls, mask):
        """B×H×W×3, a view of the mask."""
        return (_planes(mask).unsqueeze(-1).expand(-1, -1, -1, 3),)

    mask_to_image = execute


class ImageToMask(_MaskNode):
    """Takes one channel of images as a mask."""

    SEARCH_ALIASES = ["extract channel", "channel to mask"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE"), "channel": combo(_CHANNELS)}}

    @classmethod
    def execute(cls, image, channel):
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
    def execute(cls, image, color):
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
    def execute(cls, value, width, height):
        """1×H×W."""
        return (torch.full((1, height, width), value, dtype=torch.float32, device=intermediate_device()),)

    solid = execute


class InvertMask(_MaskNode):
    """Turns every value into its distance from 1."""

    SEARCH_ALIASES = ["reverse mask", "flip mask"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": socket("MASK")}}

    @classmethod
    def execute(cls, mask):
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
    def execute(cls, mask, x, y, width, height):
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
    def execute(cls, destination, source, x, y, operation):
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
    """Lets masks fade out towards their sides."""

    SEARCH_ALIASES = ["soft edge mask", "blur mask edges", "gradient mask edge"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": socket("MASK"), **{side: pixels(0) for side in _SIDES}}}

    @classmethod
    def execute(cls, mask, left, top, right, bottom):
        """The mask, falling linearly within so many pixels of each side."""
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
    """Grows masks by so many pixels, or shrinks them by a negative number."""

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
    def execute(cls, mask, expand, tapered_corners):
        """Every pixel becomes the largest (shrinking: smallest) value within reach: a diamond if tapered, else a square."""
        grown = _planes(mask)
        if expand < 0:
            grown = -grown
        # after as many steps as the mask has rows and columns nothing can change any more
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
    def execute(cls, mask, value):
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

    def preview(self, mask, prompt=None, extra_pnginfo=None):
        """Write the masks as grey pictures; passes *mask* on."""
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
