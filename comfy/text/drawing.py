"""Choosing the next token of a text by how likely each is."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Choice:
    """How a token is chosen: among the *top_k* likeliest (0: all), those at least *min_p* times as likely as the likeliest, and the
    likeliest that together make *top_p*; with *temperature* 0 the likeliest.
    """

    temperature: float = 0.85
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0

    def restricted(self, scores: torch.Tensor) -> torch.Tensor:
        """*scores* (texts x tokens, before softmax) with the lowest number for tokens that are out of the question; a new tensor."""
        lowest = torch.finfo(scores.dtype).min
        if self.top_k > 0:
            worst = scores.topk(min(self.top_k, scores.shape[-1])).values[..., -1:]
            scores = scores.masked_fill(scores < worst, lowest)
        if self.min_p > 0:
            shares = scores.softmax(dim=-1)
            scores = scores.masked_fill(shares < self.min_p * shares.amax(dim=-1, keepdim=True), lowest)
        if self.top_p < 1.0:
            ordered, places = scores.sort(descending=True)
            before = ordered.softmax(dim=-1).cumsum(dim=-1).roll(1, dims=-1)
            before[..., 0] = 0.0
            beyond = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, places, before > self.top_p)
            scores = scores.masked_fill(beyond, lowest)
        return scores
