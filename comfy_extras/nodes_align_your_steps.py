"""Noise levels that NVIDIA found best for ten steps of three models (Sabour et al. 2024, arXiv:2404.14507)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy_api.latest import io

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

_EPS_ENDS = 14.6146412293, 0.0291671582
_LEVELS_SD1 = 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662
_LEVELS_SDXL = 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177
NOISE_LEVELS: dict[str, list[float]] = {
    "SD1": [_EPS_ENDS[0], *_LEVELS_SD1, _EPS_ENDS[1]],
    "SDXL": [_EPS_ENDS[0], *_LEVELS_SDXL, _EPS_ENDS[1]],
    "SVD": [700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002],
}


def loglinear_interp(t_steps: Sequence[float], num_steps: int) -> list[float]:
    """*num_steps* positive numbers spread evenly over *t_steps*, with straight lines between their logarithms."""
    logarithms = [math.log(value) for value in t_steps]
    last = len(logarithms) - 1
    places = [last * index / max(1, num_steps - 1) for index in range(num_steps)]
    if num_steps == 1:
        places = [float(last)]
    values = []
    for place in places:
        left = min(int(place), last - 1)
        share = place - left
        values.append(math.exp(logarithms[left] * (1 - share) + logarithms[left + 1] * share))
    return values


def last_steps(levels: Sequence[float], steps: int, denoise: float) -> Tensor:
    """The last share *denoise* of *steps* steps along *levels*, ending with 0; empty for a share of 0."""
    if denoise <= 0.0:
        return torch.FloatTensor([])
    spread = list(levels) if len(levels) == steps + 1 else loglinear_interp(levels, steps + 1)
    kept = spread[-(round(steps * min(denoise, 1.0)) + 1) :]
    return torch.FloatTensor([*kept[:-1], 0.0])


class AlignYourStepsScheduler(io.ComfyNode):
    """Makes the sigmas of a tuned schedule."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignYourStepsScheduler",
            category="model/sampling/schedulers",
            search_aliases=["AYS scheduler"],
            inputs=[
                io.Combo.Input("model_type", options=list(NOISE_LEVELS)),
                io.Int.Input("steps", default=10, min=1, max=10000),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model_type: str, steps: int, denoise: float) -> io.NodeOutput:
        """Sigmas for the last share *denoise* of *steps* steps, ending with 0; none for a share of 0."""
        return io.NodeOutput(last_steps(NOISE_LEVELS[model_type], steps, denoise))

    def get_sigmas(self, model_type: str, steps: int, denoise: float) -> tuple[Tensor]:
        """What older packs call instead of :meth:`execute`."""
        (sigmas,) = self.execute(model_type, steps, denoise).args
        return (sigmas,)


NODE_CLASS_MAPPINGS = {"AlignYourStepsScheduler": AlignYourStepsScheduler}
