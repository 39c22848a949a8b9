"""ERNIE-Image's network in ComfyUI's tree and published weight names: one stream of the picture's tokens and the text's.

Shapes: B batch, T tokens of text, I tokens of the picture, N of both, C width of a token, D width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.dit.network import DiffusionTransformer
from comfy.families.timestep_embedding import timestep_embedding
from comfy.ldm.modules.attention import optimized_attention

Options = dict[str, Any]
Turns = tuple[torch.Tensor, torch.Tensor]

EPS = 1e-6


class ErnieImageEmbedND3(torch.nn.Module):
    """Rotations of heads whose values are shared among three axes."""

    def __init__(self, dim: int, theta: int, axes_dim: Sequence[int]) -> None:
        super().__init__()
        self.dim, self.theta, self.axes_dim = dim, theta, list(axes_dim)

    def forward(self, ids: torch.Tensor) -> Turns:
        """Cosines and sines (each N x 1 x D) of the places *ids* (N x 3); neighbours turn by the same angle, in halves."""
        angles = []
        for axis, width in enumerate(self.axes_dim):
            rates = self.theta ** (-torch.arange(0, width, 2, dtype=torch.float64, device=ids.device) / width)
            angles.append(ids[:, axis, None].double() * rates)
        turned = torch.cat(angles, dim=-1)
        cosines, sines = (part.float().repeat_interleave(2, dim=-1)[:, None] for part in (turned.cos(), turned.sin()))
        return cosines, sines


def rotated(x: torch.Tensor, turns: Turns) -> torch.Tensor:
    """*x* (B x N x heads x D), whose halves are the two coordinates, by *turns*."""
    cosines, sines = turns
    first, second = x.float().chunk(2, dim=-1)
    return (torch.cat((first, second), dim=-1) * cosines + torch.cat((-second, first), dim=-1) * sines).to(x.dtype)


class ErnieImagePatchEmbedDynamic(torch.nn.Module):
    """Tokens of patches."""

    def __init__(self, in_channels: int, embed_dim: int, patch_size: int, operations: Any, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = operations.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A latent to B x I x C."""
        result: torch.Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return result


