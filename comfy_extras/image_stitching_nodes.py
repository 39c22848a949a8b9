"""The node that puts two images side by side (part of ``nodes_images``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_extras.core_images import resize_images
from comfy_extras.node_inputs import boolean, combo, socket, whole

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

_COLOURS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


class ImageStitch:
    """Puts two images side by side, or one above the other, with an optional stripe between."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/transform"
    DESCRIPTION = "Puts image2 beside image1. Without image2 image1 comes back as it is."
    SEARCH_ALIASES = ["combine images", "join images", "concatenate images", "side by side"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image1": socket("IMAGE"),
                "direction": combo(["right", "down", "left", "up"], default="right"),
                "match_image_size": boolean(True),
                "spacing_width": whole(0, 0, 1024, 2, advanced=True),
                "spacing_color": combo(list(_COLOURS), default="white", advanced=True),
            },
            "optional": {"image2": socket("IMAGE")},
        }

    @classmethod
    def execute(
        cls, image1: Tensor, direction: str, match_image_size: bool, spacing_width: int, spacing_color: str, image2: Tensor | None = None
    ) -> tuple[Tensor]:
        """Put *image2* in *direction* of *image1*. It is scaled to the common side, or both are padded to the longer one."""
        if image2 is None:
            return (image1,)
        axis = 2 if direction in ("left", "right") else 1
        count, channels = (max(image1.shape[place], image2.shape[place]) for place in (0, -1))
        images = [_repeat_last(image, count) for image in (image1, image2)]
        if match_image_size:
            images[1] = _match_side(images[1], images[0], axis)
        else:
            # gaps are white with a white stripe and black with any other colour
            longest = max(image.shape[3 - axis] for image in images)
            images = [_pad_side(image, 3 - axis, longest, float(spacing_color == "white")) for image in images]
        images = [torch.cat([image, image.new_ones(*image.shape[:-1], channels - image.shape[-1])], dim=-1) for image in images]
        if direction in ("left", "up"):
            images.reverse()
        if spacing_width:
            images.insert(1, _stripe(images, axis, spacing_width + spacing_width % 2, _COLOURS[spacing_color]))
        return (torch.cat(images, dim=axis),)

    stitch = execute


def _repeat_last(image: Tensor, count: int) -> Tensor:
    return torch.cat([image, image[-1:].repeat(count - image.shape[0], 1, 1, 1)])


def _match_side(image: Tensor, pattern: Tensor, axis: int) -> Tensor:
    height, width = pattern.shape[1:3]
    aspect = image.shape[2] / image.shape[1]
    size = (int(height * aspect), height) if axis == 2 else (width, int(width / aspect))
    return resize_images(image, *size, "lanczos")


def _pad_side(image: Tensor, axis: int, length: int, value: float) -> Tensor:
    missing = length - image.shape[axis]
    before, after = missing // 2, missing - missing // 2
    padding = (0, 0, before, after) if axis == 2 else (0, 0, 0, 0, before, after)
    return torch.nn.functional.pad(image, padding, value=value)


def _stripe(images: list[Tensor], axis: int, width: int, colour: tuple[float, ...]) -> Tensor:
    shape = list(images[0].shape)
    shape[axis] = width
    shape[3 - axis] = max(image.shape[3 - axis] for image in images)
    pixel = torch.tensor([*colour, *[1.0] * (shape[-1] - 3)][: shape[-1]], device=images[0].device)
    return pixel.expand(shape)
