"""OmniGen2's network in ComfyUI's tree and published weight names, and the layers that Boogu shares with it.

Shapes: B batch, T tokens of text, R tokens of reference pictures, I tokens of the picture, N of all, C width of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.common_dit
import comfy.ops
from comfy.dit.network import DiffusionTransformer
from comfy.families.timestep_embedding import timestep_embedding
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.flux.math import apply_rope1
from comfy.ldm.modules.attention import optimized_attention_masked

Options = dict[str, Any]

TIME_CHANNELS, TIME_WIDTH = 256, 1024  # the width at most
THETA = 10000
PICTURES = 5  # to look at, at most
EPS = 1e-5


def apply_rotary_emb(x: torch.Tensor, freqs_cis: torch.Tensor) -> torch.Tensor:
    """*x* turned by *freqs_cis*, where there is any."""
    return apply_rope1(x, freqs_cis) if x.shape[1] else x


class TimestepEmbedding(torch.nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, in_channels: int, time_embed_dim: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.linear_1 = operations.Linear(in_channels, time_embed_dim, dtype=dtype, device=device)
        self.linear_2 = operations.Linear(time_embed_dim, time_embed_dim, dtype=dtype, device=device)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """B x in to B x C."""
        result: torch.Tensor = self.linear_2(F.silu(self.linear_1(sample)))
        return result


class LuminaRMSNormZero(torch.nn.Module):
    """A norm scaled by the time, which also gives a gate for what follows, and scale and gate of the wider layer."""

    def __init__(self, embedding_dim: int, norm_eps: float = EPS, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.linear = operations.Linear(min(embedding_dim, TIME_WIDTH), 4 * embedding_dim, dtype=dtype, device=device)
        self.norm = operations.RMSNorm(embedding_dim, eps=norm_eps, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(*x* normalised and scaled, B x N x C; three of B x 1 x C) at the embedded time *emb*."""
        scale, gate, wide_scale, wide_gate = self.linear(F.silu(emb))[:, None].chunk(4, dim=-1)
        return self.norm(x) * (1 + scale), gate, wide_scale, wide_gate


