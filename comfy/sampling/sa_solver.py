"""SA-Solver: a stochastic Adams method that predicts each latent, and corrects it once the model has answered there.

Xue et al. 2023, "SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models" (arXiv:2309.05019). Predictor and corrector
(its equations 14 to 19) integrate the polynomial through the model's last pictures exactly, in half log SNR. Arguments: see ``solver_run``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.sampling.noise import NoiseSampler
from comfy.sampling.polynomials import damped_integral, lagrange_polynomial
from comfy.sampling.solver_run import SnrRun, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser

torch = lazy_module("torch")

NOISY_FROM, NOISY_TO = 0.2, 0.8  # shares of the sampling between which noise is added by default
TauFunction = Callable[[Any], float]


def get_tau_interval_func(start_sigma: float, end_sigma: float, eta: float = 1.0) -> TauFunction:
    """The strength of noise as a function of sigma: *eta* from *start_sigma* down to *end_sigma*, and zero elsewhere."""

    def tau_func(sigma: Any) -> float:
        return eta if eta > 0 and start_sigma >= float(sigma) >= end_sigma else 0.0

    return tau_func


class AdamsStep:
    """One step between two half log SNRs (numbers) with noise of the strength *tau*, for predictor and corrector alike."""

    def __init__(self, start: float, end: float, tau: float) -> None:
        self._end, self.tau = end, tau
        self._width, self._rate = end - start, 1 + tau**2
        self._noise: Any = None

    def exact_weights(self, places: list[float]) -> list[float]:
        """The weights of pictures at the half log SNRs *places*: integrals of the polynomials through them."""
        from_end = [place - self._end for place in places]
        return [damped_integral(lagrange_polynomial(from_end, which), self._width, self._rate) for which in range(len(places))]

    def simple_weights(self, places: list[float], is_corrector: bool) -> list[float]:
        """The paper's simpler weights of two pictures (its appendix D), older first."""
        total = self._decayed(self._rate)
        half = self._rate * self._width / 2
        if is_corrector:
            return [total - half, half]
        older = half * self._width / (places[0] - places[1])
        return [older, total - older]

    def _decayed(self, rate: float) -> float:
        return float(-torch.expm1(torch.tensor(-rate * self._width, dtype=torch.float64)))

    def kept(self) -> float:
        """The share of the old latent, beside the ratio of the sigmas."""
        return 1 - self._decayed(self.tau**2)

    def noise(self, draw: Callable[[], Any]) -> Any:
        """The noise of the step in units of its end: drawn for the predictor, and the same for the corrector."""
        if self._noise is None:
            self._noise = draw() * self._decayed(2 * self.tau**2) ** 0.5
        return self._noise


class AdamsRun(SnrRun):
    """A run that keeps the model's last pictures and steps along them."""

    def __init__(
        self,
        model: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None,
        callback: Callable | None,
        disable: bool | None,
        s_noise: float,
        noise_sampler: NoiseSampler | None,
        orders: tuple[int, int],
        simple_order_2: bool,
    ) -> None:
        super().__init__(model, x, sigmas, extra_args, callback, disable, 1.0, s_noise, noise_sampler)
        self.places: list[float] = self.half_log_snr(self.sigmas.double()).tolist()
        self.pictures: list[Tensor] = []
        self._predictor, self._corrector = orders
        self._simple = simple_order_2
        self._ends_at_zero = float(self.sigmas[-1]) == 0

    def keep(self, picture: Tensor) -> None:
        """Add the model's newest picture and forget those that no step looks at any more."""
        self.pictures = [*self.pictures, picture][-max(self._predictor, self._corrector) :]

    def predictor_order(self, step: int) -> int:
        """How many pictures the predictor of *step* takes: fewer towards the end, where sigma goes to zero."""
        most = min(self._predictor, len(self.pictures))
        return min(most, len(self.sigmas) - 2 - step) if self._ends_at_zero else most

    def corrector_order(self, step: int, corrects_last: bool) -> int:
        """How many pictures the corrector before *step* takes; 0: the prediction stays."""
        if step == 0 or (self.sigmas[step + 1] == 0 and not corrects_last):
            return 0
        most = min(self._corrector, len(self.pictures))
        return min(most, len(self.sigmas) - 1 - step) if self._ends_at_zero else most

    def move(self, x: Tensor, part: AdamsStep, begin: int, newest: int, order: int) -> Tensor:
        """The latent after the step *part* from level number *begin*, along the last *order* pictures; *newest* is the last one's level."""
        places = self.places[newest - order + 1 : newest + 1]
        simple = self._simple and order == 2
        weights = part.simple_weights(places, newest > begin) if simple else part.exact_weights(places)
        sigma, sigma_next = self.sigmas[begin], self.sigmas[begin + 1]
        signal_next = sigma_next * self.half_log_snr(sigma_next).exp()
        moved = sigma_next / sigma * part.kept() * x
        moved = moved + signal_next * sum(weight * picture for weight, picture in zip(weights, self.pictures[-order:]))
        if part.tau > 0 and self.is_noisy():
            moved = moved + part.noise(lambda: self.noise_sampler(sigma, sigma_next)) * sigma_next * self.s_noise
        return moved


@without_gradients
def sample_sa_solver(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = False,
    tau_func: TauFunction | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    predictor_order: int = 3,
    corrector_order: int = 4,
    use_pece: bool = False,
    simple_order_2: bool = False,
) -> Tensor:
    """Stochastic Adams solver: one model call per step; *corrector_order* 0 only predicts.

    *tau_func* gives the strength of noise at a sigma (default: 1 in the middle three fifths of the sampling, else 0). *use_pece* asks the
    model again after each correction (two calls per step), *simple_order_2* takes the simpler weights of two pictures.
    """
    if len(sigmas) < 2:
        return x
    orders = predictor_order, corrector_order
    run = AdamsRun(model, x, sigmas, extra_args, callback, disable, s_noise, noise_sampler, orders, simple_order_2)
    if tau_func is None:
        tau_func = get_tau_interval_func(run.sampling.percent_to_sigma(NOISY_FROM), run.sampling.percent_to_sigma(NOISY_TO))
    before, part = x, AdamsStep(0.0, 0.0, 0.0)
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        run.keep(denoised)
        correction = run.corrector_order(step, corrects_last=use_pece)
        if correction > 0:
            x = run.move(before, part, step - 1, step, correction)
            if use_pece:
                denoised = run.pictures[-1] = run.denoise(x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        part = AdamsStep(run.places[step], run.places[step + 1], float(tau_func(sigma_next)))
        before, x = x, run.move(x, part, step, step, run.predictor_order(step))
    return x


@without_gradients
def sample_sa_solver_pece(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = False,
    tau_func: TauFunction | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    predictor_order: int = 3,
    corrector_order: int = 4,
    simple_order_2: bool = False,
) -> Tensor:
    """:func:`sample_sa_solver` that predicts, evaluates, corrects and evaluates again."""
    path = (model, x, sigmas, extra_args, callback, disable, tau_func, s_noise, noise_sampler)
    return sample_sa_solver(*path, predictor_order, corrector_order, use_pece=True, simple_order_2=simple_order_2)
