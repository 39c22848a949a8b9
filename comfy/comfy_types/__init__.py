"""Annotations for V1 nodes and for functions that wrap a model's application."""

from collections.abc import Callable
from typing import Any, Protocol, TypedDict

from .node_typing import IO, CheckLazyMixin, ComfyNodeABC, FileLocator, InputTypeDict

__all__ = [
    "IO", "CheckLazyMixin", "ComfyNodeABC", "FileLocator", "InputTypeDict", "UnetApplyConds", "UnetApplyFunction", "UnetParams",
    "UnetWrapperFunction",
]  # fmt: skip


class UnetApplyFunction(Protocol):
    """``BaseModel.apply_model``: noisy latents *x* at noise levels *t* to denoised ones, all tensors."""

    def __call__(self, x: Any, t: Any, **kwargs: Any) -> Any:
        """Apply the model."""


class UnetApplyConds(TypedDict):
    """Conditioning tensors of one application, or None."""

    c_concat: Any
    c_crossattn: Any
    control: Any
    transformer_options: dict | None


class UnetParams(TypedDict):
    """Arguments of a wrapper: ``input`` [batch, channel, height, width], ``timestep`` [batch]; ``cond_or_uncond`` holds 0 for each
    conditional and 1 for each unconditional part of the batch."""

    input: Any
    timestep: Any
    c: UnetApplyConds
    cond_or_uncond: list[int]


UnetWrapperFunction = Callable[[UnetApplyFunction, UnetParams], Any]
