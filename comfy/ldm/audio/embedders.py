"""Times in seconds as what Stable Audio's network takes, in ComfyUI's tree and published weight names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from comfy.families.published_weights import load_published
from comfy.families.weight_source import WeightSource
from comfy.placeholders import placeholders

FREQUENCIES = 128


class LearnedPositionalEmbedding(torch.nn.Module):
    """A number, and sines and cosines of learned frequencies of it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.empty(dim // 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N to N x (1 + dim)."""
        angles = x[:, None] * self.weights * 2 * math.pi
        return torch.cat((x[:, None], angles.sin(), angles.cos()), dim=-1)


class ExpoFourierFeatures(torch.nn.Module):
    """Numbers as cosines and sines of frequencies from *min_freq* to *max_freq*, each as many times the one before; nothing is learned."""

    def __init__(self, dim: int, min_freq: float = 0.5, max_freq: float = 10000.0) -> None:
        super().__init__()
        self.dim, self.min_freq, self.max_freq = dim, min_freq, max_freq

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        """N, or N x 1, to N x dim."""
        numbers = t.float().reshape(len(t), 1)
        lowest, highest = math.log(self.min_freq), math.log(self.max_freq)
        frequencies = torch.exp(torch.linspace(0, 1, self.dim // 2, device=t.device) * (highest - lowest) + lowest)
        angles = numbers * frequencies * 2 * math.pi
        return torch.cat((angles.cos(), angles.sin()), dim=-1).to(t.dtype)


class NumberEmbedder(torch.nn.Module):
    """Numbers as vectors of *features* values, by frequencies that are learned, or not ("expo")."""

    def __init__(self, features: int, dim: int = 2 * FREQUENCIES, fourier_features_type: str = "learned") -> None:
        super().__init__()
        if fourier_features_type == "expo":
            self.embedding = torch.nn.Sequential(ExpoFourierFeatures(dim), torch.nn.Linear(dim, features))
        else:
            self.embedding = torch.nn.Sequential(LearnedPositionalEmbedding(dim), torch.nn.Linear(dim + 1, features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N to N x features."""
        return self.embedding(x)


class NumberConditioner(torch.nn.Module):
    """Numbers from *min_val* to *max_val* (others count as the nearest) as tokens. In float32, whatever the network is kept in."""

    def __init__(self, output_dim: int, min_val: float = 0, max_val: float = 1, fourier_features_type: str = "learned") -> None:
        super().__init__()
        self.min_val, self.max_val = min_val, max_val
        with torch.device("meta"):
            self.embedder = NumberEmbedder(output_dim, fourier_features_type=fourier_features_type)
        self.requires_grad_(False)

    def load_weights(self, source: WeightSource, what: str) -> None:
        """Take the weights from *source* (no prefix); *what* names the component. Raises ``ModelFileError``."""
        load_published(self, source, torch.float32, what)

    def forward(self, floats: Sequence[float], device: Any = None) -> list[torch.Tensor]:
        """[tokens N x 1 x values, ones N x 1]."""
        on: Any = self.embedder.embedding[1].weight.device if device is None else device
        numbers = torch.tensor([float(number) for number in floats], device=on).clamp(self.min_val, self.max_val)
        tokens = self.embedder((numbers - self.min_val) / (self.max_val - self.min_val))[:, None]
        return [tokens, torch.ones(len(tokens), 1, device=on)]


__getattr__, __dir__ = placeholders(__name__, "Stable Audio models", "TimePositionalEmbedding() Conditioner")
