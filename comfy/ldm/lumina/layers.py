"""The layers of Lumina 2's and Z-Image's network, in ComfyUI's tree and published weight names.

Shapes: B batch, N tokens, C width of a token. Where some tokens are at another time than the rest, modulation has 2B rows: first those of
the rest, then those of the tokens in ``timestep_zero_index``, a list of ranges (start, end).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.modules.attention
from comfy.ldm.flux.math import apply_rope

Ranges = Sequence[tuple[int, int]]

HEAD_NORM_EPS = torch.finfo(torch.float32).eps
Z_IMAGE_TIME, LUMINA_TIME = 256, 1024  # the widest time embeddings


def invert_slices(slices: Iterable[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """The ranges of 0…*length* that *slices* leave out."""
    gaps, reached = [], 0
    for start, end in sorted(slices):
        if reached < start:
            gaps.append((reached, start))
        reached = max(reached, end)
    return [*gaps, (reached, length)] if reached < length else gaps


def _scaled(x: torch.Tensor, factor: torch.Tensor, timestep_zero_index: Ranges | None) -> torch.Tensor:
    """*x* times *factor* (rows x 1 x C), each token by the row of its time."""
    if timestep_zero_index is None:
        return x * factor
    rest, other = factor.chunk(2)
    scaled = x * rest
    for start, end in timestep_zero_index:
        scaled[:, start:end] = x[:, start:end] * other
    return scaled


def modulate(x: torch.Tensor, scale: torch.Tensor, timestep_zero_index: Ranges | None = None) -> torch.Tensor:
    """*x* (B x N x C) scaled by one plus *scale* (rows x C)."""
    return _scaled(x, 1 + scale.unsqueeze(1), timestep_zero_index)


def apply_gate(gate: torch.Tensor, x: torch.Tensor, timestep_zero_index: Ranges | None = None) -> torch.Tensor:
    """*x* (B x N x C) times *gate* (rows x 1 x C)."""
    return _scaled(x, gate, timestep_zero_index)


def clamp_fp16(x: torch.Tensor) -> torch.Tensor:
    """*x*; in fp16 with infinities as the largest numbers and without NaN."""
    if x.dtype != torch.float16:
        return x
    largest = torch.finfo(torch.float16).max
    return torch.nan_to_num(x, nan=0.0, posinf=largest, neginf=-largest)


class JointAttention(torch.nn.Module):
    """Attention of all tokens to all; keys and values may have fewer heads than queries."""

    def __init__(
        self,
        dim: int,
        n_heads: int,
        n_kv_heads: int | None,
        qk_norm: bool,
        out_bias: bool = False,
        operation_settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        operations, kept = _split(operation_settings)
        self.n_local_heads = n_heads
        self.n_kv_heads = self.n_local_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        self.n_rep = n_heads // self.n_kv_heads
        self.head_dim = dim // n_heads
        self.qk_norm = qk_norm
        self.qkv = operations.Linear(dim, (n_heads + 2 * self.n_kv_heads) * self.head_dim, bias=False, **kept)
        self.out = operations.Linear(n_heads * self.head_dim, dim, bias=out_bias, **kept)
        self.q_norm: torch.nn.Module = torch.nn.Identity()
        self.k_norm: torch.nn.Module = torch.nn.Identity()
        if qk_norm:
            self.q_norm, self.k_norm = (operations.RMSNorm(self.head_dim, eps=HEAD_NORM_EPS, **kept) for _ in range(2))

    def forward(
        self, x: torch.Tensor, x_mask: torch.Tensor | None, freqs_cis: torch.Tensor, transformer_options: dict[str, Any] | None = None
    ) -> torch.Tensor:
        """*x* B x N x C, *freqs_cis* (1 or B) x N x 1 x D/2 x 2 x 2."""
        heads, kv_heads = self.n_local_heads, self.n_local_kv_heads
        query, key, value = self.qkv(x).unflatten(-1, (-1, self.head_dim)).split([heads, kv_heads, kv_heads], dim=2)
        query, key = apply_rope(self.q_norm(query), self.k_norm(key), freqs_cis)
        if self.n_rep > 1:
            key, value = (tensor.repeat_interleave(self.n_rep, dim=2) for tensor in (key, value))
        attended = comfy.ldm.modules.attention.optimized_attention_masked(
            query.movedim(1, 2),
            key.movedim(1, 2),
            value.movedim(1, 2),
            heads,
            x_mask,
            skip_reshape=True,
            transformer_options=transformer_options,
        )
        return self.out(attended)


class FeedForward(torch.nn.Module):
    """Two wider layers, one of which gates the other by SiLU, and a narrower one."""

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        multiple_of: int,
        ffn_dim_multiplier: float | None,
        operation_settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        operations, kept = _split(operation_settings)
        width = hidden_dim if ffn_dim_multiplier is None else int(ffn_dim_multiplier * hidden_dim)
        width = -(-width // multiple_of) * multiple_of
        self.w1 = operations.Linear(dim, width, bias=False, **kept)
        self.w2 = operations.Linear(width, dim, bias=False, **kept)
        self.w3 = operations.Linear(dim, width, bias=False, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, C)."""
        return self.w2(clamp_fp16(F.silu(self.w1(x)) * self.w3(x)))


