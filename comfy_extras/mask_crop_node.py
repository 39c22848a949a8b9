"""The node that cuts subjects out by their masks (part of ``nodes_images``)."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.colours import rgb_fractions

if TYPE_CHECKING:
    from torch import Tensor

management = lazy_module("comfy.model_management")
torch = lazy_module("torch")
log = logging.getLogger(__name__)

FAINTEST = 0.05  # fainter parts of a mask count as outside
SUBJECT_LEVEL = 204  # of 255: what is above belongs to the subject's box
Box = tuple[int, int, int, int]


class ImageCropToMask(io.ComfyNode):
    """Cuts subjects out and puts them before a plain colour."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageCropToMask",
            display_name="Crop Image to Mask",
            category="image/transform",
            search_aliases=["crop to mask", "mask crop", "crop mask", "mask crop resize", "crop mask resize", "trellis2", "pixal3d"],
            inputs=[
                io.Image.Input("images"),
                io.Mask.Input("masks"),
                io.Int.Input("width", default=1024, min=64, max=4096, step=8, tooltip="Width of the result in pixels."),
                io.Int.Input("height", default=1024, min=64, max=4096, step=8, tooltip="Height of the result in pixels."),
                io.Float.Input(
                    "pad_factor", default=1.0, min=1.0, max=2.0, step=0.01, tooltip="How many times larger than the mask's box to cut."
                ),
                io.Int.Input("grow_mask", default=0, min=-32, max=32, step=1, tooltip="Pixels by which masks grow, or shrink, first."),
                io.Color.Input("background", default="#000000", tooltip="The colour outside the mask."),
            ],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(
        cls, images: Tensor, masks: Tensor, width: int, height: int, pad_factor: float, grow_mask: int, background: str
    ) -> io.NodeOutput:
        """B×*height*×*width*×3. Raises ``ValueError`` when there are several masks, but not one per image."""
        colours = images[..., :3]
        count = len(colours)
        if len(masks) not in (1, count):
            raise ValueError(f"Mask batch {len(masks)} does not match image batch {count}: give one mask, or one for each image")
        if masks.shape[-2:] != colours.shape[1:3]:
            sizes = (colours.shape[2], colours.shape[1])
            masks = comfy.utils.common_upscale(masks.unsqueeze(1).float(), *sizes, "bilinear", "disabled").squeeze(1)
        behind = torch.tensor(rgb_fractions(background)).view(1, 3, 1, 1)
        results = []
        for image_HWC, mask_HW in zip(colours, masks.expand(count, -1, -1)):
            cut = _cut_out(image_HWC, mask_HW, behind, max(width, height), width / height, pad_factor, grow_mask)
            results.append(comfy.utils.common_upscale(cut, width, height, "lanczos", "disabled").movedim(-3, -1))
        return io.NodeOutput(torch.cat(results).to(management.intermediate_device(), management.intermediate_dtype()))


def _cut_out(image_HWC: Tensor, mask_HW: Tensor, behind: Tensor, largest: int, aspect: float, pad_factor: float, grow: int) -> Tensor:
    """The subject (1×3×height×width) before *behind*, of the aspect ratio *aspect* where the mask is not empty."""
    picture = image_HWC.movedim(-1, 0)[None].cpu().float().clamp(0, 1)
    mask = _grown(_subject_is_white(mask_HW[None, None].cpu().float().clamp(0, 1)), grow)
    mask = torch.where(mask < FAINTEST, 0.0, mask)
    height, width = picture.shape[-2:]
    if max(height, width) > largest:
        width, height = (int(side * largest / max(picture.shape[-2:])) for side in (width, height))
        picture = comfy.utils.common_upscale(picture, width, height, "lanczos", "disabled")
        mask = comfy.utils.common_upscale(mask, width, height, "lanczos", "disabled").reshape(1, 1, height, width)
    found, mask = _subject(mask)
    if found is None:
        log.warning("A mask is empty, so that nothing is cut away; a mask of the subject is needed")
    box = (0, 0, width, height) if found is None else _widened(found, aspect, pad_factor)
    picture, mask = _cropped(picture, box), _cropped(mask, box)
    return (picture * mask + behind * (1.0 - mask)).clamp(0, 1)


def _subject_is_white(mask: Tensor) -> Tensor:
    """*mask*, inverted when its edges are white and its middle is dark."""
    height, width = mask.shape[-2:]
    plane = mask[0, 0]
    edges = torch.cat([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
    middle = plane[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return 1.0 - mask if edges.mean() > 0.5 and middle.mean() < 0.5 else mask


def _grown(mask: Tensor, pixels: int) -> Tensor:
    if pixels < 0:
        return 1.0 - _grown(1.0 - mask, -pixels)
    return torch.nn.functional.max_pool2d(mask, 2 * pixels + 1, stride=1, padding=pixels) if pixels else mask


def _subject(mask: Tensor) -> tuple[Box | None, Tensor]:
    """The box of the white part, ends included, and the mask; where nothing is white, of the inverted mask."""
    levels = (mask[0, 0].clamp(0, 1) * 255.0).to(torch.uint8)
    for plane, chosen in ((levels, mask), (255 - levels, 1.0 - mask)):
        inside = (plane > SUBJECT_LEVEL).nonzero()
        if len(inside):
            (top, left), (bottom, right) = inside.amin(dim=0).tolist(), inside.amax(dim=0).tolist()
            return (left, top, right, bottom), chosen
    return None, mask


def _widened(box: Box, aspect: float, pad_factor: float) -> Box:
    """*box* (ends included) grown about its middle to *aspect* and by *pad_factor*, ends excluded."""
    left, top, right, bottom = box
    width, height = right - left + 1, bottom - top + 1
    if width / height >= aspect:
        sides = (int(width * pad_factor), int(width / aspect * pad_factor))
    else:
        sides = (int(height * aspect * pad_factor), int(height * pad_factor))
    half_width, half_height = (math.ceil(side / 2) for side in sides)
    new_left, new_top = int((left + right) / 2.0 - half_width), int((top + bottom) / 2.0 - half_height)
    return new_left, new_top, new_left + 2 * half_width, new_top + 2 * half_height


def _cropped(values: Tensor, box: Box) -> Tensor:
    """The pixels of ...×H×W *values* in *box*, zero outside the picture."""
    height, width = values.shape[-2:]
    left, top, right, bottom = box
    around = (max(0, -left), max(0, right - width), max(0, -top), max(0, bottom - height))
    padded = torch.nn.functional.pad(values, around)
    return padded[..., top + around[2] : bottom + around[2], left + around[0] : right + around[0]]
