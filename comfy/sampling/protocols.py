"""What the sampling code needs of models, their patchers and their noise schedules; annotations only.

Node packs pass objects of their own, so nothing here is checked at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.hooks.base import HookGroup
    from comfy.hooks.enums import EnumHookMode

Options = dict[str, Any]


class ModelSampling(Protocol):
    """A model's sampling object (:mod:`comfy.model_sampling`): its noise schedule, and how it scales noise."""

    @property
    def sigmas(self) -> Tensor:
        """The table of noise levels, ascending, float32."""

    @property
    def sigma_min(self) -> Tensor:
        """The lowest level."""

    @property
    def sigma_max(self) -> Tensor:
        """The highest level."""

    def sigma(self, timestep: Tensor) -> Tensor:
        """The level at the model's time *timestep*."""

    def timestep(self, sigma: Tensor) -> Tensor:
        """The model's time at the level *sigma*."""

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor | None, max_denoise: bool = False) -> Tensor:
        """*latent_image* with *noise* of the level *sigma*; with *max_denoise* nothing of it is left."""

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """The latent that :meth:`noise_scaling` scaled."""

    def percent_to_sigma(self, percent: float) -> float:
        """The level after the share *percent* (0 to 1) of the sampling."""


class SampledPatcher(Protocol):
    """A ``ModelPatcher`` as a sampling uses it."""

    model_options: Options
    hook_mode: EnumHookMode
    wrappers: Options
    callbacks: Options

    @property
    def model(self) -> Any:
        """The module (a :class:`SampledModel`)."""

    @property
    def load_device(self) -> Any:
        """The device that the model computes on."""

    @property
    def offload_device(self) -> Any:
        """The device that the model waits on."""

    def get_nested_additional_models(self) -> list[Any]:
        """The patchers that must be loaded beside this one."""

    def model_dtype(self) -> Any:
        """The dtype of the weights, or None where the model does not know it."""

    def get_model_object(self, name: str) -> Any:
        """The object at the attribute path *name*, with this patcher's object patches."""

    def pre_run(self) -> None:
        """Prepare for a sampling."""

    def cleanup(self) -> None:
        """Drop what was kept for a sampling."""

    def prepare_state(self, timestep: Tensor, model_options: Options) -> None:
        """Prepare for a step."""

    def prepare_hook_patches_current_keyframe(self, t: Tensor, hook_group: HookGroup, model_options: Options) -> None:
        """Move the hooks to the keyframe that holds at sigma *t*."""

    def apply_hooks(self, hooks: HookGroup | None) -> Options:
        """Give the weights the patches of *hooks*; returns the transformer options that they add."""

    def restore_hook_patches(self) -> None:
        """Take back what :meth:`register_all_hook_patches` registered."""

    def register_all_hook_patches(
        self, hooks: HookGroup, target_dict: dict[str, Any], model_options: Options | None = None, registered: HookGroup | None = None
    ) -> HookGroup:
        """Register the weight hooks of *hooks*; returns all registered hooks."""


class SampledModel(Protocol):
    """A loaded model (``BaseModel``) as a sampling uses it."""

    current_patcher: Any
    latent_shapes: Any

    @property
    def model_sampling(self) -> ModelSampling:
        """The model's schedule."""

    def apply_model(self, x: Tensor, t: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """The denoised picture of latents *x* (B×C×spatial) at sigmas *t* (B)."""

    def memory_required(self, input_shape: Sequence[int], cond_shapes: Mapping[str, Any] | None = None) -> float:
        """Bytes of working memory of one call."""

    def process_latent_in(self, latent: Tensor) -> Tensor:
        """*latent* in the model's scale."""

    def process_latent_out(self, latent: Tensor) -> Tensor:
        """*latent* in the autoencoder's scale."""

    def scale_latent_inpaint(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, **options: Any) -> Tensor:
        """*latent_image* with noise of the level *sigma*."""


class GuidedModel(Protocol):
    """A guider as samplers call it."""

    @property
    def inner_model(self) -> SampledModel:
        """The loaded model."""

    @property
    def model_patcher(self) -> SampledPatcher:
        """The model's patcher."""

    def __call__(self, x: Tensor, sigma: Tensor, **options: Any) -> Tensor:
        """The guided picture of latents *x* at sigmas *sigma* (B)."""


class NoiseNames(Protocol):
    """A module with the kinds of noise that solvers add."""

    @property
    def default_noise_sampler(self) -> Callable[..., Any]:
        """Makes a function that draws independent noise."""

    @property
    def BrownianTreeNoiseSampler(self) -> Callable[..., Any]:  # noqa: N802 - the name node packs replace
        """Makes a function that draws Brownian noise."""

    @property
    def torch(self) -> Any:
        """torch, or what a pack put in its place to draw noise its own way."""


class Denoiser(Protocol):
    """The model as solvers call it: a guider behind the mask (``KSamplerX0Inpaint``)."""

    @property
    def inner_model(self) -> GuidedModel:
        """The guider."""

    def __call__(self, x: Tensor, sigma: Tensor, **options: Any) -> Tensor:
        """The denoised picture of latents *x* at sigmas *sigma* (B); *options* are the solver's ``extra_args``."""


SolverCallback = Callable[[dict[str, Any]], None]
