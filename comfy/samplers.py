"""Samplers under the names node packs use and replace.

Packs append to ``SAMPLER_NAMES``, ``SCHEDULER_NAMES`` and ``SCHEDULER_HANDLERS`` and replace functions of this module; so everything
here calls ``sampling_function``, ``calc_cond_batch``, ``get_area_and_mult`` and ``calculate_sigmas`` by their current binding, like
everything that it imports by name. :mod:`comfy.sampling` does the work. Importing this module does not import torch.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.sampling.cond_preparation
import comfy.sampling.cond_regions
from comfy.extra_samplers import uni_pc
from comfy.k_diffusion import sampling as k_diffusion_sampling
from comfy.lazy_import import lazy_module
from comfy.sampling import cond_batches
from comfy.sampling.cond_batches import can_concat_cond, cond_cat, cond_equal_size
from comfy.sampling.cond_hooks import filter_registered_hooks_on_conds, get_total_hook_groups_in_conds, preprocess_conds_hooks
from comfy.sampling.cond_preparation import apply_empty_x_to_equal_area, calculate_start_end_timesteps, encode_model_conds, pre_run_control
from comfy.sampling.cond_regions import (
    add_area_dims,
    create_cond_with_same_area_if_none,
    get_mask_aabb,
    resolve_areas_and_cond_masks,
    resolve_areas_and_cond_masks_multidim,
)
from comfy.sampling.dpm_solver import over_sigmas
from comfy.sampling.guidance import cfg_function
from comfy.sampling.guider import Guider, SamplerNames
from comfy.sampling.inpainting import KSamplerX0Inpaint
from comfy.sampling.load_options import cast_to_load_options, cast_transformer_options
from comfy.sampling.sampler import Sampler
from comfy.sampling.sampler_table import KSAMPLER_NAMES, SAMPLER_NAMES
from comfy.sampling.scheduler_table import SCHEDULER_HANDLERS, SCHEDULER_NAMES, SchedulerHandler
from comfy.sampling.schedules import (
    beta_scheduler,
    ddim_scheduler,
    kl_optimal_scheduler,
    linear_quadratic_schedule,
    normal_scheduler,
    simple_scheduler,
)

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import GuidedModel, ModelSampling, SampledModel, SampledPatcher

log = logging.getLogger(__name__)

torch = lazy_module("torch")

__all__ = [
    "KSAMPLER",
    "KSAMPLER_NAMES",
    "SAMPLER_NAMES",
    "SCHEDULER_HANDLERS",
    "SCHEDULER_NAMES",
    "CFGGuider",
    "KSampler",
    "KSamplerX0Inpaint",
    "Sampler",
    "SchedulerHandler",
    "add_area_dims",
    "apply_empty_x_to_equal_area",
    "beta_scheduler",
    "calc_cond_batch",
    "calc_cond_uncond_batch",
    "calculate_sigmas",
    "calculate_start_end_timesteps",
    "can_concat_cond",
    "cast_to_load_options",
    "cast_transformer_options",
    "cfg_function",
    "cond_cat",
    "cond_equal_size",
    "create_cond_with_same_area_if_none",
    "ddim_scheduler",
    "encode_model_conds",
    "filter_registered_hooks_on_conds",
    "get_area_and_mult",
    "get_mask_aabb",
    "get_total_hook_groups_in_conds",
    "k_diffusion_sampling",
    "kl_optimal_scheduler",
    "ksampler",
    "linear_quadratic_schedule",
    "normal_scheduler",
    "pre_run_control",
    "preprocess_conds_hooks",
    "process_conds",
    "resolve_areas_and_cond_masks",
    "resolve_areas_and_cond_masks_multidim",
    "sample",
    "sampler_object",
    "sampling_function",
    "simple_scheduler",
    "uni_pc",
]

RANGE_SAMPLERS = {"dpm_fast", "dpm_adaptive"}  # they take the ends of the sigmas alone
FULL_DENOISE = 0.9999  # a denoise above this means all of it

Options = dict[str, Any]


def get_area_and_mult(conds: Options, x_in: Tensor, timestep_in: Tensor) -> Any:
    """Cut *conds* out for the latent *x_in* (B×C×spatial) at sigmas *timestep_in* (B); None outside its range. Packs replace this."""
    return comfy.sampling.cond_regions.place_cond(conds, x_in, timestep_in)


def calc_cond_batch(model: SampledModel, conds: Sequence[Any], x_in: Tensor, timestep: Tensor, model_options: Options) -> list[Tensor]:
    """The model's denoised latent for each list of *conds*, through a context handler, if any, and the wrappers. Packs replace this."""
    handler = model_options.get("context_handler")
    if handler is None or not handler.should_use_context(model, conds, x_in, timestep, model_options):
        return _calc_cond_batch_outer(model, conds, x_in, timestep, model_options)
    return handler.execute(_calc_cond_batch_outer, model, conds, x_in, timestep, model_options)


