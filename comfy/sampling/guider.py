"""The guider, which runs one sampling of a model with classifier-free guidance, from conditioning and noise to a latent.

:mod:`comfy.samplers` publishes it as ``CFGGuider``. Packs replace functions of that module, so the guider calls them through
``names``, which that module sets to itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import comfy.patcher_extension
import comfy.sampler_helpers
from comfy import made_by
from comfy.lazy_import import lazy_module
from comfy.nested_tensor import PackedLatents
from comfy.patching.model_options import create_model_options_clone
from comfy.residency.host_heap import activations_kept
from comfy.sampling.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Options, SampledModel, SampledPatcher

torch = lazy_module("torch")
hooks_of_models = lazy_module("comfy.hooks")


class SamplerNames(Protocol):
    """The functions that a guider calls by their current binding in :mod:`comfy.samplers`."""

    @property
    def sampling_function(self) -> Callable[..., Tensor]:
        """Computes the guided result of one step."""

    @property
    def process_conds(self) -> Callable[..., Options]:
        """Prepares conditioning for the model."""

    @property
    def preprocess_conds_hooks(self) -> Callable[[Options], None]:
        """Gives conditioning the hooks of its controls."""

    @property
    def get_total_hook_groups_in_conds(self) -> Callable[[Options], int]:
        """Counts the different groups of hooks."""

    @property
    def filter_registered_hooks_on_conds(self) -> Callable[[Options, Options], None]:
        """Removes hooks that were not registered."""

    @property
    def cast_to_load_options(self) -> Callable[..., None]:
        """Moves the tensors in the model options to a device."""


class Guider:
    """Runs one sampling of a model with classifier-free guidance; subclasses override :meth:`predict_noise`.

    Samplers call the guider itself as the model. ``inner_model`` and ``conds`` exist while it samples.
    """

    names: ClassVar[SamplerNames]
    inner_model: SampledModel
    conds: dict[str, Any]
    loaded_models: Any

    def __init__(self, model_patcher: SampledPatcher) -> None:
        self.model_patcher = model_patcher
        self.model_options = model_patcher.model_options
        self.original_conds: dict[str, list[Options]] = {}
        self.cfg = 1.0

    def set_conds(self, positive: Any, negative: Any) -> None:
        """Set both sides of guidance, in the form in which nodes pass conditioning."""
        self.inner_set_conds({"positive": positive, "negative": negative})

    def set_cfg(self, cfg: float) -> None:
        """Set the guidance scale."""
        self.cfg = cfg

    def inner_set_conds(self, conds: dict[str, Any]) -> None:
        """Set lists of conditioning by name, in the form in which nodes pass them."""
        for name, cond in conds.items():
            self.original_conds[name] = comfy.sampler_helpers.convert_cond(cond)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Do what :meth:`outer_predict_noise` does; samplers call the guider like a model."""
        return self.outer_predict_noise(*args, **kwargs)

    def outer_predict_noise(self, x: Tensor, timestep: Tensor, model_options: Options | None = None, seed: int | None = None) -> Tensor:
        """The guided result for *x* (B×C×spatial) at sigmas *timestep* (B), through the PREDICT_NOISE wrappers."""
        options = {} if model_options is None else model_options
        return self._wrapped(self.predict_noise, "PREDICT_NOISE", self.model_options).execute(x, timestep, options, seed)

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Options | None = None, seed: int | None = None) -> Tensor:
        """The guided denoised latent (despite the name) for *x* at sigmas *timestep*; shaped like *x*."""
        options = {} if model_options is None else model_options
        return self.names.sampling_function(
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
        """Sample with the loaded model through the SAMPLER_SAMPLE wrappers. Latents go in and come out in the autoencoder's scale."""
        self.inner_model.latent_shapes = latent_shapes
        if latent_image is not None and torch.count_nonzero(latent_image) > 0:  # zeros stay zeros in either scale
            latent_image = self.inner_model.process_latent_in(latent_image)
        self.conds = self.names.process_conds(
            self.inner_model, noise, self.conds, device, latent_image, denoise_mask, seed, latent_shapes=latent_shapes
        )
        options = create_model_options_clone(self.model_options)
        options.setdefault("transformer_options", {})["sample_sigmas"] = sigmas
        executor = self._wrapped(sampler.sample, "SAMPLER_SAMPLE", options, sampler)
        samples = executor.execute(
            self, sigmas, {"model_options": options, "seed": seed}, callback, noise, latent_image, denoise_mask, disable_pbar
        )
        return made_by.mark_latent(self.inner_model.process_latent_out(samples.to(torch.float32)), self.inner_model)

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
        """Load the models, sample on their device, and clean up. Raises what loading and sampling raise."""
        self.inner_model, self.conds, self.loaded_models = comfy.sampler_helpers.prepare_sampling(
            self.model_patcher, noise.shape, self.conds, self.model_options
        )
        device = self.model_patcher.load_device
        try:
            noise, latent_image = (tensor.to(device=device, dtype=torch.float32) for tensor in (noise, latent_image))
            self.names.cast_to_load_options(self.model_options, device=device, dtype=self.model_patcher.model_dtype())
            self.model_patcher.pre_run()
            path = (device, sampler, sigmas.to(device), denoise_mask)
            with activations_kept(device):
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
        """Sample *latent_image* with *noise* (both B×C×spatial) over descending *sigmas*, through the OUTER_SAMPLE wrappers.

        *denoise_mask* is 1 where the sampler may change the latent; *callback* gets (step, denoised latent, latent, steps). Without sigmas
        *latent_image* comes back. The guider can be used again. Several latents in one (:mod:`comfy.nested_tensor`) are sampled as one
        flat tensor; the callback and the caller get them apart again.
        """
        if sigmas.shape[-1] == 0:
            return latent_image
        parts = PackedLatents(latent_image)
        latent_image, noise = parts.packed(latent_image), parts.packed(noise)
        if denoise_mask is not None:
            denoise_mask = parts.mask(denoise_mask, self.model_patcher.load_device)
        self.conds = {name: [cond.copy() for cond in conds] for name, conds in self.original_conds.items()}
        self.names.preprocess_conds_hooks(self.conds)
        original_options, original_hook_mode = self.model_options, self.model_patcher.hook_mode
        try:
            self.model_options = create_model_options_clone(original_options)
            if (
                self.names.get_total_hook_groups_in_conds(self.conds) <= 1
            ):  # with one group, weights are patched once, so copies are useless
                self.model_patcher.hook_mode = hooks_of_models.EnumHookMode.MinVram
            comfy.sampler_helpers.prepare_model_patcher(self.model_patcher, self.conds, self.model_options)
            self.names.filter_registered_hooks_on_conds(self.conds, self.model_options)
            executor = self._wrapped(self.outer_sample, "OUTER_SAMPLE", self.model_options)
            path = (sampler, sigmas, denoise_mask, parts.callback(callback), disable_pbar, seed)
            return parts.apart(executor.execute(noise, latent_image, *path, latent_shapes=parts.shapes))
        finally:
            self.names.cast_to_load_options(self.model_options, device=self.model_patcher.offload_device)
            self.model_options, self.model_patcher.hook_mode = original_options, original_hook_mode
            self.model_patcher.restore_hook_patches()
            del self.conds
