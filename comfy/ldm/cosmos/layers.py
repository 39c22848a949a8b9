"""Layers that the networks of Cosmos 1 and Cosmos-Predict2 share, with ComfyUI's names.

Shapes: B batch, N tokens, C channels, H heads, D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch

Options = dict[str, Any]
EPS = 1e-6


class GPT2FeedForward(torch.nn.Module):
    """Two linear layers without biases, GELU between them."""

    def __init__(self, d_model: int, d_ff: int, device: Any = None, dtype: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.activation = torch.nn.GELU()
        self.layer1 = operations.Linear(d_model, d_ff, bias=False, device=device, dtype=dtype)
        self.layer2 = operations.Linear(d_ff, d_model, bias=False, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, C)."""
        return self.layer2(self.activation(self.layer1(x)))


def rotated_halves(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """*x* (B x N x H x D), whose first half pairs with its second, turned by *turns* (N x D/2 x 2 x 2)."""
    first, second = x.float().chunk(2, dim=-1)
    a, b, c, d = turns.flatten(-2).unsqueeze(-3).unbind(-1)
    return torch.cat((a * first + b * second, c * first + d * second), dim=-1).to(x.dtype)


def modulation(width: int, parts: int, use_lora: bool, lora: int, kept: Options, operations: Any) -> torch.nn.Sequential:
    """SiLU and the layer, or the two narrow layers, that make *parts* vectors of *width* of the embedded time."""
    if not use_lora:
        return torch.nn.Sequential(torch.nn.SiLU(), operations.Linear(width, parts * width, bias=False, **kept))
    narrow = operations.Linear(width, lora, bias=False, **kept), operations.Linear(lora, parts * width, bias=False, **kept)
    return torch.nn.Sequential(torch.nn.SiLU(), *narrow)


def of_time(layer: torch.nn.Module, emb: torch.Tensor, shared: torch.Tensor | None, width: int, parts: int) -> tuple[torch.Tensor, ...]:
    """*parts* vectors of *width* that *layer* makes of the embedded time *emb* (B x F x C), and of what all share: B x F x 1 x 1 x C."""
    made = layer(emb)
    if shared is not None:
        made = made + shared[..., : parts * width]
    return made[:, :, None, None].chunk(parts, dim=-1)


def modulated(x: torch.Tensor, norm: torch.nn.Module, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """*x*, normalised by *norm*, scaled and shifted by what was made of the embedded time."""
    return norm(x) * (1 + scale) + shift
