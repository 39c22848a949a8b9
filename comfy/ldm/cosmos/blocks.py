"""Blocks of Cosmos 1's network, with ComfyUI's attributes and weight names.

Shapes: B batch, F frames, R rows, K columns (of cells), N = F·R·K tokens, T tokens of the text, C channels, H heads, D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch

from comfy.ldm.cosmos.embedders import PatchEmbed, TimestepEmbedding, Timesteps
from comfy.ldm.cosmos.layers import EPS, GPT2FeedForward, Options, modulated, modulation, of_time, rotated_halves
from comfy.ldm.modules.attention import optimized_attention
from comfy.placeholders import placeholders

__all__ = [
    "Attention",
    "DITBuildingBlock",
    "FinalLayer",
    "GPT2FeedForward",
    "GeneralDITTransformerBlock",
    "PatchEmbed",
    "TimestepEmbedding",
    "Timesteps",
    "VideoAttn",
]

__getattr__, __dir__ = placeholders(
    __name__,
    "parts of Cosmos models that no published one has",
    "get_normalization() BaseAttentionOp FeedForward modulate() FourierFeatures adaln_norm_state()",
)


class Attention(torch.nn.Module):
    """Attention to the tokens themselves (no *context_dim*) or to the text, with normalised queries and keys."""

    def __init__(
        self,
        query_dim: int,
        context_dim: int | None = None,
        heads: int = 8,
        dim_head: int = 64,
        *,
        operations: Any,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"device": device, "dtype": dtype}
        self.is_selfattn = context_dim is None
        self.heads, self.dim_head = heads, dim_head
        inner, seen = heads * dim_head, query_dim if context_dim is None else context_dim

        def layers(width: int, *more: torch.nn.Module) -> torch.nn.Sequential:
            return torch.nn.Sequential(operations.Linear(width, inner, bias=False, **kept), *more)

        self.to_q = layers(query_dim, operations.RMSNorm(dim_head, eps=EPS, **kept))
        self.to_k = layers(seen, operations.RMSNorm(dim_head, eps=EPS, **kept))
        self.to_v = layers(seen)
        self.to_out = torch.nn.Sequential(operations.Linear(inner, query_dim, bias=False, **kept))

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        rope_emb: torch.Tensor | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """*x* B x N x C, *context* B x T x text width, *rope_emb* N x D/2 x 2 x 2 (for the tokens themselves)."""
        seen, heads = x if context is None else context, (-1, self.dim_head)
        q = self.to_q[1](self.to_q[0](x).unflatten(-1, heads))
        k = self.to_k[1](self.to_k[0](seen).unflatten(-1, heads))
        v = self.to_v[0](seen).unflatten(-1, heads)
        if self.is_selfattn and rope_emb is not None:
            q, k = rotated_halves(q, rope_emb), rotated_halves(k, rope_emb)
        parts = (part.transpose(1, 2) for part in (q, k, v))
        attended = optimized_attention(*parts, self.heads, mask=mask, skip_reshape=True, transformer_options=transformer_options or {})
        return self.to_out(attended)


class VideoAttn(torch.nn.Module):
    """Attention of all tokens of a video."""

    def __init__(self, x_dim: int, context_dim: int | None, num_heads: int, *, operations: Any, **kept: Any) -> None:
        super().__init__()
        self.attn = Attention(x_dim, context_dim, num_heads, x_dim // num_heads, operations=operations, **kept)

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        crossattn_mask: torch.Tensor | None = None,
        rope_emb_L_1_1_D: torch.Tensor | None = None,  # noqa: N803 - ComfyUI's name
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """B x F x R x K x C to the same."""
        attended = self.attn(x.flatten(1, 3), context, crossattn_mask, rope_emb_L_1_1_D, transformer_options)
        return attended.unflatten(1, x.shape[1:4])


class FinalLayer(torch.nn.Module):
    """From tokens to cells of the latent."""

    def __init__(
        self,
        hidden_size: int,
        spatial_patch_size: int,
        temporal_patch_size: int,
        out_channels: int,
        *,
        operations: Any,
        use_adaln_lora: bool = False,
        adaln_lora_dim: int = 256,
        **kept: Any,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.norm_final = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=EPS, **kept)
        self.linear = operations.Linear(hidden_size, spatial_patch_size**2 * temporal_patch_size * out_channels, bias=False, **kept)
        self.adaLN_modulation = modulation(hidden_size, 2, use_adaln_lora, adaln_lora_dim, kept, operations)

    def forward(self, x: torch.Tensor, emb: torch.Tensor, adaln_lora: torch.Tensor | None = None) -> torch.Tensor:
        """B x F x R x K x C to B x F x R x K x values of a cell, for the embedded time *emb* (B x 1 x C)."""
        shift, scale = of_time(self.adaLN_modulation, emb, adaln_lora, self.hidden_size, 2)
        return self.linear(modulated(x, self.norm_final, scale, shift))


class DITBuildingBlock(torch.nn.Module):
    """One step of a block, modulated by the time: attention to the tokens ("fa"), to the text ("ca"), or a feed-forward layer ("mlp")."""

    def __init__(
        self,
        block_type: str,
        x_dim: int,
        context_dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        *,
        operations: Any,
        use_adaln_lora: bool = False,
        adaln_lora_dim: int = 256,
        **kept: Any,
    ) -> None:
        super().__init__()
        self.block_type = block_type.lower()
        if self.block_type not in ("fa", "ca", "mlp"):
            raise ValueError(f"a Cosmos model's blocks consist of FA, CA and MLP, not of {block_type}")
        if self.block_type == "mlp":
            self.block: Any = GPT2FeedForward(x_dim, int(x_dim * mlp_ratio), operations=operations, **kept)
        else:
            self.block = VideoAttn(x_dim, context_dim if self.block_type == "ca" else None, num_heads, operations=operations, **kept)
        self.norm_state = operations.LayerNorm(x_dim, elementwise_affine=False, eps=EPS, **kept)
        self.adaLN_modulation = modulation(x_dim, 3, use_adaln_lora, adaln_lora_dim, kept, operations)

    def forward(
        self,
        x: torch.Tensor,
        emb: torch.Tensor,
        crossattn_emb: torch.Tensor,
        crossattn_mask: torch.Tensor | None = None,
        rope_emb_L_1_1_D: torch.Tensor | None = None,  # noqa: N803 - ComfyUI's name
        adaln_lora: torch.Tensor | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """Tokens *x* (B x F x R x K x C) after the step, for the embedded time *emb* (B x 1 x C)."""
        shift, scale, gate = of_time(self.adaLN_modulation, emb, adaln_lora, x.shape[-1], 3)
        normal = modulated(x, self.norm_state, scale, shift)
        if self.block_type == "mlp":
            result = self.block(normal)
        elif self.block_type == "ca":
            result = self.block(normal, crossattn_emb, crossattn_mask, transformer_options=transformer_options)
        else:
            result = self.block(normal, rope_emb_L_1_1_D=rope_emb_L_1_1_D, transformer_options=transformer_options)
        return torch.addcmul(x, gate, result)


class GeneralDITTransformerBlock(torch.nn.Module):
    """The steps that *block_config* names ("FA-CA-MLP"), one after the other."""

    def __init__(
        self, x_dim: int, context_dim: int, num_heads: int, block_config: str, mlp_ratio: float = 4.0, *, operations: Any, **settings: Any
    ) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            DITBuildingBlock(step, x_dim, context_dim, num_heads, mlp_ratio, operations=operations, **settings)
            for step in block_config.split("-")
        )

    def forward(self, x: torch.Tensor, *arguments: Any, **settings: Any) -> torch.Tensor:
        """Tokens *x* after all steps, which get the other arguments."""
        for block in self.blocks:
            x = block(x, *arguments, **settings)
        return x
