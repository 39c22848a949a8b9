"""The two sampler nodes that hold all settings themselves, and the function behind them, which packs call and replace."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import real, whole

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")

LARGEST_SEED = 0xFFFFFFFFFFFFFFFF
MOST_STEPS = 10000


def common_ksampler(
    model: ModelPatcher,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent: Latent,
    denoise: float = 1.0,
    disable_noise: bool = False,
    start_step: int | None = None,
    last_step: int | None = None,
    force_full_denoise: bool = False,
) -> tuple[Latent]:
    """Sample *latent* (a LATENT dict) and return a LATENT dict in a tuple; :func:`comfy.sample.sample` explains the other arguments.

    The noise depends only on *seed* and is drawn on the CPU; a mask in the latent limits what changes. Raises
    ``InterruptProcessingException`` when the user interrupts.
    """
    start = comfy.sample.fix_empty_latent_channels(
        model, latent["samples"], latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal")
    )
    if disable_noise:
        noise = comfy.sample.prepare_empty_noise(start)
    else:
        noise = comfy.sample.prepare_noise(start, seed, latent.get("batch_index"))
    samples = comfy.sample.sample(
        model,
        noise,
        steps,
        cfg,
        sampler_name,
        scheduler,
        positive,
        negative,
        start,
        denoise=denoise,
        disable_noise=disable_noise,
        start_step=start_step,
        last_step=last_step,
        force_full_denoise=force_full_denoise,
        noise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(model, steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return (sampled_latent(latent, samples),)


def sampled_latent(latent: dict[str, Any], samples: Any) -> dict[str, Any]:
    """*latent* with *samples* instead of its own; entries that described an empty latent are dropped."""
    described = ("downscale_ratio_spacial", "downscale_ratio_temporal")
    return {**{key: value for key, value in latent.items() if key not in described}, "samples": samples}


def _run(*args: Any, **kwargs: Any) -> Any:
    """Call the current ``nodes.common_ksampler`` if the node tables are loaded, because packs replace it."""
    return getattr(sys.modules.get("nodes"), "common_ksampler", common_ksampler)(*args, **kwargs)


def seed_input(**options: Any) -> tuple[str, dict[str, Any]]:
    """A seed input, which the page can change after each run."""
    return whole(0, 0, LARGEST_SEED, control_after_generate=True, **options)


def cfg_input(**options: Any) -> tuple[str, dict[str, Any]]:
    """The input for the guidance scale."""
    return real(8.0, 0.0, 100.0, 0.1, round=0.01, **options)


class KSampler:
    """Denoises a latent with a model, guided by two prompts."""

    RETURN_TYPES = ("LATENT",)
    OUTPUT_TOOLTIPS = ("The sampled latent.",)
    FUNCTION = "sample"
    CATEGORY = "model/sampling"
    DESCRIPTION = "Turns noise, or a latent with added noise, into a picture's latent, step by step."
    SEARCH_ALIASES = ["sampler", "sample", "generate", "denoise", "diffuse", "txt2img", "img2img"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = comfy.samplers.KSampler
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The diffusion model."}),
                "seed": seed_input(tooltip="Decides the noise: equal seeds and settings give equal pictures."),
                "steps": whole(20, 1, MOST_STEPS, tooltip="How many steps the noise is removed in."),
                "cfg": cfg_input(
                    tooltip="How strongly the picture follows the prompts. High values cost quality; 1 ignores the negative one."
                ),
                "sampler_name": (names.SAMPLERS, {"tooltip": "The method that takes the steps."}),
                "scheduler": (names.SCHEDULERS, {"tooltip": "How the noise levels of the steps are spaced."}),
                "positive": ("CONDITIONING", {"tooltip": "What the picture should show."}),
                "negative": ("CONDITIONING", {"tooltip": "What the picture should not show."}),
                "latent_image": ("LATENT", {"tooltip": "An empty latent, or the latent of a picture to change."}),
                "denoise": real(1.0, 0.0, 1.0, tooltip="How much of the latent is replaced; below 1 its structure stays."),
            }
        }

    def sample(
        self,
        model: ModelPatcher,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Conditioning,
        negative: Conditioning,
        latent_image: Latent,
        denoise: float = 1.0,
    ) -> tuple[Latent]:
        """The sampled latent."""
        return _run(model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise=denoise)


class KSamplerAdvanced:
    """Runs a range of the steps of a sampling, so that several nodes can share one sampling."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "sample"
    CATEGORY = "model/sampling"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = comfy.samplers.KSampler
        return {
            "required": {
                "model": ("MODEL",),
                "add_noise": (["enable", "disable"], {"advanced": True}),
                "noise_seed": seed_input(),
                "steps": whole(20, 1, MOST_STEPS),
                "cfg": cfg_input(),
                "sampler_name": (names.SAMPLERS,),
                "scheduler": (names.SCHEDULERS,),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "start_at_step": whole(0, 0, MOST_STEPS, advanced=True),
                "end_at_step": whole(MOST_STEPS, 0, MOST_STEPS, advanced=True),
                "return_with_leftover_noise": (["disable", "enable"], {"advanced": True}),
            }
        }

    def sample(
        self,
        model: ModelPatcher,
        add_noise: str,
        noise_seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Conditioning,
        negative: Conditioning,
        latent_image: Latent,
        start_at_step: int,
        end_at_step: int,
        return_with_leftover_noise: str,
        denoise: Any = 1.0,
    ) -> tuple[Latent]:
        """The latent after *end_at_step*, clean unless *return_with_leftover_noise*."""
        return _run(
            model,
            noise_seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            positive,
            negative,
            latent_image,
            denoise=denoise,
            disable_noise=add_noise == "disable",
            start_step=start_at_step,
            last_step=end_at_step,
            force_full_denoise=return_with_leftover_noise != "enable",
        )


NODE_CLASS_MAPPINGS = {"KSampler": KSampler, "KSamplerAdvanced": KSamplerAdvanced}
NODE_DISPLAY_NAME_MAPPINGS = {"KSampler": "KSampler", "KSamplerAdvanced": "KSampler (Advanced)"}
NODES_EXPORTS = ("common_ksampler",)
