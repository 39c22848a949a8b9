"""Rotary positions, as transformers of the Flux kind use them. Shapes: B batch, N tokens, D width of a head."""

import torch

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(__name__, "Flux models", "attention()")


def rope(pos: torch.Tensor, dim: int, theta: float) -> torch.Tensor:
    """The rotations of positions *pos* (B x N) over *dim* values: B x N x D/2 x 2 x 2, float32. Raises ``ValueError`` for an odd *dim*."""
    if dim % 2:
        raise ValueError(f"rotary positions turn pairs of values; {dim} is odd")
    exponents = torch.linspace(0, (dim - 2) / dim, dim // 2, dtype=torch.float64, device=pos.device)
    angles = pos.double().unsqueeze(-1) * theta**-exponents
    cosines, sines = angles.cos(), angles.sin()
    return torch.stack([torch.stack([cosines, -sines], -1), torch.stack([sines, cosines], -1)], -2).float()


def apply_rope1(x: torch.Tensor, freqs_cis: torch.Tensor) -> torch.Tensor:
    """*x* (… x N x D) with each pair of neighbouring values turned by *freqs_cis*; in *x*'s dtype."""
    pairs = x.to(freqs_cis.dtype).unflatten(-1, (-1, 1, 2))
    turned = freqs_cis[..., 0] * pairs[..., 0] + freqs_cis[..., 1] * pairs[..., 1]
    return turned.flatten(-2).type_as(x)


def apply_rope(xq: torch.Tensor, xk: torch.Tensor, freqs_cis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys, both turned; see :func:`apply_rope1`."""
    return apply_rope1(xq, freqs_cis), apply_rope1(xk, freqs_cis)
