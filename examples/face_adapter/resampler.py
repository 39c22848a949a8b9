"""From the embedding of a face to tokens: queries that are learned attend to it (https://arxiv.org/abs/2401.07519, section 3.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_CHANNELS = 64


class Attention(nn.Module):
    """Queries attend to what they are given and to themselves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        inner = heads * HEAD_CHANNELS
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q, self.to_kv = nn.Linear(width, inner, bias=False), nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, given: Tensor, queries: Tensor) -> Tensor:
        """*given* B x N x width, *queries* B x tokens x width; returns what to add to the queries."""
        given, queries = self.norm1(given), self.norm2(queries)
        keys, values = self.to_kv(torch.cat([given, queries], dim=1)).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, HEAD_CHANNELS)).transpose(1, 2) for part in (self.to_q(queries), keys, values))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """Layers of attention and a feed-forward network. Sizes follow from the file's tensors."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        """*tensors* by the file's names. Raises ``KeyError`` or ``RuntimeError`` when one is missing or does not fit."""
        super().__init__()
        _, count, width = tensors["latents"].shape
        depth = len({name.split(".")[1] for name in tensors if name.startswith("layers.")})
        heads = tensors["layers.0.0.to_q.weight"].shape[0] // HEAD_CHANNELS
        hidden, out = tensors["layers.0.1.1.weight"].shape[0], tensors["proj_out.weight"].shape[0]
        with torch.device("meta"):
            self.latents = nn.Parameter(torch.empty(1, count, width))
            self.proj_in, self.proj_out = nn.Linear(tensors["proj_in.weight"].shape[1], width), nn.Linear(width, out)
            self.norm_out = nn.LayerNorm(out)
            self.layers = nn.ModuleList(nn.ModuleList([Attention(width, heads), _feed_forward(width, hidden)]) for _ in range(depth))
        self.load_state_dict(tensors, assign=True)

    def forward(self, embedding: Tensor) -> Tensor:
        """*embedding* B x N x face channels; returns B x tokens x context width."""
        given = self.proj_in(embedding)
        queries = self.latents.expand(len(embedding), -1, -1)
        for attention, feed_forward in self.layers:
            queries = queries + attention(given, queries)
            queries = queries + feed_forward(queries)
        return self.norm_out(self.proj_out(queries))


def _feed_forward(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width, bias=False))
