"""The schedule of GITS (Chen et al. 2024, arXiv:2405.11326): noise levels at which a model's path is sampled best in few steps."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.gits_levels import LEVELS, SCHEDULES
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from numpy import ndarray

numpy = lazy_module("numpy")
torch = lazy_module("torch")

FEWEST_STEPS, MOST_STEPS = 2, 20  # of those that were published


def loglinear_interp(t_steps: Sequence[float], num_steps: int) -> ndarray:
    """*num_steps* numbers (float64) from the first to the last of the descending *t_steps*, interpolated on a log scale."""
    known, wanted = (numpy.linspace(0, 1, count) for count in (len(t_steps), num_steps))
    return numpy.exp(numpy.interp(wanted, known, numpy.log(t_steps[::-1])))[::-1].copy()


@functools.cache
def published_levels(coeff: float, steps: int) -> tuple[float, ...]:
    """The descending levels for *coeff* (0.8 to 1.5 by 0.05) and *steps* (2 to 20)."""
    places = SCHEDULES[coeff].split()[steps - FEWEST_STEPS]
    between = (LEVELS[int(places[at : at + 2])] for at in range(0, len(places), 2))
    return (LEVELS[-1], *between, LEVELS[0])


class GITSScheduler(io.ComfyNode):
    """Makes sigmas from published ones."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GITSScheduler",
            category="model/sampling/schedulers",
            outputs=[io.Sigmas.Output()],
            inputs=[
                io.Float.Input("coeff", default=1.20, min=0.80, max=1.50, step=0.05, advanced=True),
                io.Int.Input("steps", default=10, min=2, max=1000),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
            ],
        )

    @classmethod
    def execute(cls, coeff: float, steps: int, denoise: float) -> io.NodeOutput:
        """The last share *denoise* of the sigmas; more than 20 steps are interpolated. Raises ``ValueError`` for another *coeff*."""
        if denoise <= 0.0:
            return io.NodeOutput(torch.FloatTensor([]))
        known = round(coeff, 2)
        if known not in SCHEDULES:
            raise ValueError(f"there are no levels for the coefficient {coeff}; choose one of {', '.join(map(str, SCHEDULES))}")
        levels: Sequence[float] = published_levels(known, min(steps, MOST_STEPS))
        if steps > MOST_STEPS:
            levels = loglinear_interp(levels, steps + 1).tolist()
        total = steps if denoise >= 1.0 else round(steps * denoise)
        return io.NodeOutput(torch.FloatTensor([*levels[-(total + 1) : -1], 0.0]))


comfy_entrypoint = extension_of(GITSScheduler)
