"""Samplers under the names node packs use and replace.

Packs append to ``SAMPLER_NAMES``, ``SCHEDULER_NAMES`` and ``SCHEDULER_HANDLERS`` and replace functions of this module; so everything
here calls ``sampling_function``, ``calc_cond_batch``, ``get_area_and_mult`` and ``calculate_sigmas`` by their current binding, and so
whatever else it imports by name. The work is done in :mod:`comfy.sampling`. Importing this module does not import torch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.sampling.cond_preparation
import comfy.sampling.cond_regions
from comfy.extra_samplers import uni_pc
from comfy.k_diffusion import sampling as k_diffusion_sampling
from comfy.lazy_import import lazy_module
from comfy.patching.model_options import create_model_options_clone
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
from comfy.sampling.guidance import cfg_function
from comfy.sampling.inpainting import KSamplerX0Inpaint
from comfy.sampling.load_options import cast_to_load_options, cast_transformer_options
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

torch = lazy_module("torch")
hooks_of_models = lazy_module("comfy.hooks")

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

FULL_DENOISE = 0.9999  # a denoise above this means all of it

Options = dict[str, Any]


def get_area_and_mult(conds: Options, x_in: Tensor, timestep_in: Tensor) -> Any:
    """See :func:`comfy.sampling.cond_regions.place_cond`. Packs replace this."""
    return comfy.sampling.cond_regions.place_cond(conds, x_in, timestep_in)


def calc_cond_batch(model: Any, conds: Sequence[Any], x_in: Tensor, timestep: Tensor, model_options: Options) -> list[Tensor]:
    """The model's picture for each list of *conds*, through a context handler if there is one, and the wrappers. Packs replace this."""
    handler = model_options.get("context_handler")
    if handler is None or not handler.should_use_context(model, conds, x_in, timestep, model_options):
        return _calc_cond_batch_outer(model, conds, x_in, timestep, model_options)
    return handler.execute(_calc_cond_batch_outer, model, conds, x_in, timestep, model_options)


def _calc_cond_batch_outer(model: Any, conds: Sequence[Any], x_in: Tensor, timestep: Tensor, model_options: Options) -> list[Tensor]:
    kind = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
    wrappers = comfy.patcher_extension.get_all_wrappers(kind, model_options, is_model_options=True)
    executor = comfy.patcher_extension.WrapperExecutor.new_executor(_calc_cond_batch, wrappers)
    return executor.execute(model, conds, x_in, timestep, model_options)


def _calc_cond_batch(model: Any, conds: Sequence[Any], x_in: Tensor, timestep: Tensor, model_options: Options) -> list[Tensor]:
    return cond_batches.evaluate(model, conds, x_in, timestep, model_options, get_area_and_mult)


def calc_cond_uncond_batch(
    model: Any, cond: Any, uncond: Any, x_in: Tensor, timestep: Tensor, model_options: Options
) -> tuple[Tensor, ...]:
    """Deprecated form of :func:`calc_cond_batch` for two sides."""
    logging.warning("comfy.samplers.calc_cond_uncond_batch is deprecated; use calc_cond_batch")
    return tuple(calc_cond_batch(model, [cond, uncond], x_in, timestep, model_options))


def sampling_function(
    model: Any,
    x: Tensor,
    timestep: Tensor,
    uncond: Any,
    cond: Any,
    cond_scale: float,
    model_options: Options | None = None,
    seed: int | None = None,
) -> Tensor:
    """The guided picture for latent *x* at sigmas *timestep*. Packs replace this.

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


class Sampler:
    """What a guider runs. Subclasses implement :meth:`sample`."""

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: Options,
        callback: Callable[..., None] | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """The sampled latent; *model_wrap* is the guider."""
        raise NotImplementedError(f"{type(self).__name__} must define sample()")

    def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
        """Whether *sigmas* start at or above the model's highest level, so that nothing of a given latent is left."""
        highest, first = float(model_wrap.inner_model.model_sampling.sigma_max), float(sigmas[0])
        return first > highest or math.isclose(highest, first, rel_tol=1e-5)


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
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: Options,
        callback: Callable[..., None] | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """See :meth:`Sampler.sample`; *callback* gets (step, picture, latent, steps)."""
        extra_args["denoise_mask"] = denoise_mask
        model = KSamplerX0Inpaint(model_wrap, sigmas)
        model.latent_image, model.noise = latent_image, noise
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


