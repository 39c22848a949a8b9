"""Nodes that make and edit SIGMAS: descending noise levels (float32, CPU) for a sampler to step through."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import comfy.samplers
from comfy.k_diffusion import sampling as k_diffusion_sampling
from comfy.lazy_import import lazy_module
from comfy_api.latest import io

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")

SCHEDULERS = "model/sampling/schedulers"
EDITING = "model/sampling/sigmas"
SIGMA_MAX, SIGMA_MIN = 14.614642, 0.0291675  # of Stable Diffusion's schedule
TURBO_STEPS = 10
ALMOST_ZERO = 0.0001
NUMBER = re.compile(r"[-+]?(?:\d*\.*\d+)")


def _steps(default: int = 20, lowest: int = 1, highest: int = 10000) -> io.Int.Input:
    return io.Int.Input("steps", default=default, min=lowest, max=highest)


def _real(name: str, default: float, lowest: float, highest: float, step: float = 0.01, advanced: bool | None = True) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=lowest, max=highest, step=step, round=False, advanced=advanced)


def _range() -> list[io.Float.Input]:
    return [_real("sigma_max", SIGMA_MAX, 0.0, 5000.0), _real("sigma_min", SIGMA_MIN, 0.0, 5000.0)]


def _share(name: str, default: float = 1.0, step: float = 0.01) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=step)


def _schema(node_id: str, inputs: list[io.Input], category: str = SCHEDULERS, outputs: tuple[str, ...] = (), **options: Any) -> io.Schema:
    named: list[io.Output] = [io.Sigmas.Output(display_name=name) for name in outputs] or [io.Sigmas.Output()]
    return io.Schema(node_id=node_id, category=category, inputs=inputs, outputs=named, **options)


class BasicScheduler(io.ComfyNode):
    """Computes a model's sigmas with a scheduler chosen by name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "BasicScheduler",
            [io.Model.Input("model"), io.Combo.Input("scheduler", options=comfy.samplers.SCHEDULER_NAMES), _steps(), _share("denoise")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, scheduler: str, steps: int, denoise: float) -> io.NodeOutput:
        """Sigmas for *steps* steps; with *denoise* below 1 the last ones of a longer schedule."""
        if denoise <= 0.0:
            return io.NodeOutput(torch.FloatTensor([]))
        total = int(steps / denoise) if denoise < 1.0 else steps
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, total)
        return io.NodeOutput(sigmas.cpu()[-(steps + 1) :])

    get_sigmas = execute


class KarrasScheduler(io.ComfyNode):
    """Computes the sigmas of Karras et al. over a range."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("KarrasScheduler", [_steps(), *_range(), _real("rho", 7.0, 0.0, 100.0)])

    @classmethod
    def execute(cls, steps: int, sigma_max: float, sigma_min: float, rho: float) -> io.NodeOutput:
        return io.NodeOutput(k_diffusion_sampling.get_sigmas_karras(n=steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho))

    get_sigmas = execute


class ExponentialScheduler(io.ComfyNode):
    """Spaces sigmas equally in log sigma over a range."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("ExponentialScheduler", [_steps(), *_range()])

    @classmethod
    def execute(cls, steps: int, sigma_max: float, sigma_min: float) -> io.NodeOutput:
        return io.NodeOutput(k_diffusion_sampling.get_sigmas_exponential(n=steps, sigma_min=sigma_min, sigma_max=sigma_max))

    get_sigmas = execute


class PolyexponentialScheduler(io.ComfyNode):
    """Spaces sigmas polynomially in log sigma over a range."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("PolyexponentialScheduler", [_steps(), *_range(), _real("rho", 1.0, 0.0, 100.0)])

    @classmethod
    def execute(cls, steps: int, sigma_max: float, sigma_min: float, rho: float) -> io.NodeOutput:
        return io.NodeOutput(k_diffusion_sampling.get_sigmas_polyexponential(n=steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho))

    get_sigmas = execute


class LaplaceScheduler(io.ComfyNode):
    """Takes sigmas at the quantiles of a Laplace distribution over a range."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("LaplaceScheduler", [_steps(), *_range(), _real("mu", 0.0, -10.0, 10.0, 0.1), _real("beta", 0.5, 0.0, 10.0, 0.1)])

    @classmethod
    def execute(cls, steps: int, sigma_max: float, sigma_min: float, mu: float, beta: float) -> io.NodeOutput:
        return io.NodeOutput(k_diffusion_sampling.get_sigmas_laplace(n=steps, sigma_min=sigma_min, sigma_max=sigma_max, mu=mu, beta=beta))

    get_sigmas = execute


