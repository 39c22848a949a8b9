"""Names that node packs import from here: those of SD's networks live where they are used, the small ones are here."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.utils.checkpoint

from comfy.families.timestep_embedding import timestep_embedding
from comfy.model_sampling import make_beta_schedule
from comfy.placeholders import placeholders

__all__ = [
    "avg_pool_nd",
    "checkpoint",
    "extract_into_tensor",
    "make_beta_schedule",
    "mean_flat",
    "noise_like",
    "scale_module",
    "timestep_embedding",
    "zero_module",
]

__getattr__, __dir__ = placeholders(__name__, "video models", "AlphaBlender HybridConditioner")


def checkpoint(func: Callable[..., Any], inputs: Sequence[Any], params: Any, flag: bool) -> Any:
    """``func(*inputs)``; with *flag*, and while gradients are recorded, intermediate values are computed again instead of kept."""
    if flag and torch.is_grad_enabled():
        return torch.utils.checkpoint.checkpoint(func, *inputs, use_reentrant=False)
    return func(*inputs)


def zero_module(module: torch.nn.Module) -> torch.nn.Module:
    """*module*, with all its parameters set to zero."""
    return scale_module(module, 0)


def scale_module(module: torch.nn.Module, scale: float) -> torch.nn.Module:
    """*module*, with all its parameters multiplied by *scale*."""
    for parameter in module.parameters():
        if scale == 0:
            parameter.detach().zero_()
        else:
            parameter.detach().mul_(scale)
    return module


def mean_flat(tensor: torch.Tensor) -> torch.Tensor:
    """One mean per batch entry."""
    return tensor.flatten(1).mean(1)


def avg_pool_nd(dims: int, *args: Any, **kwargs: Any) -> torch.nn.Module:
    """A layer that averages over windows of 1, 2 or 3 dimensions. Raises ``ValueError`` for another number."""
    kinds = {1: torch.nn.AvgPool1d, 2: torch.nn.AvgPool2d, 3: torch.nn.AvgPool3d}
    if dims not in kinds:
        raise ValueError(f"no average over {dims} dimensions")
    return kinds[dims](*args, **kwargs)


def extract_into_tensor(a: torch.Tensor, t: torch.Tensor, x_shape: Sequence[int]) -> torch.Tensor:
    """The entries of table *a* at steps *t*, one per batch entry, in a shape that broadcasts against *x_shape*."""
    return a.gather(-1, t).reshape(t.shape[0], *(1,) * (len(x_shape) - 1))


def noise_like(shape: Sequence[int], device: Any, repeat: bool = False) -> torch.Tensor:
    """Normal noise of *shape* on *device*; with *repeat* the same for each batch entry."""
    if not repeat:
        return torch.randn(shape, device=device)
    return torch.randn((1, *shape[1:]), device=device).repeat(shape[0], *(1,) * (len(shape) - 1))
