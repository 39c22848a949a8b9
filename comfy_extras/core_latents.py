"""Core nodes that make, cut and combine latents.

A latent is a dict with ``samples`` (B×C×H×W, one cell per 8×8 pixels) and optionally ``noise_mask`` (B×1×H×W in pixels) and
``batch_index``. Nodes return a new dict and do not change the one they receive.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import MAX_RESOLUTION, pixels, real, whole

if TYPE_CHECKING:
    from torch import Tensor

    from comfy_extras.node_values import Latent

torch = lazy_module("torch")

PIXELS_PER_CELL = 8
SMALLEST_SIDE = 64
UPSCALE_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]
_QUARTER_TURNS = ["none", "90 degrees", "180 degrees", "270 degrees"]


def repeat_for_batch(mask: Tensor, batch_size: int) -> Tensor:
    """*mask* repeated along its first dimension and cut to *batch_size* entries."""
    if mask.shape[0] >= batch_size:
        return mask
    return mask.repeat(math.ceil(batch_size / mask.shape[0]), *[1] * (mask.ndim - 1))[:batch_size]


class EmptyLatentImage:
    """Makes zero latents to start sampling from."""

    RETURN_TYPES = ("LATENT",)
    OUTPUT_TOOLTIPS = ("Latents filled with zeros.",)
    FUNCTION = "generate"
    CATEGORY = "model/latent"
    DESCRIPTION = "Makes empty latents of a size for a sampler to fill."
    SEARCH_ALIASES = ["empty", "empty latent", "new latent", "create latent", "blank latent", "blank"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "width": pixels(512, 16, 8, tooltip="Width of the picture in pixels."),
                "height": pixels(512, 16, 8, tooltip="Height of the picture in pixels."),
                "batch_size": whole(1, 1, 4096, tooltip="How many pictures are made at once."),
            }
        }

    def generate(self, width: int, height: int, batch_size: int = 1) -> tuple[Latent]:
        """*batch_size* four-channel latents for pictures of *width* × *height* pixels."""
        shape = (batch_size, 4, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL)
        samples = torch.zeros(shape, device=model_management.intermediate_device(), dtype=model_management.intermediate_dtype())
        return ({"samples": samples, "downscale_ratio_spacial": PIXELS_PER_CELL},)


class LatentFromBatch:
    """Takes some latents out of a batch, with their masks and the noise that they would have had in the batch."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "frombatch"
    CATEGORY = "model/latent/batch"
    SEARCH_ALIASES = ["select from batch", "pick latent", "batch subset"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "batch_index": whole(0, -MAX_RESOLUTION, MAX_RESOLUTION), "length": whole(1, 1, 64)}}

    def frombatch(self, samples: Latent, batch_index: int, length: int) -> tuple[Latent]:
        """*length* latents from *batch_index* on; a negative index counts from the end, and one beyond it means the last."""
        count = samples["samples"].shape[0]
        first = min(count - 1, max(0, batch_index + count if batch_index < 0 else batch_index))
        part = slice(first, min(count, first + length))
        taken = {
            **samples,
            "samples": samples["samples"][part].clone(),
            "batch_index": samples.get("batch_index", list(range(count)))[part],
        }
        mask = samples.get("noise_mask")
        if mask is not None:
            taken["noise_mask"] = mask.clone() if mask.shape[0] == 1 else repeat_for_batch(mask, count)[part].clone()
        return (taken,)