class VPScheduler(io.ComfyNode):
    """Computes the sigmas of a variance-preserving SDE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "VPScheduler",
            [_steps(), _real("beta_d", 19.9, 0.0, 5000.0), _real("beta_min", 0.1, 0.0, 5000.0), _real("eps_s", 0.001, 0.0, 1.0, 0.0001)],
        )

    @classmethod
    def execute(cls, steps: int, beta_d: float, beta_min: float, eps_s: float) -> io.NodeOutput:
        return io.NodeOutput(k_diffusion_sampling.get_sigmas_vp(n=steps, beta_d=beta_d, beta_min=beta_min, eps_s=eps_s))

    get_sigmas = execute


class BetaSamplingScheduler(io.ComfyNode):
    """Takes a model's sigmas at the quantiles of a beta distribution."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "BetaSamplingScheduler", [io.Model.Input("model"), _steps(), _real("alpha", 0.6, 0.0, 50.0), _real("beta", 0.6, 0.0, 50.0)]
        )

    @classmethod
    def execute(cls, model: ModelPatcher, steps: int, alpha: float, beta: float) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.beta_scheduler(model.get_model_object("model_sampling"), steps, alpha=alpha, beta=beta))

    get_sigmas = execute


class SDTurboScheduler(io.ComfyNode):
    """Takes sigmas from the ten levels that SD Turbo was distilled for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("SDTurboScheduler", [io.Model.Input("model"), _steps(1, 1, TURBO_STEPS), _share("denoise")])

    @classmethod
    def execute(cls, model: ModelPatcher, steps: int, denoise: float) -> io.NodeOutput:
        """The first *steps* of the levels (later ones if *denoise* is below 1), then zero."""
        start = TURBO_STEPS - int(TURBO_STEPS * denoise)
        times = (torch.arange(TURBO_STEPS, 0, -1) * 100 - 1)[start : start + steps]
        return io.NodeOutput(k_diffusion_sampling.append_zero(model.get_model_object("model_sampling").sigma(times)))

    get_sigmas = execute


class SplitSigmas(io.ComfyNode):
    """Splits a schedule at a step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "SplitSigmas",
            [io.Sigmas.Input("sigmas"), io.Int.Input("step", default=0, min=0, max=10000)],
            EDITING,
            ("high_sigmas", "low_sigmas"),
        )

    @classmethod
    def execute(cls, sigmas: Tensor, step: int) -> io.NodeOutput:
        """Both parts; the level at *step* is in both."""
        return io.NodeOutput(sigmas[: step + 1], sigmas[step:])

    get_sigmas = execute


class SplitSigmasDenoise(io.ComfyNode):
    """Splits a schedule so that a given share of its steps is in the second part."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("SplitSigmasDenoise", [io.Sigmas.Input("sigmas"), _share("denoise")], EDITING, ("high_sigmas", "low_sigmas"))

    @classmethod
    def execute(cls, sigmas: Tensor, denoise: float) -> io.NodeOutput:
        """Both parts; the level at the split is in both."""
        steps = max(len(sigmas) - 1, 0)
        cut = steps - round(steps * denoise)
        return io.NodeOutput(sigmas[: cut + 1], sigmas[cut:])

    get_sigmas = execute


class FlipSigmas(io.ComfyNode):
    """Reverses a schedule, to add noise step by step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("FlipSigmas", [io.Sigmas.Input("sigmas")], EDITING)

    @classmethod
    def execute(cls, sigmas: Tensor) -> io.NodeOutput:
        """The reversed levels; a zero at the start becomes a small number, because samplers divide by it."""
        flipped = sigmas.flip(0)
        if len(flipped) > 0 and flipped[0] == 0:
            flipped[0] = ALMOST_ZERO
        return io.NodeOutput(flipped)

    get_sigmas = execute


