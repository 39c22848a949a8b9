"""Nodes for grey-value morphology and for the YCbCr colour space (ITU-R BT.601, full range)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import combo, socket, whole

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

RED_SHARE, GREEN_SHARE, BLUE_SHARE = 0.299, 0.587, 0.114
BLUE_SCALE, RED_SCALE = 0.564, 0.713


def dilate(values_BCHW: Tensor, size: int) -> Tensor:
    """The largest value in the *size*×*size* window around each pixel; an even window extends further after the pixel."""
    return _window_maximum(values_BCHW, size, before=(size - 1) // 2)


def erode(values_BCHW: Tensor, size: int) -> Tensor:
    """The smallest value in the *size*×*size* window around each pixel; an even window extends further before the pixel."""
    return -_window_maximum(-values_BCHW, size, before=size // 2)


def _window_maximum(values_BCHW: Tensor, size: int, before: int) -> Tensor:
    padded = torch.nn.functional.pad(values_BCHW, (before, size - 1 - before) * 2, value=float("-inf"))
    rows = torch.nn.functional.max_pool2d(padded, (1, size), stride=1)
    return torch.nn.functional.max_pool2d(rows, (size, 1), stride=1)


_OPERATIONS = {
    "erode": erode,
    "dilate": dilate,
    "open": lambda values, size: dilate(erode(values, size), size),
    "close": lambda values, size: erode(dilate(values, size), size),
    "gradient": lambda values, size: dilate(values, size) - erode(values, size),
    "bottom_hat": lambda values, size: erode(dilate(values, size), size) - values,
    "top_hat": lambda values, size: values - dilate(erode(values, size), size),
}


class Morphology:
    """Erodes, dilates, opens or closes images, or shows the difference that this makes."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/filters"
    SEARCH_ALIASES = ["erode", "dilate"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE"), "operation": combo(list(_OPERATIONS)), "kernel_size": whole(3, 3, 999, 1)}}

    @classmethod
    def execute(cls, image: Tensor, operation: str, kernel_size: int) -> tuple[Tensor]:
        """Each channel changed by *operation* with a square window."""
        return (_OPERATIONS[operation](image.movedim(-1, 1), kernel_size).movedim(1, -1),)

    process = execute


class ImageRGBToYUV:
    """Splits images into brightness and two colour differences, each as a grey image."""

    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "IMAGE", "IMAGE"), ("Y", "U", "V")
    FUNCTION = "execute"
    CATEGORY = "image/color"
    SEARCH_ALIASES = ["color space conversion"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE")}}

    @classmethod
    def execute(cls, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Y, and the differences of blue and red, shifted so that 0.5 means none."""
        red, green, blue = image[..., :3].unbind(-1)
        brightness = RED_SHARE * red + GREEN_SHARE * green + BLUE_SHARE * blue

        def grey(plane: Tensor) -> Tensor:
            return plane.unsqueeze(-1).expand_as(image)

        return grey(brightness), grey((blue - brightness) * BLUE_SCALE + 0.5), grey((red - brightness) * RED_SCALE + 0.5)


class ImageYUVToRGB:
    """Joins brightness and colour differences to colour images."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/color"
    SEARCH_ALIASES = ["color space conversion"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {name: socket("IMAGE") for name in "YUV"}}

    @classmethod
    def execute(cls, Y: Tensor, U: Tensor, V: Tensor) -> tuple[Tensor]:
        """Images B×H×W×3 from the mean over the channels of each input, clipped to 0…1."""
        brightness, blue_difference, red_difference = (torch.mean(plane, dim=-1) for plane in (Y, U, V))
        red = brightness + (red_difference - 0.5) / RED_SCALE
        blue = brightness + (blue_difference - 0.5) / BLUE_SCALE
        green = (brightness - RED_SHARE * red - BLUE_SHARE * blue) / GREEN_SHARE
        return (torch.stack((red, green, blue), dim=-1).clamp(0, 1),)


NODE_CLASS_MAPPINGS = {"Morphology": Morphology, "ImageRGBToYUV": ImageRGBToYUV, "ImageYUVToRGB": ImageYUVToRGB}

NODE_DISPLAY_NAME_MAPPINGS = {"Morphology": "Apply Morphology", "ImageRGBToYUV": "Image RGB to YUV", "ImageYUVToRGB": "Image YUV to RGB"}
