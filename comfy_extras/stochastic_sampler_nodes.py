"""Nodes that make a SAMPLER of a kind with many settings: DPM-Solver with adaptive steps, ER-SDE, SA-Solver and SEEDS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import comfy.samplers
from comfy.sampling.er_sde import scale_of_er_sde, scale_of_ode, scale_of_reverse_sde
from comfy.sampling.exponential_stages import SOLVER_TYPES
from comfy.sampling.sa_solver import get_tau_interval_func
from comfy_api.latest import io
from comfy_extras.sampler_nodes import SAMPLERS, real, sampler_schema

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

ER_SOLVERS: dict[str, Callable[..., Tensor]] = {"ER-SDE": scale_of_er_sde, "Reverse-time SDE": scale_of_reverse_sde, "ODE": scale_of_ode}
ADAPTIVE_SETTINGS = {"rtol": 0.05, "atol": 0.0078, "h_init": 0.05, "pcoeff": 0.0, "icoeff": 1.0, "dcoeff": 0.0, "accept_safety": 0.81}


class SamplerDPMAdaptative(io.ComfyNode):
    """Makes a DPM-Solver that chooses its steps by their error."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        settings = {**ADAPTIVE_SETTINGS, "eta": 0.0, "s_noise": 1.0}
        order = io.Int.Input("order", default=3, min=2, max=3, advanced=True)
        return sampler_schema("SamplerDPMAdaptative", [order, *(real(name, default) for name, default in settings.items())])

    @classmethod
    def execute(cls, **settings: float) -> io.NodeOutput:
        """The sampler with *settings*, the arguments of ``sample_dpm_adaptive``."""
        return io.NodeOutput(comfy.samplers.ksampler("dpm_adaptive", settings))

    get_sampler = execute


class SamplerER_SDE(io.ComfyNode):  # noqa: N801 - the name packs import
    """Makes an ER-SDE sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        tip = "Amount of noise in each step; 0 adds none. If pictures break up, use less."
        return sampler_schema(
            "SamplerER_SDE",
            [
                io.Combo.Input("solver_type", options=list(ER_SOLVERS)),
                io.Int.Input("max_stage", default=3, min=1, max=3, advanced=True),
                io.Float.Input("eta", default=1.0, min=0.0, max=10.0, step=0.01, round=False, tooltip=tip, advanced=True),
                real("s_noise", 1.0),
            ],
        )

    @classmethod
    def execute(cls, solver_type: str, max_stage: int, eta: float, s_noise: float) -> io.NodeOutput:
        """The sampler; without noise all solvers are the ODE's."""
        if solver_type == "ODE" or eta == 0:
            options = {"s_noise": 0.0, "noise_scaler": scale_of_ode}
        else:
            options = {"s_noise": s_noise, "noise_scaler": partial(ER_SOLVERS[solver_type], eta=eta)}
        return io.NodeOutput(comfy.samplers.ksampler("er_sde", {**options, "max_stage": max_stage}))

    get_sampler = execute


def _share(name: str, default: float) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.001, advanced=True)


class SamplerSASolver(io.ComfyNode):
    """Makes a stochastic Adams sampler that adds noise in a part of the sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SamplerSASolver",
            search_aliases=["sde"],
            category=SAMPLERS,
            outputs=[io.Sampler.Output()],
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("eta", default=1.0, min=0.0, max=10.0, step=0.01, round=False, advanced=True),
                _share("sde_start_percent", 0.2),
                _share("sde_end_percent", 0.8),
                real("s_noise", 1.0),
                io.Int.Input("predictor_order", default=3, min=1, max=6, advanced=True),
                io.Int.Input("corrector_order", default=4, min=0, max=6, advanced=True),
                *(io.Boolean.Input(name, advanced=True) for name in ("use_pece", "simple_order_2")),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        eta: float,
        sde_start_percent: float,
        sde_end_percent: float,
        s_noise: float,
        predictor_order: int,
        corrector_order: int,
        use_pece: bool,
        simple_order_2: bool,
    ) -> io.NodeOutput:
        """The sampler; its range of noise is a part of the schedule of *model*."""
        to_sigma = model.get_model_object("model_sampling").percent_to_sigma
        options = {
            "tau_func": get_tau_interval_func(to_sigma(sde_start_percent), to_sigma(sde_end_percent), eta),
            "s_noise": s_noise,
            "predictor_order": predictor_order,
            "corrector_order": corrector_order,
        }
        return io.NodeOutput(comfy.samplers.ksampler("sa_solver", {**options, "use_pece": use_pece, "simple_order_2": simple_order_2}))

    get_sampler = execute


class SamplerSEEDS2(io.ComfyNode):
    """Makes a two-stage exponential sampler: SEEDS-2 or, with its second stage at the end of the step, exponential Heun."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        place = "Where in a step the model is asked again: at this share of its width"
        return io.Schema(
            node_id="SamplerSEEDS2",
            search_aliases=["sde", "exp heun"],
            category=SAMPLERS,
            description="The defaults are seeds_2. With phi_2 and r 1.0 it is exp_heun_2_x0_sde, and with eta 0.0 as well exp_heun_2_x0.",
            outputs=[io.Sampler.Output()],
            inputs=[
                io.Combo.Input("solver_type", options=list(SOLVER_TYPES)),
                real("eta", 1.0, tooltip="Amount of noise in each step"),
                real("s_noise", 1.0, tooltip="Factor of the noise that steps add"),
                io.Float.Input("r", default=0.5, min=0.01, max=1.0, step=0.01, round=False, tooltip=place, advanced=True),
            ],
        )

    @classmethod
    def execute(cls, solver_type: str, eta: float, s_noise: float, r: float) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.ksampler("seeds_2", {"eta": eta, "s_noise": s_noise, "r": r, "solver_type": solver_type}))


STOCHASTIC_SAMPLER_NODES: list[type[io.ComfyNode]] = [SamplerDPMAdaptative, SamplerER_SDE, SamplerSASolver, SamplerSEEDS2]