class TimestepEmbedding(torch.nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, in_channels: int, time_embed_dim: int, operations: Any, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.linear_1 = operations.Linear(in_channels, time_embed_dim, device=device, dtype=dtype)
        self.linear_2 = operations.Linear(time_embed_dim, time_embed_dim, device=device, dtype=dtype)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """B x C to the same."""
        result: torch.Tensor = self.linear_2(F.silu(self.linear_1(sample)))
        return result


class ErnieImageAttention(torch.nn.Module):
    """Attention of all tokens to all, with normalised and rotated queries and keys."""

    def __init__(
        self, query_dim: int, heads: int, dim_head: int, eps: float = EPS, operations: Any = None, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        kept = {"device": device, "dtype": dtype}
        self.heads, self.head_dim = heads, dim_head
        self.to_q, self.to_k, self.to_v = (operations.Linear(query_dim, heads * dim_head, bias=False, **kept) for _ in range(3))
        self.norm_q, self.norm_k = (operations.RMSNorm(dim_head, eps=eps, **kept) for _ in range(2))
        self.to_out = torch.nn.ModuleList([operations.Linear(heads * dim_head, query_dim, bias=False, **kept)])

    def forward(
        self,
        x: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Turns | None = None,
        transformer_options: Mapping[str, Any] | None = None,
    ) -> torch.Tensor:
        """B x N x C to the same. *image_rotary_emb*: as the places' rotations give it."""
        q, k = (norm(layer(x).unflatten(-1, (self.heads, -1))) for layer, norm in ((self.to_q, self.norm_q), (self.to_k, self.norm_k)))
        if image_rotary_emb is not None:
            q, k = rotated(q, image_rotary_emb), rotated(k, image_rotary_emb)
        options = dict(transformer_options or {})
        mixed = optimized_attention(q.flatten(2), k.flatten(2), self.to_v(x), self.heads, mask=attention_mask, transformer_options=options)
        result: torch.Tensor = self.to_out[0](mixed)
        return result


class ErnieImageFeedForward(torch.nn.Module):
    """A wider layer, gated by another."""

    def __init__(self, hidden_size: int, ffn_hidden_size: int, operations: Any, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        kept = {"bias": False, "device": device, "dtype": dtype}
        self.gate_proj, self.up_proj = (operations.Linear(hidden_size, ffn_hidden_size, **kept) for _ in range(2))
        self.linear_fc2 = operations.Linear(ffn_hidden_size, hidden_size, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to the same."""
        result: torch.Tensor = self.linear_fc2(self.up_proj(x) * F.gelu(self.gate_proj(x)))
        return result


class ErnieImageSharedAdaLNBlock(torch.nn.Module):
    """Attention and a wider layer, shifted, scaled and gated by what all blocks share."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        ffn_hidden_size: int,
        eps: float = EPS,
        operations: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        kept: Options = {"device": device, "dtype": dtype}
        self.adaLN_sa_ln, self.adaLN_mlp_ln = (operations.RMSNorm(hidden_size, eps=eps, **kept) for _ in range(2))
        self.self_attention = ErnieImageAttention(hidden_size, num_heads, hidden_size // num_heads, eps, operations, **kept)
        self.mlp = ErnieImageFeedForward(hidden_size, ffn_hidden_size, operations, **kept)

    def forward(
        self,
        x: torch.Tensor,
        rotary_pos_emb: Turns,
        temb: Sequence[torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        transformer_options: Mapping[str, Any] | None = None,
    ) -> torch.Tensor:
        """B x N x C to the same. *temb*: shift, scale and gate of the attention, then of the wider layer; each B x 1 x C."""
        shift, scale, gate, wide_shift, wide_scale, wide_gate = temb
        normal = self.adaLN_sa_ln(x) * (1 + scale) + shift
        x = x + gate * self.self_attention(normal, attention_mask, rotary_pos_emb, transformer_options)
        result: torch.Tensor = x + wide_gate * self.mlp(self.adaLN_mlp_ln(x) * (1 + wide_scale) + wide_shift)
        return result


class ErnieImageAdaLNContinuous(torch.nn.Module):
    """A norm scaled and shifted by the time."""

    def __init__(self, hidden_size: int, eps: float = EPS, operations: Any = None, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.norm = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=eps, device=device, dtype=dtype)
        self.linear = operations.Linear(hidden_size, hidden_size * 2, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
        """B x N x C to the same, at the embedded time *conditioning* (B x C)."""
        scale, shift = self.linear(conditioning)[:, None].chunk(2, dim=-1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class ErnieImageModel(DiffusionTransformer):
    """The network."""

    def __init__(
        self,
        *,
        text_in_dim: int = 3072,
        hidden_size: int = 4096,
        ffn_hidden_size: int = 12288,
        num_layers: int = 36,
        num_attention_heads: int = 32,
        rope_axes_dim: Sequence[int] = (32, 48, 48),
        rope_theta: int = 256,
        patch_size: int = 1,
        out_channels: int = 128,
        in_channels: int = 128,
        eps: float = EPS,
        image_model: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        placed: Options = {"device": device, "dtype": dtype}
        kept: Options = {**placed, "operations": operations}
        width = hidden_size
        self.dtype, self.hidden_size, self.num_heads, self.head_dim = dtype, width, num_attention_heads, width // num_attention_heads
        self.patch_size, self.out_channels = patch_size, out_channels
        self.x_embedder = ErnieImagePatchEmbedDynamic(in_channels, width, patch_size, **kept)
        self.text_proj = operations.Linear(text_in_dim, width, bias=False, **placed) if text_in_dim != width else None
        self.time_embedding = TimestepEmbedding(width, width, **kept)
        self.pos_embed = ErnieImageEmbedND3(self.head_dim, rope_theta, rope_axes_dim)
        self.adaLN_modulation = torch.nn.Sequential(torch.nn.SiLU(), operations.Linear(width, 6 * width, **placed))
        self.layers = torch.nn.ModuleList(
            ErnieImageSharedAdaLNBlock(width, num_attention_heads, ffn_hidden_size, eps, **kept) for _ in range(num_layers)
        )
        self.final_norm = ErnieImageAdaLNContinuous(width, eps, **kept)
        self.final_linear = operations.Linear(width, patch_size**2 * out_channels, **placed)

    def forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, transformer_options: Options | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timesteps, context, options, options=options, **kwargs)

    def _forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, transformer_options: Options | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """*x* B x channels x height x width, *timesteps* B (0 to 1000), *context* B x T x width of the text encoder."""
        options = {} if transformer_options is None else transformer_options
        side, (rows, columns) = self.patch_size, (length // self.patch_size for length in x.shape[2:])
        text = context if self.text_proj is None else self.text_proj(context)
        tokens = torch.cat((self.x_embedder(x), text), dim=1)
        turns = self.pos_embed(self._places(text.shape[1], rows, columns, options, x.device))
        time = self.time_embedding(self._waves(timesteps).to(x.dtype))
        shared = self.adaLN_modulation(time)[:, None].chunk(6, dim=-1)
        for layer in self.layers:
            tokens = layer(tokens, turns, shared, transformer_options=options)
        last = self.final_linear(self.final_norm(tokens[:, : rows * columns], time))
        cells = last.unflatten(2, (side, side, -1)).unflatten(1, (rows, columns))
        result: torch.Tensor = cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
        return result

    def _waves(self, timesteps: torch.Tensor) -> torch.Tensor:
        """B x C: sines before cosines."""
        return timestep_embedding(timesteps, self.hidden_size).roll(self.hidden_size // 2, dims=-1)

    @staticmethod
    def _places(words: int, rows: int, columns: int, options: Mapping[str, Any], device: torch.device) -> torch.Tensor:
        """(I + T) x 3: the picture is one place after the text's, which count up on the first axis.

        ``rope_options`` of *options* move and stretch the picture's.
        """
        moved = options.get("rope_options") or {}
        axes = [torch.tensor([words + moved.get("shift_t", 0.0)], dtype=torch.float32, device=device)]
        for count, name in ((rows, "y"), (columns, "x")):
            end = (count - 1.0) * moved.get(f"scale_{name}", 1.0)
            axes.append(torch.linspace(0.0, end, count, device=device) + moved.get(f"shift_{name}", 0.0))
        told = torch.zeros(words, 3, device=device)
        told[:, 0] = torch.arange(words, device=device)
        return torch.cat((torch.cartesian_prod(*axes), told))