def _calc_cond_batch_outer(
    model: SampledModel, conds: Sequence[Any], x_in: Tensor, timestep: Tensor, model_options: Options
) -> list[Tensor]:
    kind = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
    wrappers = comfy.patcher_extension.get_all_wrappers(kind, model_options, is_model_options=True)
    executor = comfy.patcher_extension.WrapperExecutor.new_executor(_calc_cond_batch, wrappers)
    return executor.execute(model, conds, x_in, timestep, model_options)


def _calc_cond_batch(model: SampledModel, conds: Sequence[Any], x_in: Tensor, timestep: Tensor, model_options: Options) -> list[Tensor]:
    return cond_batches.evaluate(model, conds, x_in, timestep, model_options, get_area_and_mult)


def calc_cond_uncond_batch(
    model: SampledModel, cond: Any, uncond: Any, x_in: Tensor, timestep: Tensor, model_options: Options
) -> tuple[Tensor, ...]:
    """Deprecated form of :func:`calc_cond_batch` for two sides."""
    log.warning("comfy.samplers.calc_cond_uncond_batch is deprecated; use calc_cond_batch")
    return tuple(calc_cond_batch(model, [cond, uncond], x_in, timestep, model_options))


def sampling_function(
    model: SampledModel,
    x: Tensor,
    timestep: Tensor,
    uncond: Any,
    cond: Any,
    cond_scale: float,
    model_options: Options | None = None,
    seed: int | None = None,
) -> Tensor:
    """The guided denoised latent for *x* (B×C×spatial) at sigmas *timestep* (B). Packs replace this.

    With a scale of 1 the unconditioned side is not computed unless ``disable_cfg1_optimization`` is set.
    """
    options = {} if model_options is None else model_options
    if math.isclose(cond_scale, 1.0) and not options.get("disable_cfg1_optimization", False):
        uncond = None
    conds = [cond, uncond]
    if "sampler_calc_cond_batch_function" in options:
        pictures = options["sampler_calc_cond_batch_function"](
            {"conds": conds, "input": x, "sigma": timestep, "model": model, "model_options": options}
        )
    else:
        pictures = calc_cond_batch(model, conds, x, timestep, options)
    for function in options.get("sampler_pre_cfg_function", ()):
        pictures = function(
            {
                "conds": conds,
                "conds_out": pictures,
                "cond_scale": cond_scale,
                "timestep": timestep,
                "input": x,
                "sigma": timestep,
                "model": model,
                "model_options": options,
            }
        )
    return cfg_function(model, pictures[0], pictures[1], cond_scale, x, timestep, model_options=options, cond=cond, uncond=uncond)


