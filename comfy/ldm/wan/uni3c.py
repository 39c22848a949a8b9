"""Uni3C (Cao et al., 2025): a ControlNet of Wan 2.1 that sees a rendering of the scene from where the camera is to be; its authors' weight
names, with those of attention as Wan's.

Shapes: B batch, N tokens of the video, C width of the ControlNet's tokens, W that of the model's.
"""

from __future__ import annotations

from typing import Any

import torch

from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.wan.layers import WanFeedForward, WanSelfAttention
from comfy.ldm.wan.model import PATCH, ROPE_THETA

LATENT_CHANNELS = 16


class Uni3CLayerNormZero(torch.nn.Module):
    """Normalisation that the time shifts and scales, and how much of what comes after counts."""

    def __init__(self, conditioning_dim: int, embedding_dim: int, eps: float = 1e-5, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.linear = operations.Linear(conditioning_dim, 3 * embedding_dim, **kept)
        self.norm = operations.LayerNorm(embedding_dim, eps=eps, elementwise_affine=True, **kept)

    def forward(self, x: torch.Tensor, temb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """*x* B x N x C, *temb* B x W: (the same, B x 1 x C)."""
        shift, scale, gate = self.linear(torch.nn.functional.silu(temb))[:, None].chunk(3, dim=-1)
        return torch.addcmul(shift, self.norm(x), 1 + scale), gate


class Uni3CAttentionBlock(torch.nn.Module):
    """Attention of the tokens to each other, and a feed-forward layer."""

    def __init__(
        self, dim: int, ffn_dim: int, num_heads: int, time_embed_dim: int = 5120, eps: float = 1e-6, operations: Any = None, **kept: Any
    ) -> None:
        super().__init__()
        settings, linear = {"operations": operations, **kept}, operations.Linear
        self.norm1, self.norm2 = (Uni3CLayerNormZero(time_embed_dim, dim, **settings) for _ in range(2))
        self.self_attn = WanSelfAttention(dim, num_heads, eps=eps, operation_settings=settings)
        self.ffn = WanFeedForward(linear(dim, ffn_dim, **kept), torch.nn.GELU("tanh"), linear(ffn_dim, dim, **kept))

    def forward(self, x: torch.Tensor, temb: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
        """*x* B x N x C, *temb* B x W, *freqs* the rotations of the tokens' places."""
        for norm, layer in ((self.norm1, lambda own: self.self_attn(own, freqs)), (self.norm2, self.ffn)):
            own, gate = norm(x, temb)
            x = torch.addcmul(x, gate, layer(own))
        return x


class MaskCamEmbed(torch.nn.Module):
    """What of the rendering is known, and the camera's rays, as tokens. No node gives these yet."""

    def __init__(
        self, add_channels: int = 7, mid_channels: int = 256, conv_out_dim: int = 5120, operations: Any = None, **kept: Any
    ) -> None:
        super().__init__()
        cell, patch = (4, 8, 8), PATCH
        self.mask_proj = torch.nn.Sequential(
            operations.Conv3d(add_channels, mid_channels, cell, cell, **kept),
            operations.GroupNorm(mid_channels // 8, mid_channels, **kept),
            torch.nn.SiLU(),
        )
        self.mask_zero_proj = operations.Conv3d(mid_channels, conv_out_dim, patch, patch, **kept)

    def forward(self, add_inputs: torch.Tensor) -> torch.Tensor:
        """B x channels x frames x height x width, in pixels, to B x N x width; the first frame has a latent one of its own."""
        padded = torch.nn.functional.pad(add_inputs, (0, 0, 0, 0, 3, 0))
        tokens: torch.Tensor = self.mask_zero_proj(self.mask_proj(padded))
        return tokens.flatten(2).transpose(1, 2)


class WanUni3CControlnet(torch.nn.Module):
    """The network: a block for each of the model's first ones. *out_proj_dim* and *time_embed_dim*: width of the model's tokens."""

    FLOAT32 = ("controlnet_patch_embedding.",)
    source_name: str

    def __init__(
        self,
        in_channels: int = 36,
        conv_out_dim: int = 5120,
        dim: int = 1024,
        ffn_dim: int = 8192,
        num_heads: int = 16,
        num_layers: int = 20,
        time_embed_dim: int = 5120,
        out_proj_dim: int = 5120,
        add_channels: int = 7,
        mid_channels: int = 256,
        operations: Any = None,
        **kept: Any,
    ) -> None:
        super().__init__()
        made = {"operations": operations, **kept}
        self.num_layers, self.in_channels, self.time_embed_dim = num_layers, in_channels, time_embed_dim
        self.controlnet_patch_embedding = operations.Conv3d(in_channels, conv_out_dim, PATCH, PATCH, **kept)
        self.controlnet_mask_embedding = MaskCamEmbed(add_channels, mid_channels, conv_out_dim, **made)
        self.proj_in: Any = torch.nn.Identity() if conv_out_dim == dim else operations.Linear(conv_out_dim, dim, **kept)
        self.controlnet_blocks = torch.nn.ModuleList(
            Uni3CAttentionBlock(dim, ffn_dim, num_heads, time_embed_dim, **made) for _ in range(num_layers)
        )
        self.proj_out = torch.nn.ModuleList(operations.Linear(dim, out_proj_dim, **kept) for _ in range(num_layers))
        head = dim // num_heads
        pair = head // 6 * 2
        self.rope_embedder = EmbedND(head, ROPE_THETA, [head - 2 * pair, pair, pair])

    def process_input(
        self, control_input: torch.Tensor, render_mask: torch.Tensor | None = None, camera_embedding: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(tokens, their rotations) of *control_input*: the model's latents, a mask, and the rendering's latents, B x 36 x frames x height
        x width. *render_mask* and *camera_embedding*: in pixels, see :class:`MaskCamEmbed`.
        """
        cells = self.controlnet_patch_embedding(control_input.float()).to(control_input.dtype)
        axes = (torch.arange(length, device=cells.device, dtype=cells.dtype) for length in cells.shape[2:])
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, 3)
        tokens = cells.flatten(2).transpose(1, 2)
        if render_mask is not None:
            known = render_mask if camera_embedding is None else torch.cat((render_mask, camera_embedding), dim=1)
            tokens = tokens + self.controlnet_mask_embedding(known.to(tokens.dtype))
        return self.proj_in(tokens), self.rope_embedder(places).movedim(1, 2)

    def forward_block(
        self, block_index: int, hidden: torch.Tensor, temb: torch.Tensor, freqs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(the tokens after the block, what is added to the model's: B x N x W)."""
        hidden = self.controlnet_blocks[block_index](hidden, temb, freqs)
        return hidden, self.proj_out[block_index](hidden)
