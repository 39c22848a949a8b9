"""Ideogram 4's network in ComfyUI's tree and published weight names: one stream of the text's tokens, then the picture's.

Shapes: B batch, T tokens of text, I tokens of the picture, N of both, C width of a token, D width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.dit.network import DiffusionTransformer
from comfy.ldm.lumina.layers import FeedForward
from comfy.ldm.modules.attention import optimized_attention_masked

Options = dict[str, Any]
Turns = tuple[torch.Tensor, torch.Tensor]

SIDE = 2  # of the cell of latent pixels that one token is
FIRST_PLACE = 65536  # of the picture's rows and columns; texts are shorter
TIME_SCALE, PERIOD = 1e4, 1e4


def places_turned(places: torch.Tensor, head: int, theta: float, sections: Sequence[int]) -> Turns:
    """Cosines and sines (each N x 1 x D/2) of *places* (N x 3: frame, row, column).

    Of the pairs of a head's values, every third from the second on turns by the row and every third from the third on by the column, as
    many as *sections* says for them; the others turn by the frame (the interleaved places of Qwen3-VL).
    """
    rates = 1.0 / theta ** (torch.arange(0, head, 2, device=places.device).float() / head)
    angles = places.float()[:, :, None] * rates  # N x 3 x D/2, in float32 as the network was trained
    turned = angles[:, 0].clone()
    for axis in (1, 2):
        own = slice(axis, 3 * sections[axis], 3)
        turned[:, own] = angles[:, axis, own]
    return turned.cos()[:, None], turned.sin()[:, None]


def rotated(x: torch.Tensor, turns: Turns) -> torch.Tensor:
    """*x* (B x N x heads x D), whose halves are the two coordinates, by *turns*; in *x*'s dtype."""
    cosines, sines = turns
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1).to(x.dtype)