class KSAMPLER(Sampler):
    """A function of k-diffusion's form as a sampler.

    *extra_options* are its further arguments; with ``{"random": True}`` as *inpaint_options* the kept part of a masked latent gets
    noise of its own.
    """

    def __init__(
        self, sampler_function: Callable[..., Tensor], extra_options: Options | None = None, inpaint_options: Options | None = None
    ) -> None:
        self.sampler_function = sampler_function
        self.extra_options = {} if extra_options is None else extra_options
        self.inpaint_options = {} if inpaint_options is None else inpaint_options

    def sample(
        self,
        model_wrap: GuidedModel,
        sigmas: Tensor,
        extra_args: Options,
        callback: Callable[..., None] | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Run the function over *sigmas* and return the latent, shaped like *noise*; *callback* gets (step, denoised, latent, steps)."""
        extra_args["denoise_mask"] = denoise_mask
        sigmas = sigmas.clone()  # a node's, which stay: uni_pc changes the last one
        model = KSamplerX0Inpaint(model_wrap, sigmas)
        model.latent_image, model.noise, model.noise_names = latent_image, noise, k_diffusion_sampling
        if self.inpaint_options.get("random", False):
            generator = torch.manual_seed(extra_args.get("seed", 41) + 1)
            model.noise = torch.randn(noise.shape, generator=generator, device="cpu").to(noise)
        sampling = model_wrap.inner_model.model_sampling
        noise = sampling.noise_scaling(sigmas[0], noise, latent_image, self.max_denoise(model_wrap, sigmas))
        total_steps = len(sigmas) - 1

        def report(state: Options) -> None:
            if callback is not None:
                callback(state["i"], state["denoised"], state["x"], total_steps)

        samples = self.sampler_function(
            model, noise, sigmas, extra_args=extra_args, callback=report, disable=disable_pbar, **self.extra_options
        )
        return sampling.inverse_noise_scaling(sigmas[-1], samples)


def ksampler(sampler_name: str, extra_options: Options | None = None, inpaint_options: Options | None = None) -> KSAMPLER:
    """The sampler ``sample_<sampler_name>`` of :mod:`comfy.k_diffusion.sampling`, where packs add theirs. Raises ``ValueError``."""
    function = getattr(k_diffusion_sampling, f"sample_{sampler_name}", None)
    if function is None:
        raise ValueError(f"there is no sampler {sampler_name!r}; known: {', '.join(SAMPLER_NAMES)}")
    if sampler_name in RANGE_SAMPLERS:
        function = over_sigmas(function, counts_calls=sampler_name == "dpm_fast")
    return KSAMPLER(function, extra_options, inpaint_options)


def sampler_object(name: str) -> KSAMPLER:
    """The sampler that users choose as *name*. Raises ``ValueError`` for an unknown one."""
    if name == "uni_pc":
        return KSAMPLER(uni_pc.sample_unipc)
    if name == "uni_pc_bh2":
        return KSAMPLER(uni_pc.sample_unipc_bh2)
    if name == "ddim":
        return ksampler("euler", inpaint_options={"random": True})
    return ksampler(name)


def calculate_sigmas(model_sampling: ModelSampling, scheduler_name: str, steps: int) -> Tensor:
    """Descending sigmas of the named scheduler, on the CPU. Packs replace this. Raises ``ValueError`` for an unknown name."""
    if scheduler_name not in SCHEDULER_HANDLERS:
        raise ValueError(f"there is no scheduler {scheduler_name!r}; known: {', '.join(SCHEDULER_HANDLERS)}")
    handler, use_ms = SCHEDULER_HANDLERS[scheduler_name]
    if use_ms:
        return handler(model_sampling, steps)
    return handler(n=steps, sigma_min=float(model_sampling.sigma_min), sigma_max=float(model_sampling.sigma_max))


def process_conds(
    model: SampledModel,
    noise: Tensor,
    conds: dict[str, Any],
    device: Any,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    seed: int | None = None,
    latent_shapes: Any = None,
) -> dict[str, Any]:
    """Prepare *conds* ({"positive": entries, "negative": entries, …}) for sampling *noise* with *model* on *device*; returns them."""
    return comfy.sampling.cond_preparation.prepare(model, noise, conds, device, latent_image, denoise_mask, seed, latent_shapes)


class CFGGuider(Guider):
    """Runs one sampling of a model with classifier-free guidance; subclasses override :meth:`predict_noise`.

    Samplers call the guider itself as the model. ``inner_model`` and ``conds`` exist while it samples.
    """

    names = cast(SamplerNames, sys.modules[__name__])


def sample(
    model: SampledPatcher,
    noise: Tensor,
    positive: Any,
    negative: Any,
    cfg: float,
    device: Any,
    sampler: Sampler,
    sigmas: Tensor,
    model_options: Options | None = None,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    callback: Callable[..., None] | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    """Sample with a :class:`CFGGuider`. *device* and *model_options* are not used: the patcher knows both."""
    latent_image = torch.zeros_like(noise) if latent_image is None else latent_image
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider.sample(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)


class KSampler:
    """Named sampler, scheduler and number of steps for one model; ``sigmas`` are the levels, on *device*.

    An unknown sampler or scheduler name means the first known one.
    """

    SCHEDULERS = SCHEDULER_NAMES
    SAMPLERS = SAMPLER_NAMES
    DISCARD_PENULTIMATE_SIGMA_SAMPLERS = {"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"}

    def __init__(
        self,
        model: SampledPatcher,
        steps: int,
        device: Any,
        sampler: str | None = None,
        scheduler: str | None = None,
        denoise: float | None = None,
        model_options: Options | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.scheduler = scheduler if scheduler in self.SCHEDULERS else self.SCHEDULERS[0]
        self.sampler = sampler if sampler in self.SAMPLERS else self.SAMPLERS[0]
        self.set_steps(steps, denoise)
        self.denoise = denoise
        self.model_options = {} if model_options is None else model_options

    def calculate_sigmas(self, steps: int) -> Tensor:
        """Levels for *steps* steps; some samplers do better with one more and the last level before zero left out."""
        discards = self.sampler in self.DISCARD_PENULTIMATE_SIGMA_SAMPLERS
        sigmas = calculate_sigmas(self.model.get_model_object("model_sampling"), self.scheduler, steps + 1 if discards else steps)
        return torch.cat([sigmas[:-2], sigmas[-1:]]) if discards else sigmas

    def set_steps(self, steps: int, denoise: float | None = None) -> None:
        """Compute the levels: with *denoise* below 1 the last *steps* of a schedule that is longer in proportion."""
        self.steps = steps
        if denoise is not None and denoise <= 0.0:
            self.sigmas = torch.FloatTensor([])
        elif denoise is None or denoise > FULL_DENOISE:
            self.sigmas = self.calculate_sigmas(steps).to(self.device)
        else:
            self.sigmas = self.calculate_sigmas(int(steps / denoise)).to(self.device)[-(steps + 1) :]

    def sample(
        self,
        noise: Tensor,
        positive: Any,
        negative: Any,
        cfg: float,
        latent_image: Tensor | None = None,
        start_step: int | None = None,
        last_step: int | None = None,
        force_full_denoise: bool = False,
        denoise_mask: Tensor | None = None,
        sigmas: Tensor | None = None,
        callback: Callable[..., None] | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """Sample from step *start_step* to *last_step*; *force_full_denoise* removes what noise the last one would leave."""
        sigmas = self.sigmas if sigmas is None else sigmas
        if last_step is not None and last_step < len(sigmas) - 1:
            sigmas = sigmas[: last_step + 1].clone()
            if force_full_denoise:
                sigmas[-1] = 0
        if start_step is not None:
            if start_step >= len(sigmas) - 1:
                return torch.zeros_like(noise) if latent_image is None else latent_image
            sigmas = sigmas[start_step:]
        return sample(
            self.model,
            noise,
            positive,
            negative,
            cfg,
            self.device,
            sampler_object(self.sampler),
            sigmas,
            self.model_options,
            latent_image=latent_image,
            denoise_mask=denoise_mask,
            callback=callback,
            disable_pbar=disable_pbar,
            seed=seed,
        )