KSAMPLER_NAMES = [
    "euler",
    "euler_ancestral",
    "heun",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpmpp_2s_ancestral",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
]
SAMPLER_NAMES = [*KSAMPLER_NAMES, "ddim", "uni_pc", "uni_pc_bh2"]


def ksampler(sampler_name: str, extra_options: Options | None = None, inpaint_options: Options | None = None) -> KSAMPLER:
    """The sampler ``sample_<sampler_name>`` of :mod:`comfy.k_diffusion.sampling`, where packs add theirs. Raises ``ValueError``."""
    function = getattr(k_diffusion_sampling, f"sample_{sampler_name}", None)
    if function is None:
        raise ValueError(f"there is no sampler {sampler_name!r}; known: {', '.join(SAMPLER_NAMES)}")
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


def calculate_sigmas(model_sampling: Any, scheduler_name: str, steps: int) -> Tensor:
    """Descending sigmas of the named scheduler, on the CPU. Packs replace this. Raises ``ValueError`` for an unknown name."""
    if scheduler_name not in SCHEDULER_HANDLERS:
        raise ValueError(f"there is no scheduler {scheduler_name!r}; known: {', '.join(SCHEDULER_HANDLERS)}")
    handler, use_ms = SCHEDULER_HANDLERS[scheduler_name]
    if use_ms:
        return handler(model_sampling, steps)
    return handler(n=steps, sigma_min=float(model_sampling.sigma_min), sigma_max=float(model_sampling.sigma_max))


def process_conds(
    model: Any,
    noise: Tensor,
    conds: dict[str, Any],
    device: Any,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    seed: int | None = None,
    latent_shapes: Any = None,
) -> dict[str, Any]:
    """See :func:`comfy.sampling.cond_preparation.prepare`."""
    return comfy.sampling.cond_preparation.prepare(model, noise, conds, device, latent_image, denoise_mask, seed, latent_shapes)


