"""The base of all controls: hint, strength and range of a control, and the chain of controls before it."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch

if TYPE_CHECKING:
    from comfy.hooks.base import HookGroup
    from comfy.sampling.protocols import SampledModel

log = logging.getLogger(__name__)

Residuals = dict[str, list[torch.Tensor | None]]
PARTS = ("input", "middle", "output")


class StrengthType(enum.Enum):
    """How strength scales the residuals: all equally, or early (fine) ones less."""

    CONSTANT = 1
    LINEAR_UP = 2


def broadcast_image_to(tensor: torch.Tensor, target_batch_size: int, batched_number: int) -> torch.Tensor:
    """Hints for a model call with *batched_number* conditionings: repeated or cut per conditioning, then joined in order.

    A single hint is returned unchanged, because it broadcasts.
    """
    if tensor.shape[0] == 1:
        return tensor
    per_cond = target_batch_size // batched_number
    rows = torch.arange(per_cond, device=tensor.device) % tensor.shape[0]
    hints = tensor[rows]
    return hints if len(hints) == target_batch_size else torch.cat([hints] * batched_number)


def _unchanged(image: torch.Tensor) -> torch.Tensor:
    return image


class ControlBase:
    """A control in conditioning. ``previous_controlnet`` is the next control of the chain, whose residuals are added.

    Used by the sampler's thread only. Subclasses define :meth:`get_control` and :meth:`copy`.
    """

    def __init__(self) -> None:
        self.cond_hint_original: torch.Tensor | None = None
        self.cond_hint: torch.Tensor | None = None
        self.strength = 1.0
        self.timestep_percent_range = (0.0, 1.0)
        self.latent_format: Any = None
        self.vae: Any = None
        self.global_average_pooling = False
        self.timestep_range: tuple[float, float] | None = None
        self.compression_ratio = 8
        self.upscale_algorithm = "nearest-exact"
        self.extra_args: dict[str, Any] = {}
        self.previous_controlnet: ControlBase | None = None
        self.extra_conds: list[str] = []
        self.strength_type = StrengthType.CONSTANT
        self.concat_mask = False
        self.extra_concat_orig: list[torch.Tensor] = []
        self.extra_concat: Any = None
        self.extra_hooks: HookGroup | None = None
        self.preprocess_image: Callable[[torch.Tensor], torch.Tensor] = _unchanged

    def set_cond_hint(
        self,
        cond_hint: torch.Tensor,
        strength: float = 1.0,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
        vae: Any = None,
        extra_concat: Sequence[torch.Tensor] = (),
    ) -> Self:
        """Set the hint pictures (B×C×H×W in 0…1), the strength, and the part of the sampling (0…1) in which it acts. Returns self."""
        self.cond_hint_original = cond_hint
        self.strength = strength
        self.timestep_percent_range = timestep_percent_range
        if self.latent_format is not None:
            if vae is None:
                log.warning("this control works on latents of its hint; connect a VAE to the node that applies it")
            self.vae = vae
        self.extra_concat_orig = list(extra_concat)
        if self.concat_mask and not self.extra_concat_orig:
            self.extra_concat_orig = [torch.ones(1, 1, 1, 1)]
        return self

    def set_previous_controlnet(self, controlnet: ControlBase | None) -> Self:
        """Chain *controlnet* before this one. Returns self."""
        self.previous_controlnet = controlnet
        return self

    def set_extra_arg(self, argument: str, value: Any = None) -> None:
        """Pass *argument* to the network at every call."""
        self.extra_args[argument] = value

    def pre_run(self, model: SampledModel, percent_to_timestep_function: Callable[[float], float]) -> None:
        """Prepare the chain for a sampling of *model*."""
        start, end = self.timestep_percent_range
        self.timestep_range = percent_to_timestep_function(start), percent_to_timestep_function(end)
        if self.previous_controlnet is not None:
            self.previous_controlnet.pre_run(model, percent_to_timestep_function)

    def cleanup(self) -> None:
        """Drop the data that the chain kept for one sampling."""
        if self.previous_controlnet is not None:
            self.previous_controlnet.cleanup()
        self.cond_hint = self.extra_concat = self.timestep_range = None

    def get_models(self) -> list[Any]:
        """The patchers of the chain that must be loaded."""
        return [] if self.previous_controlnet is None else self.previous_controlnet.get_models()

    def get_extra_hooks(self) -> list[HookGroup]:
        """The hooks of the chain."""
        own = [] if self.extra_hooks is None else [self.extra_hooks]
        return own if self.previous_controlnet is None else own + self.previous_controlnet.get_extra_hooks()

    def inference_memory_requirements(self, dtype: Any) -> float:
        """Bytes of working memory that the chain needs beyond the model's."""
        return 0 if self.previous_controlnet is None else self.previous_controlnet.inference_memory_requirements(dtype)

    def copy_to(self, c: ControlBase) -> None:
        """Give *c* this control's settings; the chain is not copied."""
        for name in (
            "cond_hint_original",
            "strength",
            "timestep_percent_range",
            "global_average_pooling",
            "compression_ratio",
            "upscale_algorithm",
            "latent_format",
            "vae",
            "strength_type",
            "concat_mask",
            "preprocess_image",
        ):
            setattr(c, name, getattr(self, name))
        c.extra_args = self.extra_args.copy()
        c.extra_conds = self.extra_conds.copy()
        c.extra_concat_orig = self.extra_concat_orig.copy()
        c.extra_hooks = self.extra_hooks.clone() if self.extra_hooks else None

    def copy(self) -> ControlBase:
        """A control of the same network and settings, without the chain."""
        raise NotImplementedError(f"{type(self).__name__} must define copy()")

    def get_control(
        self, x_noisy: torch.Tensor, t: torch.Tensor, cond: dict[str, Any], batched_number: int, transformer_options: dict[str, Any]
    ) -> Residuals | None:
        """The chain's residuals for a model call on *x_noisy* (B×C×H×W) at sigmas *t* (B); None when no control is active."""
        raise NotImplementedError(f"{type(self).__name__} must define get_control()")

    def is_active_at(self, t: torch.Tensor) -> bool:
        """Whether sigma *t* lies in the part of the sampling in which the control acts."""
        return self.timestep_range is None or bool(self.timestep_range[0] >= t[0] >= self.timestep_range[1])

    def control_merge(self, control: Residuals, control_prev: Residuals | None, output_dtype: torch.dtype | None) -> Residuals:
        """*control* with strength applied (in place), in *output_dtype* if given, plus *control_prev*."""
        merged: Residuals = {part: [] for part in PARTS}
        for part, residuals in control.items():
            scaled: set[int] = set()  # one tensor may be used in several places
            for number, residual in enumerate(residuals):
                if residual is not None:
                    residual = self._scaled(residual, len(residuals) - number, residual_is_done=id(residual) in scaled)
                    scaled.add(id(residual))
                    residual = residual if output_dtype is None else residual.to(output_dtype)
                merged[part].append(residual)
        if control_prev is not None:
            for part in PARTS:
                merged[part] = _sums(merged[part], control_prev[part])
        return merged

    def _scaled(self, residual: torch.Tensor, steps_to_end: int, residual_is_done: bool) -> torch.Tensor:
        if self.global_average_pooling:
            residual = residual.mean(dim=(2, 3), keepdim=True).repeat(1, 1, *residual.shape[2:])
        elif residual_is_done:
            return residual
        residual *= self.strength if self.strength_type == StrengthType.CONSTANT else self.strength ** float(steps_to_end)
        return residual


def _sums(own: list[torch.Tensor | None], before: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
    length = max(len(own), len(before))
    pairs = zip(own + [None] * (length - len(own)), before + [None] * (length - len(before)))
    return [mine if theirs is None else theirs if mine is None else theirs + mine for mine, theirs in pairs]
