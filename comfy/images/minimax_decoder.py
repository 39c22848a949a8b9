"""The transformer that makes colours of MiniMax H3's latents."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.modules.attention
import comfy.ops
from comfy.ldm.minimax.layers import rotated

Shape = tuple[int, ...]

SIDE, FRAMES = 16, 4  # pixels along one side, and frames, of what one token becomes
HEAD, TURNED_SHARE, THETA = 64, 0.75, 100.0
AXES, LAST_TOKENS, EPS = 3, 1, 1e-5


class Attention(torch.nn.Module):
    """Attention of all tokens to each other. Queries, keys and values of a head stand together."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_qkv = torch.nn.Linear(width, 3 * width)
        self.to_out = torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """*x* B x tokens x width, *turns* cosines and sines (tokens x pairs) of its places."""
        query, key, value = self.to_qkv(x).unflatten(-1, (-1, 3 * HEAD)).chunk(3, dim=-1)
        query, key = (rotated(F.rms_norm(part, (HEAD,), eps=EPS), turns) for part in (query, key))
        parts = (part.transpose(1, 2) for part in (query, key, value))
        attention = comfy.ldm.modules.attention.optimized_attention
        return self.to_out(attention(*parts, x.shape[-1] // HEAD, skip_reshape=True).nan_to_num(0.0))


class FeedForward(torch.nn.Module):
    """Values that are gated: gates first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w1 = torch.nn.Linear(width, 8 * width)
        self.w2 = torch.nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x tokens x width."""
        return comfy.ops.linear_input_act(self.w2, self.w1(x), "swiglu")


class Block(torch.nn.Module):
    """A layer of the decoder, whose two results are scaled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = torch.nn.RMSNorm(width, eps=EPS), torch.nn.RMSNorm(width, eps=EPS)
        self.attn, self.ff = Attention(width), FeedForward(width)
        self.scale1, self.scale2 = torch.nn.Parameter(torch.empty(width)), torch.nn.Parameter(torch.empty(width))

    def forward(self, x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """B x tokens x width."""
        x = torch.addcmul(x, self.attn(self.norm1(x), turns), self.scale1.to(x))
        return torch.addcmul(x, self.ff(self.norm2(x)), self.scale2.to(x))


class Decoder(torch.nn.Module):
    """A window of latents as colours: each cell a token, which becomes 4 frames of 16 x 16 pixels."""

    def __init__(self, channels: int, layers: int, width: int, tokens: int) -> None:
        super().__init__()
        self.x_embedder = torch.nn.Linear(channels, width)
        self.register_tokens = torch.nn.Parameter(torch.empty(1, tokens, width))
        self.mask_token = torch.nn.Parameter(torch.empty(1, 1, width))  # of its training
        self.transformer_blocks = torch.nn.ModuleList(Block(width) for _ in range(layers))
        self.norm_out = torch.nn.LayerNorm(width, eps=EPS)
        self.proj_out = torch.nn.Linear(width, 3 * FRAMES * SIDE**2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """*x* B x channels x frames x height x width."""
        batch, sizes = len(x), x.shape[2:]
        cells = self.x_embedder(x.flatten(2).transpose(1, 2))
        last = cells.new_zeros(batch, LAST_TOKENS, cells.shape[-1])
        tokens = torch.cat((cells, self.register_tokens.to(cells).expand(batch, -1, -1), last), dim=1)
        turns = self._turns(sizes, tokens.shape[1], x.device)
        for block in self.transformer_blocks:
            tokens = block(tokens, turns)
        values = self.proj_out(self.norm_out(tokens))[:, : cells.shape[1]].unflatten(1, sizes)
        parts = values.unflatten(-1, (3, FRAMES, SIDE, SIDE)).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return parts.flatten(6).flatten(4, 5).flatten(2, 3)

    @staticmethod
    def _turns(sizes: Shape, tokens: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of the places of a window's cells, -1 to 1 along each axis; of the tokens after them, those of its middle."""
        axes = [(torch.arange(size, device=device) + 0.5) / size * 2.0 - 1.0 for size in sizes]
        places = F.pad(torch.cartesian_prod(*axes), (0, 0, 0, tokens - math.prod(sizes)))
        pairs = int(HEAD * TURNED_SHARE) // (2 * AXES)
        steps = THETA ** -(torch.arange(pairs, dtype=torch.float32, device=device) / pairs)
        angles = (2.0 * math.pi * places[:, :, None] * steps).flatten(1)
        return angles.cos(), angles.sin()
