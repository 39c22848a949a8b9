"""The style model of T2I-Adapter (C. Mou et al., 2023): a transformer that sums CLIP's view of a picture up in a few tokens of text.

Parameters have the names that its published file gives them.
"""

from __future__ import annotations

from typing import Any

import torch

FAST_GELU = 1.702
MLP_EXPANSION = 4


class StyleBlock(torch.nn.Module):
    """Attention and a two-layer network, each over normed tokens (B x tokens x *width*) and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.mlp = torch.nn.ModuleDict(
            {"c_fc": torch.nn.Linear(width, MLP_EXPANSION * width), "c_proj": torch.nn.Linear(MLP_EXPANSION * width, width)}
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens after this block."""
        own = self.ln_1(tokens).transpose(0, 1)
        seen = self.attn(own, own, own, need_weights=False)[0]
        tokens = tokens + seen.transpose(0, 1)
        inner = self.mlp["c_fc"](self.ln_2(tokens))
        moved: torch.Tensor = tokens + self.mlp["c_proj"](inner * torch.sigmoid(FAST_GELU * inner))
        return moved


class StyleAdapter(torch.nn.Module):
    """B x *num_token* x *context_dim* of text from B x tokens x *width* of CLIP's last hidden state."""

    def __init__(self, width: int = 1024, context_dim: int = 768, num_head: int = 8, n_layes: int = 3, num_token: int = 4) -> None:
        super().__init__()
        self.num_token = num_token
        self.transformer_layes = torch.nn.ModuleList([StyleBlock(width, num_head) for _ in range(n_layes)])
        self.style_embedding = torch.nn.Parameter(torch.empty(1, num_token, width))
        self.proj = torch.nn.Parameter(torch.empty(width, context_dim))
        self.ln_pre, self.ln_post = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The tokens of text."""
        tokens: Any = torch.cat([x.to(self.style_embedding), self.style_embedding.expand(len(x), -1, -1)], dim=1)
        tokens = self.ln_pre(tokens)
        for block in self.transformer_layes:
            tokens = block(tokens)
        return self.ln_post(tokens[:, -self.num_token :]) @ self.proj