class LuminaLayerNormContinuous(torch.nn.Module):
    """A norm scaled by the time, and the values of a patch."""

    def __init__(
        self,
        embedding_dim: int,
        conditioning_embedding_dim: int,
        out_dim: int,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.linear_1 = operations.Linear(conditioning_embedding_dim, embedding_dim, **kept)
        self.norm = operations.LayerNorm(embedding_dim, 1e-6, False, **kept)
        self.linear_2 = operations.Linear(embedding_dim, out_dim, **kept)

    def forward(self, x: torch.Tensor, conditioning_embedding: torch.Tensor) -> torch.Tensor:
        """B x N x C to B x N x values."""
        scale = self.linear_1(F.silu(conditioning_embedding).to(x.dtype))[:, None]
        result: torch.Tensor = self.linear_2(self.norm(x) * (1 + scale))
        return result


class LuminaFeedForward(torch.nn.Module):
    """A wider layer, gated by another."""

    def __init__(
        self, dim: int, inner_dim: int, multiple_of: int = 256, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        inner = -(-inner_dim // multiple_of) * multiple_of
        kept = {"bias": False, "dtype": dtype, "device": device}
        self.linear_1, self.linear_3 = (operations.Linear(dim, inner, **kept) for _ in range(2))
        self.linear_2 = operations.Linear(inner, dim, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to the same."""
        result: torch.Tensor = self.linear_2(F.silu(self.linear_1(x)) * self.linear_3(x))
        return result


class Lumina2CombinedTimestepCaptionEmbedding(torch.nn.Module):
    """The embedded time, and the text in the network's width."""

    def __init__(
        self,
        hidden_size: int = 4096,
        text_feat_dim: int = 2048,
        norm_eps: float = EPS,
        timestep_scale: float = 1.0,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.timestep_scale = timestep_scale
        self.timestep_embedder = TimestepEmbedding(TIME_CHANNELS, min(hidden_size, TIME_WIDTH), **kept, operations=operations)
        norm = operations.RMSNorm(text_feat_dim, eps=norm_eps, **kept)
        self.caption_embedder = torch.nn.Sequential(norm, operations.Linear(text_feat_dim, hidden_size, **kept))

    def forward(self, timestep: torch.Tensor, text_hidden_states: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """(B x width of the time, B x T x C) of times (B) and B x T x width of the text."""
        waves = timestep_embedding(timestep * self.timestep_scale, TIME_CHANNELS).to(dtype)
        return self.timestep_embedder(waves), self.caption_embedder(text_hidden_states)


class Attention(torch.nn.Module):
    """Attention with normalised and rotated queries and keys; *kv_heads* heads of keys and values, each for several of queries."""

    def __init__(
        self,
        query_dim: int,
        dim_head: int,
        heads: int,
        kv_heads: int,
        eps: float = EPS,
        bias: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.heads, self.kv_heads, self.dim_head = heads, kv_heads, dim_head
        self.to_q = operations.Linear(query_dim, heads * dim_head, bias=bias, **kept)
        self.to_k, self.to_v = (operations.Linear(query_dim, kv_heads * dim_head, bias=bias, **kept) for _ in range(2))
        self.norm_q, self.norm_k = (operations.RMSNorm(dim_head, eps=eps, **kept) for _ in range(2))
        self.to_out = torch.nn.Sequential(operations.Linear(heads * dim_head, query_dim, bias=bias, **kept), torch.nn.Dropout(0.0))

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: torch.Tensor | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """B x N x C of tokens to the same. *image_rotary_emb*: rotations B x 1 x N x D/2 x 2 x 2. *attention_mask*: added to scores."""
        values = self.to_q(hidden_states), self.to_k(encoder_hidden_states), self.to_v(encoder_hidden_states)
        result: torch.Tensor = self.to_out[0](attended(self, values, image_rotary_emb, attention_mask, transformer_options))
        return result


def attended(
    layer: Any,
    values: Sequence[torch.Tensor],
    rotations: torch.Tensor | None,
    mask: torch.Tensor | None = None,
    options: Options | None = None,
) -> torch.Tensor:
    """What queries, keys and values (*values*, each B x N x their width) attend to, with the norms and heads of *layer*: B x N x C."""
    q, k, v = (value.unflatten(-1, (-1, layer.dim_head)) for value in values)
    q, k, v = layer.norm_q(q).transpose(1, 2), layer.norm_k(k).transpose(1, 2), v.transpose(1, 2)
    if rotations is not None:
        q, k = apply_rotary_emb(q, rotations), apply_rotary_emb(k, rotations)
    shared = {"enable_gqa": True} if layer.kv_heads < layer.heads else {}
    result: torch.Tensor = optimized_attention_masked(
        q, k, v, layer.heads, mask, skip_reshape=True, transformer_options=options or {}, **shared
    )
    return result


class OmniGen2TransformerBlock(torch.nn.Module):
    """Attention and a wider layer between norms; with *modulation*, scaled and gated by the time."""

    def __init__(
        self,
        dim: int,
        num_attention_heads: int,
        num_kv_heads: int,
        multiple_of: int,
        norm_eps: float,
        modulation: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        self.modulation = modulation
        self.attn = Attention(dim, dim // num_attention_heads, num_attention_heads, num_kv_heads, **kept, operations=operations)
        self.feed_forward = LuminaFeedForward(dim, 4 * dim, multiple_of, **kept, operations=operations)
        if modulation:
            self.norm1: Any = LuminaRMSNormZero(dim, norm_eps, **kept, operations=operations)
        else:
            self.norm1 = operations.RMSNorm(dim, eps=norm_eps, **kept)
        self.ffn_norm1, self.norm2, self.ffn_norm2 = (operations.RMSNorm(dim, eps=norm_eps, **kept) for _ in range(3))

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        image_rotary_emb: torch.Tensor,
        temb: torch.Tensor | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """B x N x C to the same, at the embedded time *temb*."""
        settings = attention_mask, image_rotary_emb, transformer_options
        if not self.modulation:
            normal = self.norm1(hidden_states)
            hidden_states = hidden_states + self.norm2(self.attn(normal, normal, *settings))
            result: torch.Tensor = hidden_states + self.ffn_norm2(self.feed_forward(self.ffn_norm1(hidden_states)))
            return result
        normal, gate, wide_scale, wide_gate = self.norm1(hidden_states, temb)
        hidden_states = hidden_states + gate.tanh() * self.norm2(self.attn(normal, normal, *settings))
        fed = self.feed_forward(self.ffn_norm1(hidden_states) * (1 + wide_scale))
        result = hidden_states + wide_gate.tanh() * self.ffn_norm2(fed)
        return result


class OmniGen2RotaryPosEmbed(torch.nn.Module):
    """Rotations for text and pictures."""

    def __init__(self, theta: int, axes_dim: Sequence[int], patch_size: int = 2) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.rope_embedder = EmbedND(dim=sum(axes_dim), theta=theta, axes_dim=axes_dim)

    def forward(self, text: int, sizes: Sequence[tuple[int, int]], device: torch.device) -> torch.Tensor:
        """Of *text* tokens, then of pictures of *sizes* (rows and columns of patches): 1 x 1 x N x D/2 x 2 x 2.

        Text counts up on all three axes; a picture is one place on the first, beyond which it goes on by its longer side.
        """
        parts, place = [torch.arange(text, device=device)[:, None].expand(-1, 3)], text
        for rows, columns in sizes:
            axes = torch.tensor([place], device=device), torch.arange(rows, device=device), torch.arange(columns, device=device)
            parts.append(torch.cartesian_prod(*axes))
            place += max(rows, columns)
        rotations: torch.Tensor = self.rope_embedder(torch.cat(parts)[None])
        return rotations


@dataclass(frozen=True, slots=True)
class Seen:
    """What the layers after the refiners get: text (B x T x C), references and picture (B x (R + I) x C), their rotations and the time."""

    text: torch.Tensor
    pictures: torch.Tensor
    rotations: torch.Tensor
    time: torch.Tensor


class OmniGen2Transformer2DModel(DiffusionTransformer):
    """The network. Pictures to look at stand between the text and the picture that is made."""

    LAYERS = "layers"

    def __init__(
        self,
        patch_size: int = 2,
        in_channels: int = 16,
        out_channels: int | None = None,
        hidden_size: int = 2304,
        num_layers: int = 26,
        num_refiner_layers: int = 2,
        num_attention_heads: int = 24,
        num_kv_heads: int = 8,
        multiple_of: int = 256,
        ffn_dim_multiplier: float | None = None,
        norm_eps: float = EPS,
        axes_dim_rope: Sequence[int] = (32, 32, 32),
        axes_lens: Sequence[int] = (300, 512, 512),
        text_feat_dim: int = 1024,
        timestep_scale: float = 1.0,
        image_model: str | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        placed: Options = {"dtype": dtype, "device": device}
        kept: Options = {**placed, "operations": operations}
        width, values = hidden_size, patch_size**2 * in_channels
        self.patch_size, self.out_channels, self.hidden_size, self.dtype = patch_size, out_channels or in_channels, width, dtype
        self._sizes = width, num_attention_heads, num_kv_heads, multiple_of, norm_eps
        self.rope_embedder = OmniGen2RotaryPosEmbed(THETA, axes_dim_rope, patch_size)
        self.x_embedder, self.ref_image_patch_embedder = (operations.Linear(values, width, **placed) for _ in range(2))
        self.time_caption_embed = Lumina2CombinedTimestepCaptionEmbedding(width, text_feat_dim, norm_eps, timestep_scale, **kept)
        self.noise_refiner, self.ref_image_refiner = (self._blocks(num_refiner_layers, kept) for _ in range(2))
        self.context_refiner = self._blocks(num_refiner_layers, kept, modulation=False)
        setattr(self, self.LAYERS, self._blocks(num_layers, kept))
        self.norm_out = LuminaLayerNormContinuous(width, min(width, TIME_WIDTH), patch_size**2 * self.out_channels, **kept)
        self.image_index_embedding = torch.nn.Parameter(torch.empty(PICTURES, width, **placed))

    def _blocks(self, count: int, kept: Options, modulation: bool = True) -> torch.nn.ModuleList:
        return torch.nn.ModuleList(OmniGen2TransformerBlock(*self._sizes, modulation, **kept) for _ in range(count))

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        num_tokens: int | None = None,
        ref_latents: Sequence[torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timesteps, context, num_tokens, ref_latents, attention_mask, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        num_tokens: int | None = None,
        ref_latents: Sequence[torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x height x width, *timesteps* B (0 to 1), *context* B x T x width of the text encoder.

        *num_tokens* says how many of the text's are no padding, which its length says here. *ref_latents*: pictures to look at, each like
        *x*. *attention_mask* (B x T) is 0 for what of the text others of it do not look at. Raises ``ValueError`` for more than five
        pictures.
        """
        options = {} if transformer_options is None else transformer_options
        references = list(ref_latents or ())
        if len(references) > PICTURES:
            raise ValueError(f"this model looks at {PICTURES} pictures at most, but {len(references)} are given")
        tokens, size = self._patches(x)
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None]
        seen = self._refined(tokens, size, 1.0 - timesteps, context, references, mask, options)
        last = self.norm_out(self._run_layers(seen, options), seen.time)
        return -self._as_latent(last[:, -tokens.shape[1] :], size)[..., : x.shape[-2], : x.shape[-1]]

    def _refined(
        self,
        tokens: torch.Tensor,
        size: tuple[int, int],
        times: torch.Tensor,
        context: torch.Tensor,
        references: Sequence[torch.Tensor],
        mask: torch.Tensor | None,
        options: Options,
    ) -> Seen:
        """Text, references and picture (*tokens* of *size*), after what each goes through alone."""
        time, text = self.time_caption_embed(times, context, tokens.dtype)
        shown = [self._patches(latent) for latent in references]
        words = text.shape[1]
        rotations = self.rope_embedder(words, [*(own for _, own in shown), size], tokens.device)
        for layer in self.context_refiner:
            text = layer(text, mask, rotations[:, :, :words], transformer_options=options)
        image = self.x_embedder(tokens)
        for layer in self.noise_refiner:
            image = layer(image, None, rotations[:, :, -image.shape[1] :], time, options)
        if shown:
            numbers = comfy.ops.cast_to_input(self.image_index_embedding, image, copy=False)
            looked = torch.cat([self.ref_image_patch_embedder(own) + number for (own, _), number in zip(shown, numbers)], dim=1)
            for layer in self.ref_image_refiner:
                looked = layer(looked, None, rotations[:, :, words : words + looked.shape[1]], time, options)
            image = torch.cat((looked, image), dim=1)
        return Seen(text, image, rotations, time)

    def _run_layers(self, seen: Seen, options: Options) -> torch.Tensor:
        """All tokens after the last layer: B x N x C."""
        joined = torch.cat((seen.text, seen.pictures), dim=1)
        for layer in getattr(self, self.LAYERS):
            joined = layer(joined, None, seen.rotations, seen.time, options)
        return joined

    def _patches(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """(B x I x values, place in the patch before channels; rows and columns of patches) of *x* (B x channels x height x width)."""
        side = self.patch_size
        padded = comfy.ldm.common_dit.pad_to_patch_size(x, (side, side))
        cells = padded.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 3, 5, 1)
        return cells.flatten(3).flatten(1, 2), (cells.shape[1], cells.shape[2])

    def _as_latent(self, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """The latent of B x I x values, in *size* rows and columns."""
        side = self.patch_size
        cells = tokens.unflatten(1, size).unflatten(3, (side, side, -1))
        return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
