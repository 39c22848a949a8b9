"""The layers of MiniMax H3's network, in ComfyUI's tree and published weight names.

Shapes: N rows of the sequence, C values of each, M different times; a *run* is (first row, row after the last, row of a table of values, or
one such row for each: a tensor).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch

import comfy.ldm.modules.attention
import comfy.ops

MODALITIES = 3  # video, text, sound: each has values of its own for every time

Options = dict[str, Any]
Run = tuple[int, int, Any]


class TimeEmbedder(torch.nn.Module):
    """Times (M, 0 to 1) as values, in float32."""

    def __init__(
        self, freq_dim: int, hidden: int, out: int, dtype: torch.dtype | None = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        self.freq_dim = freq_dim
        self.proj_in = operations.Linear(freq_dim, hidden, dtype=dtype, device=device)
        self.proj_out = operations.Linear(hidden, out, dtype=dtype, device=device)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        """M x values."""
        half = self.freq_dim // 2
        steps = torch.arange(half, dtype=torch.float32, device=t.device) / half
        angles = t.float()[:, None] * torch.exp(-math.log(10000.0) * steps)
        waves = torch.cat((angles.cos(), angles.sin()), dim=1)
        return self.proj_out(torch.nn.functional.silu(self.proj_in(waves)))


def rotated(x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """*x* (N x heads x values of a head), its first values turned by *turns*, cosines and sines (N x pairs): value i with i + pairs."""
    cosines, sines = (turn[:, None].to(x.dtype) for turn in turns)
    pairs = cosines.shape[-1]
    first, second = x[..., :pairs], x[..., pairs : 2 * pairs]
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines, x[..., 2 * pairs :]), dim=-1)


class Attention(torch.nn.Module):
    """Attention of all rows to each other. *gate_compress*: with gates for attention among blocks of rows, as FastVideo's models have."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        head_dim: int,
        eps: float,
        gate_compress: bool = False,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.qkv_proj = operations.Linear(hidden, 3 * heads * head_dim, bias=False, **made)
        self.q_norm = operations.RMSNorm(head_dim, eps=eps, **made)
        self.k_norm = operations.RMSNorm(head_dim, eps=eps, **made)
        self.out_proj = operations.Linear(heads * head_dim, hidden, bias=False, **made)
        self.to_gate_compress = operations.Linear(hidden, heads * head_dim, bias=False, **made) if gate_compress else None

    def forward(
        self, x: torch.Tensor, rope_freqs: tuple[torch.Tensor, torch.Tensor] | None = None, transformer_options: Options | None = None
    ) -> torch.Tensor:
        """*x* N x C, *rope_freqs* as :func:`rotated` takes them (None: places do not count). The function is looked up at each call.

        It finds the gates (N x heads · values of a head), if there are any, by calling ``minimax_h3_gate`` of its options.
        """
        options = {} if transformer_options is None else transformer_options
        if self.to_gate_compress is not None:
            options = {**options, "minimax_h3_gate": functools.partial(self.to_gate_compress, x)}
        query, key, value = (part.unflatten(-1, (self.heads, self.head_dim)) for part in self.qkv_proj(x).chunk(3, dim=-1))
        query, key = self.q_norm(query), self.k_norm(key)
        if rope_freqs is not None:
            query, key = rotated(query, rope_freqs), rotated(key, rope_freqs)
        parts = (part.transpose(0, 1)[None] for part in (query, key, value))
        attention = comfy.ldm.modules.attention.optimized_attention
        return self.out_proj(attention(*parts, self.heads, skip_reshape=True, transformer_options=options)[0])