class RepeatLatentBatch:
    """Repeats a batch; the sampler gives each copy different noise."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "repeat"
    CATEGORY = "model/latent/batch"
    SEARCH_ALIASES = ["duplicate latent", "clone latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "amount": whole(1, 1, 64)}}

    def repeat(self, samples: Latent, amount: int) -> tuple[Latent]:
        """The batch *amount* times; the batch indices of each copy continue those of the one before."""
        latent = samples["samples"]
        repeated = {**samples, "samples": latent.repeat(amount, *[1] * (latent.ndim - 1))}
        mask, index = samples.get("noise_mask"), samples.get("batch_index")
        if mask is not None and mask.shape[0] > 1:
            # Like ComfyUI, repeat only the masks that were given: the sampler spreads them if there are fewer masks than latents.
            repeated["noise_mask"] = mask.repeat(amount, *[1] * (mask.ndim - 1))
        if index is not None:
            distance = max(index) - min(index) + 1
            repeated["batch_index"] = [number + copy * distance for copy in range(amount) for number in index]
        return (repeated,)


class LatentUpscale:
    """Resizes latents to a size in pixels; a side of 0 is computed from the other one."""

    upscale_methods = UPSCALE_METHODS
    crop_methods = ["disabled", "center"]
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "upscale"
    CATEGORY = "model/latent"
    SEARCH_ALIASES = ["enlarge latent", "resize latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "upscale_method": (cls.upscale_methods,),
                "width": pixels(512, step=8),
                "height": pixels(512, step=8),
                "crop": (cls.crop_methods,),
            }
        }

    def upscale(self, samples: Latent, upscale_method: str, width: int, height: int, crop: str) -> tuple[Latent]:
        """The latents for pictures of *width* × *height* pixels (at least 64 each); unchanged if both are 0."""
        if width == 0 and height == 0:
            return (samples,)
        old_height, old_width = samples["samples"].shape[-2:]
        given_width, given_height = (max(SMALLEST_SIDE, side) for side in (width, height))
        width = given_width if width else max(SMALLEST_SIDE, round(old_width * given_height / old_height))
        height = given_height if height else max(SMALLEST_SIDE, round(old_height * given_width / old_width))
        cells = width // PIXELS_PER_CELL, height // PIXELS_PER_CELL
        return ({**samples, "samples": comfy.utils.common_upscale(samples["samples"], *cells, upscale_method, crop)},)


class LatentUpscaleBy:
    """Resizes latents by a factor."""

    upscale_methods = UPSCALE_METHODS
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "upscale"
    CATEGORY = "model/latent"
    SEARCH_ALIASES = ["enlarge latent", "resize latent", "scale latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "upscale_method": (cls.upscale_methods,), "scale_by": real(1.5, 0.01, 8.0)}}

    def upscale(self, samples: Latent, upscale_method: str, scale_by: float) -> tuple[Latent]:
        """The latents with both sides multiplied by *scale_by* and rounded to cells."""
        height, width = (round(side * scale_by) for side in samples["samples"].shape[-2:])
        return ({**samples, "samples": comfy.utils.common_upscale(samples["samples"], width, height, upscale_method, "disabled")},)


class LatentRotate:
    """Rotates latents clockwise by quarter turns."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "rotate"
    CATEGORY = "model/latent/transform"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "rotation": (_QUARTER_TURNS,)}}

    def rotate(self, samples: Latent, rotation: str) -> tuple[Latent]:
        """The rotated latents."""
        return ({**samples, "samples": torch.rot90(samples["samples"], k=_QUARTER_TURNS.index(rotation), dims=[3, 2])},)


