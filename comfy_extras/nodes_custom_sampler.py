"""Nodes that sample with separate noise, guider, sampler and sigmas, each of which another node makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from comfy import made_by
from comfy.lazy_import import lazy_module
from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_sampling import LARGEST_SEED, sampled_latent
from comfy_extras.guider_nodes import (
    GUIDER_NODES,
    BasicGuider,
    CFGGuider,
    CFGOverride,
    DualCFGGuider,
    DualModelGuider,
    Guider_Basic,
    Guider_DualCFG,
    Guider_DualModel,
)
from comfy_extras.sampler_nodes import (
    SAMPLER_NODES,
    KSamplerSelect,
    SamplerDPMPP_2M_SDE,
    SamplerDPMPP_2S_Ancestral,
    SamplerDPMPP_3M_SDE,
    SamplerDPMPP_SDE,
    SamplerEulerAncestral,
    SamplerEulerAncestralCFGPP,
    SamplerLMS,
)
from comfy_extras.sigma_nodes import (
    SIGMA_NODES,
    BasicScheduler,
    BetaSamplingScheduler,
    ExponentialScheduler,
    ExtendIntermediateSigmas,
    FlipSigmas,
    KarrasScheduler,
    LaplaceScheduler,
    ManualSigmas,
    PolyexponentialScheduler,
    SamplingPercentToSigma,
    SDTurboScheduler,
    SetFirstSigma,
    SplitSigmas,
    SplitSigmasDenoise,
    VPScheduler,
)
from comfy_extras.stochastic_sampler_nodes import (
    STOCHASTIC_SAMPLER_NODES,
    SamplerDPMAdaptative,
    SamplerER_SDE,
    SamplerSASolver,
    SamplerSEEDS2,
)

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher
    from comfy.sampling.protocols import SampledPatcher
    from comfy.sampling.sampler import Sampler
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")

__all__ = [
    "AddNoise",
    "BasicGuider",
    "BasicScheduler",
    "BetaSamplingScheduler",
    "CFGGuider",
    "CFGOverride",
    "DisableNoise",
    "DualCFGGuider",
    "DualModelGuider",
    "ExponentialScheduler",
    "ExtendIntermediateSigmas",
    "FlipSigmas",
    "Guider_Basic",
    "Guider_DualCFG",
    "Guider_DualModel",
    "KSamplerSelect",
    "KarrasScheduler",
    "LaplaceScheduler",
    "ManualSigmas",
    "Noise_EmptyNoise",
    "Noise_RandomNoise",
    "PolyexponentialScheduler",
    "RandomNoise",
    "SDTurboScheduler",
    "SamplerCustom",
    "SamplerCustomAdvanced",
    "SamplerDPMAdaptative",
    "SamplerDPMPP_2M_SDE",
    "SamplerDPMPP_2S_Ancestral",
    "SamplerDPMPP_3M_SDE",
    "SamplerDPMPP_SDE",
    "SamplerER_SDE",
    "SamplerEulerAncestral",
    "SamplerEulerAncestralCFGPP",
    "SamplerLMS",
    "SamplerSASolver",
    "SamplerSEEDS2",
    "SamplingPercentToSigma",
    "SetFirstSigma",
    "SplitSigmas",
    "SplitSigmasDenoise",
    "VPScheduler",
    "comfy_entrypoint",
]

CUSTOM, NOISE = "model/sampling/custom", "model/sampling/noise"


class Noise_EmptyNoise:  # noqa: N801 - the name packs import
    """A NOISE of zeros."""

    def __init__(self) -> None:
        self.seed = 0

    def generate_noise(self, input_latent: dict[str, Any]) -> Any:
        """Zeros in the latent's shape, on the CPU."""
        return comfy.sample.prepare_empty_noise(input_latent["samples"])


class Noise_RandomNoise:  # noqa: N801 - the name packs import
    """A NOISE drawn on the CPU from a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generate_noise(self, input_latent: dict[str, Any]) -> Any:
        """Noise in the latent's shape, on the CPU; ``batch_index`` in the latent selects entries of a larger batch."""
        return comfy.sample.prepare_noise(input_latent["samples"], self.seed, input_latent.get("batch_index"))


def _seed() -> io.Int.Input:
    return io.Int.Input("noise_seed", default=0, min=0, max=LARGEST_SEED, control_after_generate=True)


def _path_inputs() -> list[io.Input]:
    """The inputs for sampler, sigmas and the latent to start from."""
    return [io.Sampler.Input("sampler"), io.Sigmas.Input("sigmas"), io.Latent.Input("latent_image")]


def _latent_outputs() -> list[io.Output]:
    return [io.Latent.Output(display_name="output"), io.Latent.Output(display_name="denoised_output")]


def _for_model(model: SampledPatcher, latent: dict[str, Any]) -> dict[str, Any]:
    """*latent* in the channels and scale of *model*."""
    samples = comfy.sample.fix_empty_latent_channels(
        model, latent["samples"], latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal")
    )
    return {**latent, "samples": samples}


def _both_outputs(model: SampledPatcher, latent: dict[str, Any], samples: Any, x0_output: dict[str, Any]) -> io.NodeOutput:
    """The sampled latent and the model's last denoised latent; the sampled latent twice if there was no step."""
    out = sampled_latent(latent, samples)
    if "x0" not in x0_output:
        return io.NodeOutput(out, out)
    return io.NodeOutput(out, {**latent, "samples": model.model.process_latent_out(x0_output["x0"].cpu())})