class Ideogram4Attention(torch.nn.Module):
    """Attention of all tokens to all, with normalised and rotated queries and keys."""

    def __init__(
        self, hidden_size: int, num_heads: int, eps: float = 1e-5, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        self.num_heads, self.head_dim, self.hidden_size = num_heads, hidden_size // num_heads, hidden_size
        self.qkv = operations.Linear(hidden_size, 3 * hidden_size, bias=False, **kept)
        self.norm_q, self.norm_k = (operations.RMSNorm(self.head_dim, eps=eps, **kept) for _ in range(2))
        self.o = operations.Linear(hidden_size, hidden_size, bias=False, **kept)

    def forward(
        self, x: torch.Tensor, attn_mask: torch.Tensor | None, freqs_cis: Turns, transformer_options: Options | None = None
    ) -> torch.Tensor:
        """B x N x C to the same. *attn_mask*: added to the scores. *freqs_cis*: of :func:`places_turned`."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(2)
        q, k = rotated(self.norm_q(q), freqs_cis), rotated(self.norm_k(k), freqs_cis)
        heads = (part.transpose(1, 2) for part in (q, k, v))
        options = transformer_options or {}
        mixed = optimized_attention_masked(*heads, self.num_heads, attn_mask, skip_reshape=True, transformer_options=options)
        result: torch.Tensor = self.o(mixed)
        return result


class Ideogram4TransformerBlock(torch.nn.Module):
    """Attention and a wider layer, each between two norms, scaled and gated by the time."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        num_heads: int,
        norm_eps: float,
        adaln_dim: int,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        settings = {**kept, "operations": operations}
        self.attention = Ideogram4Attention(hidden_size, num_heads, **settings)
        self.feed_forward = FeedForward(hidden_size, intermediate_size, 1, None, settings)
        self.attention_norm1, self.ffn_norm1, self.attention_norm2, self.ffn_norm2 = (
            operations.RMSNorm(hidden_size, eps=norm_eps, **kept) for _ in range(4)
        )
        self.adaln_modulation = operations.Linear(adaln_dim, 4 * hidden_size, **kept)

    def forward(
        self,
        x: torch.Tensor,
        attn_mask: torch.Tensor | None,
        freqs_cis: Turns,
        adaln_input: torch.Tensor,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """B x N x C to the same, at the time *adaln_input* (B x 1 x its own width)."""
        scale, gate, wide_scale, wide_gate = self.adaln_modulation(adaln_input).chunk(4, dim=-1)
        mixed = self.attention(self.attention_norm1(x) * (1 + scale), attn_mask, freqs_cis, transformer_options)
        x = x + gate.tanh() * self.attention_norm2(mixed)
        wider = self.feed_forward(self.ffn_norm1(x) * (1 + wide_scale))
        result: torch.Tensor = x + wide_gate.tanh() * self.ffn_norm2(wider)
        return result


class Ideogram4EmbedScalar(torch.nn.Module):
    """A number as a vector."""

    def __init__(
        self, dim: int, input_range: tuple[float, float] = (0.0, 1.0), dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        self.dim, (self.range_min, self.range_max) = dim, input_range
        self.mlp_in, self.mlp_out = (operations.Linear(dim, dim, dtype=dtype, device=device) for _ in range(2))

    def forward(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """B x C of numbers *x* (B): sines before cosines, and two layers."""
        half = self.dim // 2
        exponents = -math.log(PERIOD) / (half - 1) * torch.arange(half, dtype=torch.float32, device=x.device)
        angles = TIME_SCALE * (x.float() - self.range_min)[:, None] / (self.range_max - self.range_min) * exponents.exp()
        waves = F.pad(torch.cat((angles.sin(), angles.cos()), dim=-1), (0, self.dim % 2))
        result: torch.Tensor = self.mlp_out(F.silu(self.mlp_in(waves.to(dtype))))
        return result


class Ideogram4FinalLayer(torch.nn.Module):
    """A norm scaled by the time, and the values of a token."""

    def __init__(
        self, hidden_size: int, out_channels: int, adaln_dim: int, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        self.norm_final = operations.LayerNorm(hidden_size, eps=1e-6, elementwise_affine=False, **kept)
        self.linear = operations.Linear(hidden_size, out_channels, **kept)
        self.adaln_modulation = operations.Linear(adaln_dim, hidden_size, **kept)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """B x N x C to B x N x channels, at the time *c*."""
        result: torch.Tensor = self.linear(self.norm_final(x) * (1 + self.adaln_modulation(F.silu(c))))
        return result


class Ideogram4Transformer2DModel(DiffusionTransformer):
    """The network. Without a text it sees the picture alone; that is how its second network, for what not to make, was trained."""

    def __init__(
        self,
        image_model: str | None = None,
        in_channels: int = 128,
        num_layers: int = 34,
        num_attention_heads: int = 18,
        attention_head_dim: int = 256,
        intermediate_size: int = 12288,
        adaln_dim: int = 512,
        llm_features_dim: int = 53248,
        rope_theta: float = 5000000,
        mrope_section: Sequence[int] = (24, 20, 20),
        norm_eps: float = 1e-5,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        placed: Options = {"dtype": dtype, "device": device}
        kept: Options = {**placed, "operations": operations}
        width = num_attention_heads * attention_head_dim
        self.dtype, self.in_channels, self.out_channels, self.llm_features_dim = dtype, in_channels, in_channels, llm_features_dim
        self.patch_size, self.ae_channels = SIDE, in_channels // SIDE**2
        self.head_dim, self.rope_theta, self.mrope_section = attention_head_dim, rope_theta, tuple(mrope_section)
        self.input_proj = operations.Linear(in_channels, width, **placed)
        self.llm_cond_norm = operations.RMSNorm(llm_features_dim, eps=1e-6, **placed)
        self.llm_cond_proj = operations.Linear(llm_features_dim, width, **placed)
        self.t_embedding = Ideogram4EmbedScalar(width, **kept)
        self.adaln_proj = operations.Linear(width, adaln_dim, **placed)
        self.embed_image_indicator = operations.Embedding(2, width, **placed)
        self.layers = torch.nn.ModuleList(
            Ideogram4TransformerBlock(width, intermediate_size, num_attention_heads, norm_eps, adaln_dim, **kept) for _ in range(num_layers)
        )
        self.final_layer = Ideogram4FinalLayer(width, in_channels, adaln_dim, **kept)

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timesteps, context, attention_mask, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x rows x columns, *timesteps* B (1 is noise), *context* B x T x width of the text, *attention_mask* B x T, 0 at
        padding.

        Raises ``ValueError`` for a text of another width.
        """
        options = {} if transformer_options is None else transformer_options
        cells = x.unflatten(1, (self.ae_channels, SIDE, SIDE)).permute(0, 4, 5, 2, 3, 1)  # a token's values: by pixel, then by channel
        tokens = self.input_proj(cells.flatten(3).flatten(1, 2))
        tokens = tokens + self.embed_image_indicator(torch.ones(1, dtype=torch.long, device=x.device)).to(tokens)
        is_padding = None if context is None or attention_mask is None else attention_mask == 0
        words = 0 if context is None else context.shape[1]
        if context is not None:
            tokens = torch.cat((self._text(context, is_padding), tokens), dim=1)
        rows, columns = x.shape[-2:]
        turns = places_turned(self._places(words, rows, columns, x.device), self.head_dim, self.rope_theta, self.mrope_section)
        mask = None if is_padding is None else _among_themselves(F.pad(is_padding, (0, tokens.shape[1] - words)), tokens.dtype)
        time = F.silu(self.adaln_proj(self.t_embedding(1 - timesteps, x.dtype)[:, None]))
        for layer in self.layers:
            tokens = layer(tokens, mask, turns, time, transformer_options=options)
        last = self.final_layer(tokens, time)[:, words:].unflatten(1, x.shape[-2:]).unflatten(-1, (SIDE, SIDE, self.ae_channels))
        return -last.permute(0, 5, 3, 4, 1, 2).flatten(1, 3)

    def _text(self, context: torch.Tensor, is_padding: torch.Tensor | None) -> torch.Tensor:
        """B x T x C of *context*; nothing where *is_padding* (B x T) but what says that a token is none of a picture."""
        if context.shape[-1] != self.llm_features_dim:
            raise ValueError(
                f"Ideogram 4 takes texts of {self.llm_features_dim} values per token, but this one has {context.shape[-1]}; "
                "load Qwen3-VL 8B with CLIPLoader's type ideogram4"
            )
        text = self.llm_cond_proj(self.llm_cond_norm(context))
        if is_padding is not None:
            text = text.masked_fill(is_padding[..., None], 0.0)
        result: torch.Tensor = text + self.embed_image_indicator(torch.zeros(1, dtype=torch.long, device=text.device)).to(text)
        return result

    @staticmethod
    def _places(words: int, rows: int, columns: int, device: torch.device) -> torch.Tensor:
        """N x 3: of *words*, then of a picture's tokens; its frame, rows and columns begin behind all words."""
        told = torch.arange(words, device=device)[:, None].expand(-1, 3)
        seen = torch.cartesian_prod(*(torch.arange(count, device=device) for count in (1, rows, columns)))
        return torch.cat((told, seen + FIRST_PLACE))


def _among_themselves(is_padding: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to the scores (B x 1 x N x N) so that padding and the rest do not look at each other."""
    apart = is_padding[:, None, :, None] != is_padding[:, None, None, :]
    return torch.zeros(apart.shape, dtype=dtype, device=apart.device).masked_fill(apart, -torch.finfo(dtype).max)
