"""The noise schedule of Ideogram 4: a logit-normal distribution of times, shifted by the size of the picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

LOWEST_LOG_SNR, HIGHEST_LOG_SNR = -15.0, 18.0
REFERENCE_PIXELS = 512 * 512


def ideogram4_sigmas(num_steps: int, width: int, height: int, mu: float, std: float) -> Tensor:
    """*num_steps* + 1 descending levels (float32), the last 0, for a picture of *width* × *height* pixels."""
    mean = mu + 0.5 * math.log(width * height / REFERENCE_PIXELS)
    quantiles = torch.linspace(1.0, 0.0, num_steps + 1, dtype=torch.float64)
    levels = torch.special.expit(mean + std * torch.special.ndtri(quantiles))
    lowest, highest = (1.0 / (1.0 + math.exp(0.5 * log_snr)) for log_snr in (HIGHEST_LOG_SNR, LOWEST_LOG_SNR))
    sigmas = 1.0 - (1.0 - levels).clamp(lowest, highest)
    sigmas[-1] = 0.0
    return sigmas.float()


class Ideogram4Scheduler(io.ComfyNode):
    """Makes the sigmas for Ideogram 4."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Ideogram4Scheduler",
            display_name="Ideogram 4 Scheduler",
            category="model/sampling/schedulers",
            outputs=[io.Sigmas.Output()],
            inputs=[
                io.Int.Input("steps", default=20, min=1, max=200),
                *(io.Int.Input(name, default=1024, min=256, max=8192, step=16) for name in ("width", "height")),
                *(
                    io.Float.Input(name, default=default, min=lowest, max=highest, step=0.05)
                    for name, default, lowest, highest in (("mu", 0.0, -10.0, 10.0), ("std", 1.75, 0.1, 5.0))
                ),
            ],
        )

    @classmethod
    def execute(cls, steps: int, width: int, height: int, mu: float, std: float) -> io.NodeOutput:
        """The sigmas; *mu* shifts them, *std* spreads them."""
        return io.NodeOutput(ideogram4_sigmas(steps, width, height, mu, std))


comfy_entrypoint = extension_of(Ideogram4Scheduler)