class SamplerCustom(io.ComfyNode):
    """Samples with a given sampler and sigmas, guided by two prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SamplerCustom",
            category=CUSTOM,
            outputs=_latent_outputs(),
            inputs=[
                io.Model.Input("model"),
                io.Boolean.Input("add_noise", default=True, advanced=True),
                _seed(),
                io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01),
                *(io.Conditioning.Input(sign) for sign in ("positive", "negative")),
                *_path_inputs(),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        add_noise: bool,
        noise_seed: int,
        cfg: float,
        positive: Conditioning,
        negative: Conditioning,
        sampler: Sampler,
        sigmas: Tensor,
        latent_image: Latent,
    ) -> io.NodeOutput:
        """The sampled latent, and the model's last picture of it."""
        latent = _for_model(model, latent_image)
        noise = (Noise_RandomNoise(noise_seed) if add_noise else Noise_EmptyNoise()).generate_noise(latent)
        x0_output: dict[str, Any] = {}
        samples = comfy.sample.sample_custom(
            model,
            noise,
            cfg,
            sampler,
            sigmas,
            positive,
            negative,
            latent["samples"],
            noise_mask=latent.get("noise_mask"),
            callback=latent_preview.prepare_callback(model, sigmas.shape[-1] - 1, x0_output),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=noise_seed,
        )
        return _both_outputs(model, latent, samples, x0_output)

    sample = execute


class SamplerCustomAdvanced(io.ComfyNode):
    """Samples with given noise, guider, sampler and sigmas."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SamplerCustomAdvanced",
            category=CUSTOM,
            outputs=_latent_outputs(),
            inputs=[io.Noise.Input("noise"), io.Guider.Input("guider"), *_path_inputs()],
        )

    @classmethod
    def execute(cls, noise: Any, guider: comfy.samplers.CFGGuider, sampler: Sampler, sigmas: Tensor, latent_image: Latent) -> io.NodeOutput:
        """The sampled latent, and the model's last picture of it."""
        model = guider.model_patcher
        latent = _for_model(model, latent_image)
        x0_output: dict[str, Any] = {}
        samples = guider.sample(
            noise.generate_noise(latent),
            latent["samples"],
            sampler,
            sigmas,
            denoise_mask=latent.get("noise_mask"),
            callback=latent_preview.prepare_callback(model, sigmas.shape[-1] - 1, x0_output),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=noise.seed,
        )
        kept = made_by.carry(samples, samples.to(comfy.model_management.intermediate_device()))
        return _both_outputs(model, latent, kept, x0_output)

    sample = execute


class DisableNoise(io.ComfyNode):
    """Makes a NOISE of zeros, for latents that contain noise already."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="DisableNoise", category=NOISE, search_aliases=["zero noise"], inputs=[], outputs=[io.Noise.Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(Noise_EmptyNoise())

    get_noise = execute


class RandomNoise(io.ComfyNode):
    """Makes a NOISE from a seed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="RandomNoise", category=NOISE, inputs=[_seed()], outputs=[io.Noise.Output()])

    @classmethod
    def execute(cls, noise_seed: int) -> io.NodeOutput:
        return io.NodeOutput(Noise_RandomNoise(noise_seed))

    get_noise = execute


class AddNoise(io.ComfyNode):
    """Adds the noise of a part of a schedule to a latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AddNoise",
            category=NOISE,
            is_experimental=True,
            outputs=[io.Latent.Output()],
            inputs=[io.Model.Input("model"), io.Noise.Input("noise"), io.Sigmas.Input("sigmas"), io.Latent.Input("latent_image")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, noise: Any, sigmas: Tensor, latent_image: Latent) -> io.NodeOutput:
        """The latent with noise of the first level minus the last, or of the only level; unchanged without levels."""
        if len(sigmas) == 0:
            return io.NodeOutput(latent_image)
        samples = latent_image["samples"]
        if torch.count_nonzero(samples) > 0:  # zeros stay zeros in either scale
            samples = model.get_model_object("process_latent_in")(samples)
        scale = torch.abs(sigmas[0] - sigmas[-1]) if len(sigmas) > 1 else sigmas[0]
        drawn = noise.generate_noise(latent_image).to(samples.device)
        noisy = model.get_model_object("model_sampling").noise_scaling(scale, drawn, samples)
        noisy = torch.nan_to_num(model.get_model_object("process_latent_out")(noisy), nan=0.0, posinf=0.0, neginf=0.0)
        return io.NodeOutput({**latent_image, "samples": noisy})

    add_noise = execute


class CustomSamplersExtension(ComfyExtension):
    """The extension with the nodes of custom sampling."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        samplers = [*SAMPLER_NODES, *STOCHASTIC_SAMPLER_NODES]
        return [SamplerCustom, SamplerCustomAdvanced, RandomNoise, DisableNoise, AddNoise, *SIGMA_NODES, *samplers, *GUIDER_NODES]


async def comfy_entrypoint() -> CustomSamplersExtension:
    """The extension, for the pack loader."""
    return CustomSamplersExtension()
