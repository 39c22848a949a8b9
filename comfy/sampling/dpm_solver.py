"""DPM-Solver with its own steps between two sigmas: for a number of model calls (``fast``), or chosen by their error (``adaptive``).

Lu et al. 2022, "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps" (arXiv:2206.00927): the
solvers of order 1 to 3 are its algorithms 1 and 2, their sequence for a number of calls its section 3.4, the choice of steps appendix C.
The solver's time is ``-log sigma``. Other arguments than here: see ``solver_run``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.sampling.noise import NoiseSampler
from comfy.sampling.solver_run import SolverRun, get_ancestral_step, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser

torch = lazy_module("torch")
tqdm_auto = lazy_module("tqdm.auto")

CLOSE_ENOUGH = 1e-5  # an adaptive run ends this near to the last time
ORDER_WITH_NOISE = 1.5


class PIDStepSizeController:
    """Chooses the width of steps by the errors of the last ones (Söderlind 2003, "Digital filters in adaptive time-stepping").

    *h* is the first width (read and replaced as ``h``). A step is accepted if the width shrinks to *accept_safety* of itself at most.
    """

    def __init__(
        self, h: float, pcoeff: float, icoeff: float, dcoeff: float, order: float = 1, accept_safety: float = 0.81, eps: float = 1e-8
    ) -> None:
        self.h = h
        self._exponents = (pcoeff + icoeff + dcoeff) / order, -(pcoeff + 2 * dcoeff) / order, dcoeff / order
        self._accept_safety, self._eps = accept_safety, eps
        self._accepted: tuple[float, float] | None = None  # inverse errors of the last two accepted steps, the newer first

    def propose_step(self, error: Any) -> bool:
        """Whether a step with *error* (1: as large as tolerated) is good enough; sets the width of the next try."""
        inverse = 1 / (float(error) + self._eps)
        before = self._accepted or (inverse, inverse)
        change = math.prod(value**exponent for value, exponent in zip((inverse, *before), self._exponents))
        change = 1 + math.atan(change - 1)  # large changes are dampened
        accepted = change >= self._accept_safety
        self._accepted = (inverse, before[0]) if accepted else before
        self.h *= change
        return accepted


class TimedRun(SolverRun):
    """A run that chooses its own levels; times are tensors without dimensions."""

    def __init__(
        self,
        model: Denoiser,
        x: Tensor,
        sigma_max: Any,
        sigma_min: Any,
        extra_args: dict[str, Any] | None,
        callback: Callable | None,
        eta: float,
        s_noise: float,
        noise_sampler: NoiseSampler | None,
        bar: Any,
    ) -> None:
        if sigma_min <= 0 or sigma_max <= 0:
            raise ValueError(f"sigma_min ({float(sigma_min)}) and sigma_max ({float(sigma_max)}) must be over 0")
        ends = torch.stack([torch.as_tensor(sigma).to(x.device) for sigma in (sigma_max, sigma_min)])
        super().__init__(model, x, ends, extra_args, callback, None)
        self.start, self.end = -ends.log()
        self._eta, self._s_noise, self._bar = eta, s_noise, bar
        self._noise_sampler = self.independent_noise(x, noise_sampler)
        if eta and self.end <= self.start:
            raise ValueError("eta must be 0 where sigma_max is not over sigma_min")

    def noise_estimate(self, x: Tensor, time: Tensor) -> Tensor:
        """The model's estimate of the noise in *x* at *time*."""
        sigma = (-time).exp()
        estimate = (x - self.denoise(x, sigma)) / sigma
        self._bar.update()
        return estimate

    def split(self, time: Tensor, time_next: Tensor) -> tuple[Tensor, Any]:
        """The time that the deterministic part of a step goes to, and the sigma of the fresh noise after it."""
        if not self._eta:
            return time_next, 0.0
        down, _ = get_ancestral_step((-time).exp(), (-time_next).exp(), self._eta)
        reached = torch.minimum(self.end, -down.log())
        return reached, ((-time_next).exp() ** 2 - (-reached).exp() ** 2) ** 0.5

    def renoise(self, x: Tensor, fresh: Any, time: Tensor, time_next: Tensor) -> Tensor:
        """*x* with noise of the sigma *fresh*."""
        return x + fresh * self._s_noise * self._noise_sampler((-time).exp(), (-time_next).exp())


