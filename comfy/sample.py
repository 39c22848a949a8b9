"""Sampling as nodes start it: first noise, empty latents in the model's shape, and the two entry points."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.samplers
import comfy.utils
from comfy import made_by
from comfy.lazy_import import lazy_module
from comfy.nested_tensor import NestedTensor
from comfy.sampling.noise import draw_noise

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from comfy.sampling.protocols import SampledPatcher

log = logging.getLogger(__name__)

torch = lazy_module("torch")
np = lazy_module("numpy")


def prepare_noise_inner(latent_image: Tensor, generator: Generator, noise_inds: Sequence[int] | None = None) -> Tensor:
    """Noise in the shape of *latent_image* from *generator*; see :func:`comfy.sampling.noise.draw_noise`."""
    return draw_noise(latent_image.shape, latent_image.dtype, latent_image.layout, generator, noise_inds)


def prepare_noise(latent_image: Tensor, seed: int, noise_inds: Sequence[int] | None = None) -> Tensor:
    """The noise a sampling of *latent_image* starts from, drawn on the CPU from *seed* alone.

    *noise_inds* holds one number per batch entry: entry *i* gets the noise that the number would have in a larger batch. Of several latents
    in one (:mod:`comfy.nested_tensor`) each draws from the same generator, in order.
    """
    generator = torch.manual_seed(seed)
    if latent_image.is_nested:
        return NestedTensor(prepare_noise_inner(part, generator, noise_inds) for part in latent_image.unbind())  # type: ignore[return-value]
    return prepare_noise_inner(latent_image, generator, noise_inds)


def prepare_empty_noise(latent_image: Tensor) -> Tensor:
    """Zeros on the CPU in the place of noise for *latent_image*."""
    if latent_image.is_nested:
        return NestedTensor(torch.zeros_like(part, device="cpu") for part in latent_image.unbind())  # type: ignore[return-value]
    return torch.zeros_like(latent_image, device="cpu")


def fix_empty_latent_channels(
    model: SampledPatcher, latent_image: Tensor, downscale_ratio_spacial: float | None = None, downscale_ratio_temporal: float | None = None
) -> Tensor:
    """Bring an all-zero latent to the channels and scale of *model*; the ratios say what the latent was made for.

    A latent that holds a picture only gains the time dimension that video models want. Several latents in one stay as they are.
    """
    if latent_image.is_nested:
        return latent_image
    latent_format = model.get_model_object("latent_format")
    is_empty = torch.count_nonzero(latent_image) == 0
    if is_empty and latent_format.latent_channels != latent_image.shape[1]:
        latent_image = comfy.utils.repeat_to_batch_size(latent_image, latent_format.latent_channels, dim=1)
    if is_empty and downscale_ratio_spacial not in (None, latent_format.spacial_downscale_ratio):
        ratio = downscale_ratio_spacial / latent_format.spacial_downscale_ratio
        height, width = (round(length * ratio) for length in latent_image.shape[-2:])
        latent_image = comfy.utils.common_upscale(latent_image, width, height, "nearest-exact", crop="disabled")
    if latent_format.latent_dimensions == 3 and latent_image.ndim == 4:
        latent_image = latent_image.unsqueeze(2)
    if is_empty and downscale_ratio_temporal not in (None, latent_format.temporal_downscale_ratio):
        frames = latent_image.shape[2] * downscale_ratio_temporal / latent_format.temporal_downscale_ratio
        latent_image = comfy.utils.repeat_to_batch_size(latent_image, max(1, round(frames)), dim=2)
    return latent_format.fix_empty_latent(latent_image) if is_empty else latent_image


def sample(
    model: SampledPatcher,
    noise: Tensor,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Any,
    negative: Any,
    latent_image: Tensor,
    denoise: float = 1.0,
    disable_noise: bool = False,
    start_step: int | None = None,
    last_step: int | None = None,
    force_full_denoise: bool = False,
    noise_mask: Tensor | None = None,
    sigmas: Tensor | None = None,
    callback: Callable[..., None] | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    """Sample with a named sampler and scheduler; the result is an autoencoder latent on the intermediate device.

    *disable_noise* has no effect here: the caller passes zeros as *noise*.
    """
    sampler = comfy.samplers.KSampler(
        model,
        steps=steps,
        device=model.load_device,
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=denoise,
        model_options=model.model_options,
    )
    samples = sampler.sample(
        noise,
        positive,
        negative,
        cfg=cfg,
        latent_image=latent_image,
        start_step=start_step,
        last_step=last_step,
        force_full_denoise=force_full_denoise,
        denoise_mask=noise_mask,
        sigmas=sigmas,
        callback=callback,
        disable_pbar=disable_pbar,
        seed=seed,
    )
    return _result(samples, model)


def sample_custom(
    model: SampledPatcher,
    noise: Tensor,
    cfg: float,
    sampler: Any,
    sigmas: Tensor,
    positive: Any,
    negative: Any,
    latent_image: Tensor,
    noise_mask: Tensor | None = None,
    callback: Callable[..., None] | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    """Sample with a sampler object over given sigmas; the result is an autoencoder latent on the intermediate device."""
    samples = comfy.samplers.sample(
        model,
        noise,
        positive,
        negative,
        cfg,
        model.load_device,
        sampler,
        sigmas,
        model_options=model.model_options,
        latent_image=latent_image,
        denoise_mask=noise_mask,
        callback=callback,
        disable_pbar=disable_pbar,
        seed=seed,
    )
    return _result(samples, model)


def _result(samples: Tensor, model: SampledPatcher) -> Tensor:
    """*samples* where and as intermediate results are kept, with the mark of the *model* that made them."""
    management = comfy.model_management
    kept = samples.to(device=management.intermediate_device(), dtype=management.intermediate_dtype())
    return made_by.mark_latent(kept, model.model)


def prepare_sampling(model: Any, noise_shape: Sequence[int], positive: Any, negative: Any, noise_mask: Any) -> tuple[Any, ...]:
    """Deprecated: does nothing any more."""
    log.warning("comfy.sample.prepare_sampling does nothing any more; remove the call")
    return model, positive, negative, noise_mask, []


def cleanup_additional_models(models: Any) -> None:
    """Deprecated: does nothing any more."""
    log.warning("comfy.sample.cleanup_additional_models does nothing any more; remove the call")