class LatentFlip:
    """Mirrors latents."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "flip"
    CATEGORY = "model/latent/transform"
    SEARCH_ALIASES = ["mirror latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "flip_method": (["x-axis: vertically", "y-axis: horizontally"],)}}

    def flip(self, samples: Latent, flip_method: str) -> tuple[Latent]:
        """The latents upside down (``x-axis…``) or left to right."""
        return ({**samples, "samples": torch.flip(samples["samples"], dims=[2 if flip_method.startswith("x") else 3])},)


class LatentComposite:
    """Pastes latents into others at a position in pixels, with soft edges inside the picture."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "composite"
    CATEGORY = "model/latent"
    SEARCH_ALIASES = ["overlay latent", "layer latent", "paste latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        numbers = {name: pixels(0, step=8) for name in ("x", "y", "feather")}
        return {"required": {"samples_to": ("LATENT",), "samples_from": ("LATENT",), **numbers}}

    def composite(
        self, samples_to: Latent, samples_from: Latent, x: int, y: int, composite_method: Any = "normal", feather: int = 0
    ) -> tuple[Latent]:
        """*samples_to* with *samples_from* at (*x*, *y*), cut at its edges. *composite_method* is not used."""
        left, top, feather = (value // PIXELS_PER_CELL for value in (x, y, feather))
        result = samples_to["samples"].clone()
        height, width = result.shape[2:]
        pasted = samples_from["samples"][:, :, : max(0, height - top), : max(0, width - left)]
        bottom, right = top + pasted.shape[2], left + pasted.shape[3]
        target = result[:, :, top:bottom, left:right]
        if feather:
            rows = _edge_weights(pasted.shape[2], feather, top > 0, bottom < height)
            columns = _edge_weights(pasted.shape[3], feather, left > 0, right < width)
            weights = (rows[:, None] * columns).to(pasted)
            pasted = pasted * weights + target * (1 - weights)
        target[:] = pasted
        return ({**samples_to, "samples": result},)


def _edge_weights(length: int, feather: int, at_start: bool, at_end: bool) -> Tensor:
    """Weights of *length* cells that rise to 1 within *feather* cells of the start and of the end.

    A ramp longer than *length* is cut at the far end; the ramp from the end then continues at the last cell but one, as in ComfyUI.
    """
    weights = torch.ones(length)
    for step in range(feather):
        factor = (1.0 / feather) * (step + 1)
        if at_start:
            weights[step : step + 1] *= factor
        if at_end:
            weights[length - 1 - step : length - step] *= factor  # negative bounds count from the end
    return weights


class LatentBlend:
    """Mixes two latents by a factor."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "blend"
    CATEGORY = "experimental"
    SEARCH_ALIASES = ["mix latents", "interpolate latents"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples1": ("LATENT",), "samples2": ("LATENT",), "blend_factor": real(0.5, 0, 1)}}

    def blend(self, samples1: Latent, samples2: Latent, blend_factor: float, blend_mode: Any = "normal") -> tuple[Latent]:
        """*samples1* times *blend_factor* plus *samples2*, resized to *samples1*, times the rest."""
        first, second = samples1["samples"], samples2["samples"]
        if first.shape != second.shape:
            second = comfy.utils.common_upscale(second, first.shape[3], first.shape[2], "bicubic", crop="center")
        second = self.blend_mode(first, second, blend_mode)
        return ({**samples1, "samples": first * blend_factor + second * (1 - blend_factor)},)

    def blend_mode(self, img1: Tensor, img2: Tensor, mode: str) -> Tensor:
        """The second latent: the only mode is ``normal``. Raises ``ValueError`` for any other *mode*."""
        if mode != "normal":
            raise ValueError(f"LatentBlend knows the mode 'normal' only, not {mode!r}")
        return img2


class LatentCrop:
    """Cuts a rectangle, given in pixels, out of latents."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "crop"
    CATEGORY = "model/latent/transform"
    SEARCH_ALIASES = ["trim latent", "cut latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "width": pixels(512, 64, 8),
                "height": pixels(512, 64, 8),
                "x": pixels(0, step=8),
                "y": pixels(0, step=8),
            }
        }

    def crop(self, samples: Latent, width: int, height: int, x: int, y: int) -> tuple[Latent]:
        """The rectangle, cut at the far edges; it is moved up or left where fewer than 64 pixels would remain."""
        latent = samples["samples"]
        smallest = SMALLEST_SIDE // PIXELS_PER_CELL
        top = max(0, min(y // PIXELS_PER_CELL, latent.shape[2] - smallest))
        left = max(0, min(x // PIXELS_PER_CELL, latent.shape[3] - smallest))
        rows = slice(top, top + height // PIXELS_PER_CELL)
        return ({**samples, "samples": latent[:, :, rows, left : left + width // PIXELS_PER_CELL]},)


class SetLatentNoiseMask:
    """Marks the part of latents that a sampler may change."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "set_mask"
    CATEGORY = "model/latent"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "mask": ("MASK",)}}

    def set_mask(self, samples: Latent, mask: Tensor) -> tuple[Latent]:
        """The latents with *mask* (1 = sample here) as their noise mask."""
        return ({**samples, "noise_mask": mask.reshape(-1, 1, *mask.shape[-2:])},)


NODE_CLASS_MAPPINGS = {
    node.__name__: node
    for node in (
        EmptyLatentImage,
        LatentFromBatch,
        RepeatLatentBatch,
        LatentUpscale,
        LatentUpscaleBy,
        LatentRotate,
        LatentFlip,
        LatentComposite,
        LatentBlend,
        LatentCrop,
        SetLatentNoiseMask,
    )
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "EmptyLatentImage": "Empty Latent Image",
    "LatentFromBatch": "Get Latent From Batch",
    "RepeatLatentBatch": "Repeat Latent Batch",
    "LatentUpscale": "Upscale Latent",
    "LatentUpscaleBy": "Upscale Latent By",
    "LatentRotate": "Rotate Latent",
    "LatentFlip": "Flip Latent",
    "LatentComposite": "Latent Composite",
    "LatentBlend": "Latent Blend",
    "LatentCrop": "Crop Latent",
    "SetLatentNoiseMask": "Set Latent Noise Mask",
}
