"""Batch norm as models that are not trained any more have it."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.ops import cast_to_input


class FixedBatchNorm(torch.nn.Module):
    """Norms by the figures of training, which are parameters here: files hold them as they do weights. Computes in its input's dtype."""

    weight: torch.nn.Parameter
    bias: torch.nn.Parameter
    running_mean: torch.nn.Parameter
    running_var: torch.nn.Parameter

    def __init__(self, channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = torch.empty(channels, device=device, dtype=dtype)
            self.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W."""
        mean, variance, weight, bias = (cast_to_input(value, x) for value in (self.running_mean, self.running_var, self.weight, self.bias))
        return F.batch_norm(x, mean, variance, weight, bias)
