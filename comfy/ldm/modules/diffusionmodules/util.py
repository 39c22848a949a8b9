"""Names that node packs import from here: those of SD's networks live where they are used, the small ones are here."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.utils.checkpoint

from comfy.families.timestep_embedding import timestep_embedding
from comfy.model_sampling import make_beta_schedule
from comfy.placeholders import placeholders

__all__ = [
    "AlphaBlender",
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

__getattr__, __dir__ = placeholders(__name__, "video models", "HybridConditioner")


class AlphaBlender(torch.nn.Module):
    """Mixes what a layer makes of each frame with what it makes of all: a share of the first, the rest of the second.

    *merge_strategy*: the share is *alpha* ("fixed"), learned ("learned"), or learned and all of it for pictures ("learned_with_images").
    *rearrange_pattern* says along which dimensions frames are; it ends with as many ones as follow them.
    """

    strategies = ("learned", "fixed", "learned_with_images")

    def __init__(self, alpha: float, merge_strategy: str = "learned_with_images", rearrange_pattern: str = "b t -> (b t) 1 1") -> None:
        super().__init__()
        if merge_strategy not in self.strategies:
            raise ValueError(f"unknown merge strategy {merge_strategy!r}; known: {', '.join(self.strategies)}")
        self.merge_strategy, self.rearrange_pattern = merge_strategy, rearrange_pattern
        share = torch.tensor([float(alpha)])
        if merge_strategy == "fixed":
            self.register_buffer("mix_factor", share)
        else:
            self.mix_factor = torch.nn.Parameter(share)

    def get_alpha(self, image_only_indicator: torch.Tensor | None, device: torch.device) -> torch.Tensor:
        """The share, broadcastable to the values; *image_only_indicator*: B x frames, 1 for pictures."""
        factor = self.mix_factor.to(device)
        share = factor if self.merge_strategy == "fixed" else torch.sigmoid(factor)
        if self.merge_strategy != "learned_with_images" or image_only_indicator is None:
            return share
        by_frame = torch.where(image_only_indicator.bool().to(device), 1.0, share)
        return by_frame[:, None, :, None, None] if "1 t" in self.rearrange_pattern else by_frame.reshape(-1, 1, 1)

    def forward(self, x_spatial: torch.Tensor, x_temporal: torch.Tensor, image_only_indicator: torch.Tensor | None = None) -> torch.Tensor:
        """Both mixed, in the first's dtype."""
        alpha = self.get_alpha(image_only_indicator, x_spatial.device).to(x_spatial.dtype)
        return alpha * x_spatial + (1.0 - alpha) * x_temporal


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