class JointTransformerBlock(torch.nn.Module):
    """Attention and a feed-forward layer, normalised before and after, with *modulation* scaled and gated by the time."""

    attention_norm1: torch.nn.Module
    attention_norm2: torch.nn.Module
    ffn_norm1: torch.nn.Module
    ffn_norm2: torch.nn.Module

    def __init__(
        self,
        layer_id: int,
        dim: int,
        n_heads: int,
        n_kv_heads: int | None,
        multiple_of: int,
        ffn_dim_multiplier: float | None,
        norm_eps: float,
        qk_norm: bool,
        modulation: bool = True,
        z_image_modulation: bool = False,
        attn_out_bias: bool = False,
        operation_settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        operations, kept = _split(operation_settings)
        self.dim, self.head_dim, self.layer_id = dim, dim // n_heads, layer_id
        self.attention = JointAttention(dim, n_heads, n_kv_heads, qk_norm, attn_out_bias, operation_settings)
        self.feed_forward = FeedForward(dim, dim, multiple_of, ffn_dim_multiplier, operation_settings)
        for name in ("attention_norm1", "ffn_norm1", "attention_norm2", "ffn_norm2"):
            setattr(self, name, operations.RMSNorm(dim, eps=norm_eps, **kept))
        self.modulation = modulation
        if modulation:
            width = min(dim, Z_IMAGE_TIME if z_image_modulation else LUMINA_TIME)
            layer = operations.Linear(width, 4 * dim, bias=True, **kept)
            self.adaLN_modulation = torch.nn.Sequential(layer) if z_image_modulation else torch.nn.Sequential(torch.nn.SiLU(), layer)

    def forward(
        self,
        x: torch.Tensor,
        x_mask: torch.Tensor | None,
        freqs_cis: torch.Tensor,
        adaln_input: torch.Tensor | None = None,
        timestep_zero_index: Ranges | None = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """*x* B x N x C. *adaln_input*: rows x width of the time, for blocks with modulation; other blocks raise ``ValueError`` for one."""
        if self.modulation != (adaln_input is not None):
            raise ValueError("this block needs the time" if self.modulation else "this block takes no time")
        if adaln_input is None:
            attended = self.attention(self.attention_norm1(x), x_mask, freqs_cis, transformer_options)
            x = x + self.attention_norm2(clamp_fp16(attended))
            return x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x)))
        scale, gate, ffn_scale, ffn_gate = self.adaLN_modulation(adaln_input).chunk(4, dim=1)
        shown = modulate(self.attention_norm1(x), scale, timestep_zero_index)
        attended = self.attention_norm2(clamp_fp16(self.attention(shown, x_mask, freqs_cis, transformer_options)))
        x = x + apply_gate(gate.unsqueeze(1).tanh(), attended, timestep_zero_index)
        fed = self.ffn_norm2(clamp_fp16(self.feed_forward(modulate(self.ffn_norm1(x), ffn_scale, timestep_zero_index))))
        return x + apply_gate(ffn_gate.unsqueeze(1).tanh(), fed, timestep_zero_index)


class FinalLayer(torch.nn.Module):
    """From tokens to patches: a normalisation that the time scales, and a linear layer."""

    def __init__(
        self,
        hidden_size: int,
        patch_size: int,
        out_channels: int,
        z_image_modulation: bool = False,
        operation_settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        operations, kept = _split(operation_settings)
        self.norm_final = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6, **kept)
        self.linear = operations.Linear(hidden_size, patch_size * patch_size * out_channels, bias=True, **kept)
        width = min(hidden_size, Z_IMAGE_TIME if z_image_modulation else LUMINA_TIME)
        self.adaLN_modulation = torch.nn.Sequential(torch.nn.SiLU(), operations.Linear(width, hidden_size, bias=True, **kept))

    def forward(self, x: torch.Tensor, c: torch.Tensor, timestep_zero_index: Ranges | None = None) -> torch.Tensor:
        """*x* B x N x C, *c* rows x width of the time."""
        return self.linear(modulate(self.norm_final(x), self.adaLN_modulation(c), timestep_zero_index))


def pad_zimage(feats: torch.Tensor, pad_token: torch.Tensor, pad_tokens_multiple: int) -> tuple[torch.Tensor, int]:
    """*feats* (B x N x C) lengthened by *pad_token* (1 x C) to a multiple of tokens, and by how many."""
    missing = -feats.shape[1] % pad_tokens_multiple
    padding = pad_token.to(feats)[None].expand(len(feats), missing, -1)
    return torch.cat((feats, padding), dim=1), missing


def pos_ids_x(
    start_t: float,
    H_tokens: int,  # noqa: N803 - ComfyUI's name
    W_tokens: int,  # noqa: N803
    batch_size: int,
    device: Any,
    transformer_options: dict[str, Any] | None = None,
) -> torch.Tensor:
    """Frame *start_t*, row and column of each token of a picture: B x N x 3; ``rope_options`` stretch and move rows and columns."""
    stretch = (transformer_options or {}).get("rope_options") or {}
    places = torch.zeros((H_tokens, W_tokens, 3), dtype=torch.float32, device=device)
    rows, columns = (torch.arange(count, dtype=torch.float32, device=device) for count in (H_tokens, W_tokens))
    places[..., 0] = start_t
    places[..., 1] = (rows * stretch.get("scale_y", 1.0) + stretch.get("shift_y", 0.0))[:, None]
    places[..., 2] = columns * stretch.get("scale_x", 1.0) + stretch.get("shift_x", 0.0)
    return places.flatten(0, 1).repeat(batch_size, 1, 1)


def _split(operation_settings: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    """The layers' classes, and the arguments that say where and in which dtype their weights are."""
    settings = dict(operation_settings or {})
    return settings.pop("operations"), settings