class CFGGuider:
    """Runs one sampling of a model with classifier-free guidance; subclasses override :meth:`predict_noise`.

    Samplers call the guider itself as the model. ``inner_model`` and ``conds`` exist while it samples.
    """

    def __init__(self, model_patcher: Any) -> None:
        self.model_patcher = model_patcher
        self.model_options = model_patcher.model_options
        self.original_conds: dict[str, list[Options]] = {}
        self.cfg = 1.0

    def set_conds(self, positive: Any, negative: Any) -> None:
        """Set both sides of guidance, as nodes pass conditioning."""
        self.inner_set_conds({"positive": positive, "negative": negative})

    def set_cfg(self, cfg: float) -> None:
        """Set the guidance scale."""
        self.cfg = cfg

    def inner_set_conds(self, conds: dict[str, Any]) -> None:
        """Set named lists of conditioning, as nodes pass it."""
        for name, cond in conds.items():
            self.original_conds[name] = comfy.sampler_helpers.convert_cond(cond)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """See :meth:`outer_predict_noise`."""
        return self.outer_predict_noise(*args, **kwargs)

    def outer_predict_noise(self, x: Tensor, timestep: Tensor, model_options: Options | None = None, seed: int | None = None) -> Tensor:
        """The guided picture, through the PREDICT_NOISE wrappers."""
        options = {} if model_options is None else model_options
        return self._wrapped(self.predict_noise, "PREDICT_NOISE", self.model_options).execute(x, timestep, options, seed)

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Options | None = None, seed: int | None = None) -> Tensor:
        """The guided picture (despite the name) for *x* at sigmas *timestep*."""
        options = {} if model_options is None else model_options
        return sampling_function(
            self.inner_model,
            x,
            timestep,
            self.conds.get("negative"),
            self.conds.get("positive"),
            self.cfg,
            model_options=options,
            seed=seed,
        )

    def _wrapped(self, method: Callable[..., Any], kind: str, options: Options, owner: Any = None) -> Any:
        wrappers = comfy.patcher_extension.get_all_wrappers(
            getattr(comfy.patcher_extension.WrappersMP, kind), options, is_model_options=True
        )
        return comfy.patcher_extension.WrapperExecutor.new_class_executor(method, self if owner is None else owner, wrappers)

    def inner_sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        device: Any,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None,
        callback: Callable[..., None] | None,
        disable_pbar: bool,
        seed: int | None,
        latent_shapes: Any = None,
    ) -> Tensor:
        """Sample with the model loaded: between the autoencoder's latents, through the SAMPLER_SAMPLE wrappers."""
        self.inner_model.latent_shapes = latent_shapes
        if latent_image is not None and torch.count_nonzero(latent_image) > 0:  # an empty latent stays zero in either scale
            latent_image = self.inner_model.process_latent_in(latent_image)
        self.conds = process_conds(
            self.inner_model, noise, self.conds, device, latent_image, denoise_mask, seed, latent_shapes=latent_shapes
        )
        options = create_model_options_clone(self.model_options)
        options.setdefault("transformer_options", {})["sample_sigmas"] = sigmas
        executor = self._wrapped(sampler.sample, "SAMPLER_SAMPLE", options, sampler)
        samples = executor.execute(
            self, sigmas, {"model_options": options, "seed": seed}, callback, noise, latent_image, denoise_mask, disable_pbar
        )
        return self.inner_model.process_latent_out(samples.to(torch.float32))

    def outer_sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Callable[..., None] | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
        latent_shapes: Any = None,
    ) -> Tensor:
        """Load the models, sample, and clean up."""
        self.inner_model, self.conds, self.loaded_models = comfy.sampler_helpers.prepare_sampling(
            self.model_patcher, noise.shape, self.conds, self.model_options
        )
        device = self.model_patcher.load_device
        try:
            noise, latent_image = (tensor.to(device=device, dtype=torch.float32) for tensor in (noise, latent_image))
            cast_to_load_options(self.model_options, device=device, dtype=self.model_patcher.model_dtype())
            self.model_patcher.pre_run()
            path = (device, sampler, sigmas.to(device), denoise_mask)
            return self.inner_sample(noise, latent_image, *path, callback, disable_pbar, seed, latent_shapes=latent_shapes)
        finally:
            self.model_patcher.cleanup()
            comfy.sampler_helpers.cleanup_models(self.conds, self.loaded_models)
            del self.inner_model, self.loaded_models

    def sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Callable[..., None] | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """Sample through the OUTER_SAMPLE wrappers; without sigmas *latent_image* comes back. The guider can be used again."""
        if sigmas.shape[-1] == 0:
            return latent_image
        if denoise_mask is not None:
            device = self.model_patcher.load_device
            denoise_mask = comfy.sampler_helpers.prepare_mask(denoise_mask, latent_image.shape, device).float()
        self.conds = {name: [cond.copy() for cond in conds] for name, conds in self.original_conds.items()}
        preprocess_conds_hooks(self.conds)
        original_options, original_hook_mode = self.model_options, self.model_patcher.hook_mode
        try:
            self.model_options = create_model_options_clone(original_options)
            if get_total_hook_groups_in_conds(self.conds) <= 1:  # hooked weights are then made once; keeping copies has no use
                self.model_patcher.hook_mode = hooks_of_models.EnumHookMode.MinVram
            comfy.sampler_helpers.prepare_model_patcher(self.model_patcher, self.conds, self.model_options)
            filter_registered_hooks_on_conds(self.conds, self.model_options)
            executor = self._wrapped(self.outer_sample, "OUTER_SAMPLE", self.model_options)
            return executor.execute(
                noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, latent_shapes=[latent_image.shape]
            )
        finally:
            cast_to_load_options(self.model_options, device=self.model_patcher.offload_device)
            self.model_options, self.model_patcher.hook_mode = original_options, original_hook_mode
            self.model_patcher.restore_hook_patches()
            del self.conds


def sample(
    model: Any,
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
        model: Any,
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