class TimedStep:
    """One step of DPM-Solver from the latent *x* at *time* to *time_next*; ``estimate`` is the noise estimate at the start.

    The solvers of different order share their model calls.
    """

    def __init__(self, run: TimedRun, x: Tensor, time: Tensor, time_next: Tensor) -> None:
        self._run, self._x, self._time, self._width = run, x, time, time_next - time
        self.estimate = run.noise_estimate(x, time)
        self.denoised = x - (-time).exp() * self.estimate
        self._inner: dict[float, Tensor] = {}

    def _at(self, place: float, change: Any = 0.0) -> Tensor:
        """The latent at the share *place* of the width, with *change* to the first-order term."""
        width = place * self._width
        return self._x - (-(self._time + width)).exp() * (width.expm1() * self.estimate + change)

    def _slope(self, place: float, change: Any = 0.0) -> Tensor:
        """How the noise estimate at *place* differs from that at the start."""
        if place not in self._inner:
            self._inner[place] = self._run.noise_estimate(self._at(place, change), self._time + place * self._width) - self.estimate
        return self._inner[place]

    def first(self) -> Tensor:
        """The latent by DPM-Solver-1."""
        return self._at(1.0)

    def second(self, place: float = 1 / 2) -> Tensor:
        """The latent by DPM-Solver-2, whose second call is at *place*."""
        return self._at(1.0, self._width.expm1() / (2 * place) * self._slope(place))

    def third(self, place: float = 1 / 3, later: float = 2 / 3) -> Tensor:
        """The latent by DPM-Solver-3, whose calls after the first are at *place* and *later*."""
        change = later / place * self._curvature(later) * self._slope(place)
        return self._at(1.0, self._curvature(1.0) / later * self._slope(later, change))

    def _curvature(self, place: float) -> Tensor:
        width = place * self._width
        return width.expm1() / width - 1


@without_gradients
def sample_dpm_fast(
    model: Denoiser,
    x: Tensor,
    sigma_min: Any,
    sigma_max: Any,
    n: int,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """DPM-Solver-fast: *n* model calls from *sigma_max* to *sigma_min*, in steps of third order and a rest of lower order.

    Steps have equal widths in log sigma; *callback* is called once per step, about *n* / 3 times. Raises ``ValueError`` for sigmas of zero.
    """
    with tqdm_auto.tqdm(total=n, disable=disable) as bar:
        run = TimedRun(model, x, sigma_max, sigma_min, extra_args, callback, eta, s_noise, noise_sampler, bar)
        steps = n // 3 + 1
        orders = [3] * (steps - 2) + [2, 1] if n % 3 == 0 else [3] * (steps - 1) + [n % 3]
        times = torch.linspace(float(run.start), float(run.end), steps + 1, device=x.device)
        for number, order in enumerate(orders):
            time, time_next = times[number], times[number + 1]
            reached, fresh = run.split(time, time_next)
            step = TimedStep(run, x, time, reached)
            run.report(number, x, step.denoised, (-time).exp())
            x = run.renoise((step.first, step.second, step.third)[order - 1](), fresh, time, time_next)
    return x


@without_gradients
def sample_dpm_adaptive(
    model: Denoiser,
    x: Tensor,
    sigma_min: Any,
    sigma_max: Any,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    return_info: bool = False,
) -> Any:
    """DPM-Solver-12 or -23 (*order* 2 or 3): the difference between the solvers of two orders chooses the widths in log sigma.

    A step is tried again, narrower, while that difference is over *atol* and *rtol* of the latent. *h_init* is the first width; *pcoeff*,
    *icoeff*, *dcoeff* and *accept_safety* are those of :class:`PIDStepSizeController`. With *return_info* returns (latent, counts of
    ``steps``, ``nfe``, ``n_accept``, ``n_reject``). Raises ``ValueError`` for other orders and for sigmas of zero.
    """
    if order not in (2, 3):
        raise ValueError(f"order is {order}; it must be 2 or 3")
    counts = {"steps": 0, "nfe": 0, "n_accept": 0, "n_reject": 0}
    with tqdm_auto.tqdm(disable=disable) as bar:
        run = TimedRun(model, x, sigma_max, sigma_min, extra_args, callback, eta, s_noise, noise_sampler, bar)
        direction = 1 if run.end > run.start else -1
        limit = torch.minimum if direction > 0 else torch.maximum
        controller = PIDStepSizeController(
            abs(h_init) * direction, pcoeff, icoeff, dcoeff, ORDER_WITH_NOISE if eta else order, accept_safety
        )
        time, low_before = run.start, x
        while (run.end - time) * direction > CLOSE_ENOUGH:
            time_next = limit(run.end, time + controller.h)
            reached, fresh = run.split(time, time_next)
            step = TimedStep(run, x, time, reached)
            low, high = (step.first(), step.second()) if order == 2 else (step.second(1 / 3), step.third())
            tolerance = (rtol * torch.maximum(low.abs(), low_before.abs())).clamp(min=atol)
            accepted = controller.propose_step(torch.linalg.norm((low - high) / tolerance) / x.numel() ** 0.5)
            counts["n_accept" if accepted else "n_reject"] += 1
            counts["nfe"] += order
            counts["steps"] += 1
            if accepted:
                x, low_before = run.renoise(high, fresh, time, time_next), low
                time = time_next
            run.report(counts["steps"] - 1, x, step.denoised, (-time).exp())
    return (x, counts) if return_info else x


def over_sigmas(solver: Callable[..., Tensor], counts_calls: bool) -> Callable[..., Tensor]:
    """*solver*, which chooses its levels itself, as a function of sigmas like all others: it goes from the first to the last over 0.

    With *counts_calls* it may call the model once per step of the sigmas.
    """

    def sample(model: Denoiser, x: Tensor, sigmas: Tensor, **options: Any) -> Tensor:
        if len(sigmas) < 2:
            return x
        lowest = sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]
        calls = {"n": len(sigmas) - 1} if counts_calls else {}
        return solver(model, x, lowest, sigmas[0], **calls, **options)

    return sample
