"""What nodes that make empty latents have in common: inputs for sizes, and zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_inputs import MAX_RESOLUTION

if TYPE_CHECKING:
    from comfy_extras.node_values import Latent

torch = lazy_module("torch")

MAX_BATCH = 4096


def sides_and_latent() -> list[io.Output]:
    """The outputs of nodes that change both conditionings and a latent."""
    sides = (io.Conditioning.Output(display_name=name) for name in ("positive", "negative"))
    return [*sides, io.Latent.Output(display_name="latent")]


def size_inputs(
    width: int,
    height: int,
    step: int,
    lowest: int = 16,
    *,
    length: tuple[int, int, int] | None = None,
    highest: int = MAX_RESOLUTION,
    max_batch: int = MAX_BATCH,
) -> list[io.Input]:
    """Inputs for width and height in pixels, with *length* (default, lowest, step) also for the frames, and for the batch."""
    sides = (io.Int.Input(name, default=side, min=lowest, max=highest, step=step) for name, side in (("width", width), ("height", height)))
    frames = []
    if length is not None:
        default, fewest, stride = length
        frames = [io.Int.Input("length", default=default, min=fewest, max=highest, step=stride)]
    return [*sides, *frames, io.Int.Input("batch_size", default=1, min=1, max=max_batch)]


def empty_latent(*shape: int, **values: Any) -> Latent:
    """Zeros of *shape* where intermediate results are kept, and further *values* of the latent."""
    samples = torch.zeros(shape, device=model_management.intermediate_device(), dtype=model_management.intermediate_dtype())
    return {"samples": samples, **values}
