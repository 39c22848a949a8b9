"""Nodes that make a SAMPLER, by name or one kind with its own settings."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy.lazy_import import lazy_module
from comfy_api.latest import io

torch = lazy_module("torch")

SAMPLERS = "model/sampling/samplers"


def real(name: str, default: float, advanced: bool | None = True, tooltip: str | None = None) -> io.Float.Input:
    """The input of a setting from 0 to 100."""
    return io.Float.Input(name, default=default, min=0.0, max=100.0, step=0.01, round=False, tooltip=tooltip, advanced=advanced)


def _noise_settings(advanced: bool | None = True) -> list[io.Float.Input]:
    return [real("eta", 1.0, advanced), real("s_noise", 1.0, advanced)]


def _noise_device() -> io.Combo.Input:
    return io.Combo.Input("noise_device", options=["gpu", "cpu"], advanced=True)


def sampler_schema(node_id: str, inputs: list[Any]) -> io.Schema:
    """The schema of a node that makes a sampler of *inputs*."""
    return io.Schema(node_id=node_id, category=SAMPLERS, inputs=inputs, outputs=[io.Sampler.Output()])


def _on(noise_device: str, name: str) -> str:
    """The sampler *name* with its noise drawn on *noise_device*."""
    return name if noise_device == "cpu" else f"{name}_gpu"


class KSamplerSelect(io.ComfyNode):
    """Makes a sampler by name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return sampler_schema("KSamplerSelect", [io.Combo.Input("sampler_name", options=comfy.samplers.SAMPLER_NAMES)])

    @classmethod
    def execute(cls, sampler_name: str) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.sampler_object(sampler_name))

    get_sampler = execute


class SamplerEulerAncestral(io.ComfyNode):
    """Makes an ancestral Euler sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return sampler_schema("SamplerEulerAncestral", _noise_settings())

    @classmethod
    def execute(cls, eta: float, s_noise: float) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.ksampler("euler_ancestral", {"eta": eta, "s_noise": s_noise}))

    get_sampler = execute


class SamplerEulerAncestralCFGPP(io.ComfyNode):
    """Makes an ancestral Euler sampler with CFG++."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        limits = (("eta", 1.0), ("s_noise", 10.0))
        return io.Schema(
            node_id="SamplerEulerAncestralCFGPP",
            display_name="SamplerEulerAncestralCFG++",
            category=SAMPLERS,
            inputs=[io.Float.Input(name, default=1.0, min=0.0, max=most, step=0.01, round=False) for name, most in limits],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, eta: float, s_noise: float) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.ksampler("euler_ancestral_cfg_pp", {"eta": eta, "s_noise": s_noise}))

    get_sampler = execute


class SamplerLMS(io.ComfyNode):
    """Makes a linear multistep sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return sampler_schema("SamplerLMS", [io.Int.Input("order", default=4, min=1, max=100, advanced=True)])

    @classmethod
    def execute(cls, order: int) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.ksampler("lms", {"order": order}))

    get_sampler = execute


class SamplerDPMPP_2S_Ancestral(io.ComfyNode):  # noqa: N801 - the name packs import
    """Makes an ancestral DPM-Solver++ (2S)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return sampler_schema("SamplerDPMPP_2S_Ancestral", _noise_settings(None))

    @classmethod
    def execute(cls, eta: float, s_noise: float) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.ksampler("dpmpp_2s_ancestral", {"eta": eta, "s_noise": s_noise}))

    get_sampler = execute


class SamplerDPMPP_SDE(io.ComfyNode):  # noqa: N801 - the name packs import
    """Makes a stochastic DPM-Solver++ (2S)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return sampler_schema("SamplerDPMPP_SDE", [*_noise_settings(), real("r", 0.5), _noise_device()])

    @classmethod
    def execute(cls, eta: float, s_noise: float, r: float, noise_device: str) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.ksampler(_on(noise_device, "dpmpp_sde"), {"eta": eta, "s_noise": s_noise, "r": r}))

    get_sampler = execute


class SamplerDPMPP_2M_SDE(io.ComfyNode):  # noqa: N801 - the name packs import
    """Makes a stochastic DPM-Solver++ (2M)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        solver = io.Combo.Input("solver_type", options=["midpoint", "heun"])
        return sampler_schema("SamplerDPMPP_2M_SDE", [solver, *_noise_settings(), _noise_device()])

    @classmethod
    def execute(cls, solver_type: str, eta: float, s_noise: float, noise_device: str) -> io.NodeOutput:
        options = {"eta": eta, "s_noise": s_noise, "solver_type": solver_type}
        return io.NodeOutput(comfy.samplers.ksampler(_on(noise_device, "dpmpp_2m_sde"), options))

    get_sampler = execute


class SamplerDPMPP_3M_SDE(io.ComfyNode):  # noqa: N801 - the name packs import
    """Makes a stochastic DPM-Solver++ (3M)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return sampler_schema("SamplerDPMPP_3M_SDE", [*_noise_settings(), _noise_device()])

    @classmethod
    def execute(cls, eta: float, s_noise: float, noise_device: str) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.ksampler(_on(noise_device, "dpmpp_3m_sde"), {"eta": eta, "s_noise": s_noise}))

    get_sampler = execute


SAMPLER_NODES: list[type[io.ComfyNode]] = [
    KSamplerSelect,
    SamplerEulerAncestral,
    SamplerLMS,
    SamplerDPMPP_3M_SDE,
    SamplerDPMPP_2M_SDE,
    SamplerDPMPP_SDE,
    SamplerDPMPP_2S_Ancestral,
    SamplerEulerAncestralCFGPP,
]
