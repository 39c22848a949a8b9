"""Normalisation by the root mean square, as layers and functions of transformers use it."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

RMSNorm = torch.nn.RMSNorm


def rms_norm(x: torch.Tensor, weight: torch.Tensor | None = None, eps: float | None = 1e-6) -> torch.Tensor:
    """*x* normalised over its last dimension and scaled by *weight*, which is brought to its device and dtype first."""
    if weight is None:
        return F.rms_norm(x, x.shape[-1:], eps=eps)
    return F.rms_norm(x, weight.shape, weight=weight.to(x), eps=eps)
