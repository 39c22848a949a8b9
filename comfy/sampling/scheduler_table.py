"""The schedulers by name. Node packs add to the table; importing it does not import torch."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from comfy.sampling.schedules import (
    beta_scheduler,
    ddim_scheduler,
    get_sigmas_exponential,
    get_sigmas_karras,
    kl_optimal_scheduler,
    linear_quadratic_schedule,
    normal_scheduler,
    simple_scheduler,
)


class SchedulerHandler(NamedTuple):
    """A scheduler, called as ``handler(model_sampling, steps)`` with *use_ms*, else as ``handler(n, sigma_min, sigma_max)``."""

    handler: Callable[..., Any]
    use_ms: bool = True


_FROM_TABLE: dict[str, Callable[..., Any]] = {
    "simple": simple_scheduler,
    "sgm_uniform": partial(normal_scheduler, sgm=True),
    "ddim_uniform": ddim_scheduler,
    "beta": beta_scheduler,
    "normal": normal_scheduler,
    "linear_quadratic": linear_quadratic_schedule,
}
_FROM_RANGE: dict[str, Callable[..., Any]] = {
    "karras": get_sigmas_karras,
    "exponential": get_sigmas_exponential,
    "kl_optimal": kl_optimal_scheduler,
}
_SCHEDULER_ORDER = "simple sgm_uniform karras exponential ddim_uniform beta normal linear_quadratic kl_optimal".split()
SCHEDULER_HANDLERS = {
    name: SchedulerHandler(_FROM_TABLE[name]) if name in _FROM_TABLE else SchedulerHandler(_FROM_RANGE[name], False)
    for name in _SCHEDULER_ORDER
}
SCHEDULER_NAMES = list(SCHEDULER_HANDLERS)
