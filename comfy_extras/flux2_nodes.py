"""Nodes for Flux.2: empty latents, and a noise schedule that depends on the picture's size and the number of steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent, size_inputs
from comfy_extras.node_inputs import MAX_RESOLUTION

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

CHANNELS = 128
PIXELS_PER_CELL = 16
FEW_STEPS, MANY_STEPS = 10, 200
LONG_SEQUENCE = 4300  # tokens; from here on the shift no longer depends on the steps


def generalized_time_snr_shift(t: Tensor, mu: float, sigma: float) -> Tensor:
    """Times *t* in (0, 1] shifted towards noise by *mu*; time 0 stays 0."""
    return math.exp(mu) / (math.exp(mu) + (1 / t - 1) ** sigma)


def compute_empirical_mu(image_seq_len: int, num_steps: int) -> float:
    """The shift for a picture of *image_seq_len* tokens: on the line through those that were fitted for few and for many steps."""
    many = 0.00016927 * image_seq_len + 0.45666666
    if image_seq_len > LONG_SEQUENCE:
        return many
    few = 8.73809524e-05 * image_seq_len + 1.89833333
    slope = (many - few) / (MANY_STEPS - FEW_STEPS)
    return slope * num_steps + many - MANY_STEPS * slope


def get_schedule(num_steps: int, image_seq_len: int) -> Tensor:
    """*num_steps* + 1 descending levels (float32) from 1 to 0."""
    times = torch.linspace(1, 0, num_steps + 1)
    return generalized_time_snr_shift(times, compute_empirical_mu(image_seq_len, num_steps), 1.0)


class EmptyFlux2LatentImage(io.ComfyNode):
    """Makes empty latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyFlux2LatentImage",
            display_name="Empty Flux 2 Latent",
            category="model/latent/flux",
            inputs=size_inputs(1024, 1024, PIXELS_PER_CELL),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> io.NodeOutput:
        """Latents of 128 channels, a cell per 16×16 pixels."""
        return io.NodeOutput(empty_latent(batch_size, CHANNELS, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL))


class Flux2Scheduler(io.ComfyNode):
    """Makes the sigmas for Flux.2."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sides = (io.Int.Input(name, default=1024, min=16, max=MAX_RESOLUTION, step=1) for name in ("width", "height"))
        return io.Schema(
            node_id="Flux2Scheduler",
            category="model/sampling/schedulers",
            inputs=[io.Int.Input("steps", default=20, min=1, max=4096), *sides],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, steps: int, width: int, height: int) -> io.NodeOutput:
        """The sigmas for a picture of *width* × *height* pixels."""
        return io.NodeOutput(get_schedule(steps, round(width * height / PIXELS_PER_CELL**2)))


FLUX2_NODES: list[type[io.ComfyNode]] = [EmptyFlux2LatentImage, Flux2Scheduler]