class SetFirstSigma(io.ComfyNode):
    """Replaces a schedule's first level."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("SetFirstSigma", [io.Sigmas.Input("sigmas"), _real("sigma", 136.0, 0.0, 20000.0, 0.001, None)], EDITING)

    @classmethod
    def execute(cls, sigmas: Tensor, sigma: float) -> io.NodeOutput:
        """A copy that starts at *sigma*."""
        changed = sigmas.clone()
        changed[0] = sigma
        return io.NodeOutput(changed)

    set_first_sigma = execute


class ExtendIntermediateSigmas(io.ComfyNode):
    """Divides the steps in a part of a schedule."""

    SPACINGS = {
        "linear": lambda share: share,
        "cosine": lambda share: math.sin(share * math.pi / 2),
        "sine": lambda share: 1 - math.cos(share * math.pi / 2),
    }

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            io.Sigmas.Input("sigmas"),
            _steps(2, 1, 100),
            _real("start_at_sigma", -1.0, -1.0, 20000.0, advanced=None),
            _real("end_at_sigma", 12.0, 0.0, 20000.0, advanced=None),
            io.Combo.Input("spacing", options=list(cls.SPACINGS)),
        ]
        return _schema("ExtendIntermediateSigmas", inputs, EDITING, search_aliases=["interpolate sigmas"])

    @classmethod
    def execute(cls, sigmas: Tensor, steps: int, start_at_sigma: float, end_at_sigma: float, spacing: str) -> io.NodeOutput:
        """The levels, with every step that starts between the two bounds divided into *steps*; a negative start means no upper bound."""
        highest = math.inf if start_at_sigma < 0 else start_at_sigma
        shares = [cls.SPACINGS[spacing](number / steps) for number in range(1, steps)]
        levels = sigmas.tolist()
        extended = []
        for level, following in zip(levels, levels[1:]):
            extended.append(level)
            if end_at_sigma <= level <= highest:
                extended += [level + share * (following - level) for share in shares]
        return io.NodeOutput(torch.FloatTensor(extended + levels[-1:]))

    extend = execute


class SamplingPercentToSigma(io.ComfyNode):
    """Finds the level at a share of a model's sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        tooltip = "At 0 and 1 give the schedule's ends instead of the values that stand for 'always'."
        return io.Schema(
            node_id="SamplingPercentToSigma",
            category=EDITING,
            outputs=[io.Float.Output(display_name="sigma_value")],
            inputs=[
                io.Model.Input("model"),
                _share("sampling_percent", 0.0, 0.0001),
                io.Boolean.Input("return_actual_sigma", default=False, tooltip=tooltip),
            ],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, sampling_percent: float, return_actual_sigma: bool) -> io.NodeOutput:
        """The sigma as a number."""
        sampling = model.get_model_object("model_sampling")
        if return_actual_sigma and sampling_percent in (0.0, 1.0):
            return io.NodeOutput((sampling.sigma_max if sampling_percent == 0.0 else sampling.sigma_min).item())
        return io.NodeOutput(sampling.percent_to_sigma(sampling_percent))

    get_sigma = execute


class ManualSigmas(io.ComfyNode):
    """Reads levels written as text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "ManualSigmas",
            [io.String.Input("sigmas", default="1, 0.5", multiline=False)],
            EDITING,
            is_experimental=True,
            search_aliases=["custom noise schedule", "define sigmas"],
        )

    @classmethod
    def execute(cls, sigmas: str) -> io.NodeOutput:
        """The numbers found in the text, in order."""
        return io.NodeOutput(torch.FloatTensor([float(number) for number in NUMBER.findall(sigmas)]))


SIGMA_NODES: list[type[io.ComfyNode]] = [
    BasicScheduler,
    BetaSamplingScheduler,
    ExponentialScheduler,
    ExtendIntermediateSigmas,
    FlipSigmas,
    KarrasScheduler,
    LaplaceScheduler,
    ManualSigmas,
    PolyexponentialScheduler,
    SDTurboScheduler,
    SamplingPercentToSigma,
    SetFirstSigma,
    SplitSigmas,
    SplitSigmasDenoise,
    VPScheduler,
]