class MLP(torch.nn.Module):
    """Values that are gated: gates first."""

    def __init__(self, hidden: int, ffn: int, dtype: torch.dtype | None = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.fc1 = operations.Linear(hidden, ffn * 2, bias=False, dtype=dtype, device=device)
        self.fc2 = operations.Linear(ffn, hidden, bias=False, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x C."""
        return comfy.ops.linear_input_act(self.fc2, self.fc1(x), "swiglu")


class AdalnProj(torch.nn.Module):
    """Tables of values by which rows are scaled and moved: a row per time and modality. Times may come as places on a curve instead of
    embedded (*apply_silu* False).
    """

    def __init__(
        self,
        t_dim: int,
        hidden: int,
        expand: int,
        modalities: int,
        apply_silu: bool = True,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.expand, self.modalities, self.hidden, self.apply_silu = expand, modalities, hidden, apply_silu
        self.linear = operations.Linear(t_dim, expand * hidden * modalities, dtype=dtype, device=device)

    def forward(self, t_emb: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """*expand* tables of M·modalities x C."""
        values = self.linear(torch.nn.functional.silu(t_emb) if self.apply_silu else t_emb)
        return values.reshape(-1, self.expand * self.hidden).chunk(self.expand, dim=-1)


def moved(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, runs: Sequence[Run]) -> torch.Tensor:
    """*x* (N x C, which is overwritten), each run scaled and moved by its row of the tables."""
    for start, stop, row in runs:
        x[start:stop].mul_(1.0 + scale[row].to(x.dtype)).add_(shift[row].to(x.dtype))
    return x


def added(x: torch.Tensor, gate: torch.Tensor, other: torch.Tensor, runs: Sequence[Run]) -> torch.Tensor:
    """*x* (N x C, which is overwritten) and *other*, each run of it times its row of the table *gate*."""
    for start, stop, row in runs:
        x[start:stop].addcmul_(other[start:stop], gate[row].to(x.dtype))
    return x


class RefinerBlock(torch.nn.Module):
    """A block of text alone, without times or places."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        head_dim: int,
        ffn: int,
        eps: float,
        qk_eps: float,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.norm1 = operations.RMSNorm(hidden, eps=eps, **made)
        self.norm2 = operations.RMSNorm(hidden, eps=eps, **made)
        self.attn = Attention(hidden, heads, head_dim, qk_eps, operations=operations, **made)
        self.mlp = MLP(hidden, ffn, operations=operations, **made)

    def forward(self, x: torch.Tensor, transformer_options: Options | None = None) -> torch.Tensor:
        """N x C."""
        x = x + self.attn(self.norm1(x), transformer_options=transformer_options)
        return x + self.mlp(self.norm2(x))


class TokenRefiner(torch.nn.Module):
    """The blocks of text."""

    def __init__(
        self,
        num_layers: int,
        hidden: int,
        heads: int,
        head_dim: int,
        ffn: int,
        eps: float,
        qk_eps: float,
        final_eps: float,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        self.blocks = torch.nn.ModuleList(RefinerBlock(hidden, heads, head_dim, ffn, eps, qk_eps, **made) for _ in range(num_layers))
        self.final_norm = operations.RMSNorm(hidden, eps=final_eps, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, transformer_options: Options | None = None) -> torch.Tensor:
        """N x C."""
        for block in self.blocks:
            x = block(x, transformer_options=transformer_options)
        return self.final_norm(x)


class DiTBlock(torch.nn.Module):
    """A block of the whole sequence. *adaln_dtype* is that of the weights that make its tables."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        head_dim: int,
        ffn: int,
        t_dim: int,
        eps: float,
        qk_eps: float,
        apply_silu: bool = True,
        adaln_dtype: torch.dtype | None = None,
        gate_compress: bool = False,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.norm1 = operations.RMSNorm(hidden, eps=eps, **made)
        self.norm2 = operations.RMSNorm(hidden, eps=eps, **made)
        self.attn = Attention(hidden, heads, head_dim, qk_eps, gate_compress, operations=operations, **made)
        self.mlp = MLP(hidden, ffn, operations=operations, **made)
        tables: dict[str, Any] = {"dtype": adaln_dtype or dtype, "device": device, "operations": operations}
        self.adaln_proj = AdalnProj(t_dim, hidden, 6, MODALITIES, apply_silu, **tables)

    def forward(
        self,
        x: torch.Tensor,
        t_emb: torch.Tensor,
        mod_segments: Sequence[Run],
        rope_freqs: tuple[torch.Tensor, torch.Tensor],
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """*x* N x C, which is overwritten, *t_emb* M x values."""
        shift, scale, gate, late_shift, late_scale, late_gate = self.adaln_proj(t_emb)
        attended = self.attn(moved(self.norm1(x), shift, scale, mod_segments), rope_freqs, transformer_options)
        x = added(x, gate, attended, mod_segments)
        del attended
        return added(x, late_gate, self.mlp(moved(self.norm2(x), late_shift, late_scale, mod_segments)), mod_segments)


class FinalLayer(torch.nn.Module):
    """The rows of the video and of the sound as values of patches and of times, in float32."""

    def __init__(
        self,
        hidden: int,
        t_dim: int,
        video_dim: int,
        audio_dim: int,
        eps: float,
        apply_silu: bool = True,
        adaln_dtype: torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.norm = operations.RMSNorm(hidden, eps=eps, dtype=dtype, device=device)
        tables: dict[str, Any] = {"dtype": adaln_dtype or dtype, "device": device, "operations": operations}
        self.adaln_proj = AdalnProj(t_dim, hidden, 2, 1, apply_silu, **tables)
        self.video_out = operations.Linear(hidden, video_dim, dtype=torch.float32, device=device)
        self.audio_out = operations.Linear(hidden, audio_dim, dtype=torch.float32, device=device)

    def forward(self, x: torch.Tensor, t_emb: torch.Tensor, video_seg: Run, audio_seg: Run) -> tuple[torch.Tensor, torch.Tensor]:
        """*x* N x C and the runs of the video and of the sound in it, whose rows are times alone."""
        shift, scale = self.adaln_proj(t_emb)
        video, audio = ((self.norm(x[a:b]) * (1.0 + scale[row]) + shift[row]).float() for a, b, row in (video_seg, audio_seg))
        return self.video_out(video), self.audio_out(audio)
