"""What the nodes that prepare Wan's videos have in common: their inputs and outputs, videos of the right size, latents and masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import comfy.utils
import node_helpers
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent, size_inputs

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")
latent_formats = lazy_module("comfy.latent_formats")

FRAMES_PER_CELL = 4  # the first frame has a latent one of its own
GREY = 0.5
Sides = tuple["Conditioning", "Conditioning"]


def video_schema(
    node_id: str,
    category: str,
    *inputs: io.Input,
    length: int = 81,
    sides: tuple[int, int, int] = (832, 480, 16),
    outputs: tuple[io.Output, ...] = (),
    **settings: Any,
) -> io.Schema:
    """A node from two conditionings, an autoencoder, sizes and *inputs* to both conditionings, a latent and further *outputs*.

    *sides*: the usual width and height, and the step of both, which is the least that they may be.
    """
    both = [io.Conditioning.Input("positive"), io.Conditioning.Input("negative")]
    sizes = size_inputs(*sides, sides[2], length=(length, 1, FRAMES_PER_CELL))
    given = [io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")]
    return io.Schema(
        node_id=node_id,
        category=f"model/conditioning/wan{category}",
        inputs=[*both, io.Vae.Input("vae"), *sizes, *inputs],
        outputs=[*given, io.Latent.Output(display_name="latent"), *outputs],
        **settings,
    )


def image_inputs(*names: str) -> list[io.Input]:
    """Inputs for pictures or videos that may be left out."""
    return [io.Image.Input(name, optional=True) for name in names]


def share_input(name: str, default: float, most: float, tooltip: str) -> io.Input:
    """The input for a strength, or a share of the steps."""
    return io.Float.Input(name, default=default, min=0.0, max=most, step=0.01, tooltip=tooltip)


def seen_input(name: str = "clip_vision_output") -> io.Input:
    """The input for what an image encoder saw."""
    return io.ClipVisionOutput.Input(name, optional=True)


def with_values(sides: Sides, values: Mapping[str, Any], append: bool = False) -> Sides:
    """Both conditionings with *values*, added to what is there if *append*."""
    positive, negative = (node_helpers.conditioning_set_values(side, values, append=append) for side in sides)
    return positive, negative


def cells(length: int) -> int:
    """Latent frames of a video of *length* frames."""
    return (length - 1) // FRAMES_PER_CELL + 1


def empty_video(batch_size: int, length: int, width: int, height: int, channels: int = 16, side: int = 8) -> Latent:
    """An empty latent with a cell per *side* x *side* pixels."""
    return empty_latent(batch_size, channels, cells(length), height // side, width // side)


def fitted(pictures: Tensor, width: int, height: int, method: str = "bilinear") -> Tensor:
    """*pictures* (F x H x W x C) cut around the middle and scaled to *width* x *height*, of their first three channels."""
    return comfy.utils.common_upscale(pictures[..., :3].movedim(-1, 1), width, height, method, "center").movedim(1, -1)


def grey_video(length: int, width: int, height: int, like: Tensor | None = None) -> Tensor:
    """*length* grey frames, on the device and in the dtype of *like*."""
    settings: dict[str, Any] = {} if like is None else {"device": like.device, "dtype": like.dtype}
    return torch.full((length, height, width, 3), GREY, **settings)


def blank_latent(latent: Tensor) -> Tensor:
    """A latent of *latent*'s shape that the sampler has as zeros."""
    kind = latent_formats.Wan22 if latent.shape[1] == latent_formats.Wan22.latent_channels else latent_formats.Wan21
    return kind().process_out(torch.zeros_like(latent))


def put_first(blank: Tensor, encoded: Tensor) -> Tensor:
    """*blank* with its first frames replaced by those of *encoded* (B x C x frames x rows x columns)."""
    frames = min(blank.shape[2], encoded.shape[2])
    return torch.cat((encoded[:, :, :frames].to(blank).expand(len(blank), -1, -1, -1, -1), blank[:, :, frames:]), dim=2)


def free_frames(latent: Tensor, kept_first: int = 0, kept_last: int = 0) -> Tensor:
    """A mask of *latent*'s cells for the four frames of each, 1 where the video is free: 1 x 4 x cells x rows x columns.

    *kept_first* and *kept_last* frames are not; the first frame counts four times, as the cell that is its own.
    """
    count = latent.shape[2] * FRAMES_PER_CELL
    free = torch.ones(count, device=latent.device)
    if kept_first:
        free[: kept_first + FRAMES_PER_CELL - 1] = 0.0
    if kept_last:
        free[-kept_last:] = 0.0
    by_cell = free.view(1, -1, FRAMES_PER_CELL).transpose(1, 2)
    return by_cell[..., None, None].expand(-1, -1, -1, *latent.shape[-2:]).contiguous()


def encoded_start(vae: VAE, start_image: Tensor, blank: Tensor, width: int, height: int, length: int) -> Tensor:
    """*blank* beginning with the latent of *start_image*."""
    return put_first(blank, vae.encode(fitted(start_image[:length], width, height)))


def with_sight(sides: Sides, seen: Any) -> Sides:
    """Both conditionings with what an image encoder saw, if it saw something."""
    return sides if seen is None else with_values(sides, {"clip_vision_output": seen})
