"""The layers of Qwen-Image 2.1's network, in ComfyUI's tree and published weight names. No layer has a bias.

Shapes: B batch, P tokens before the picture that is made (its prefix), I tokens of that picture, N = P + I, C width of a token, H heads,
D width of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.ldm.flux.layers import timestep_embedding
from comfy.ldm.flux.math import apply_rope1
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.qwen_image.layers import TIME_CHANNELS

Options = dict[str, Any]
Segment = tuple[int, int, bool]  # first token, end, whether it is text
KeysAndValues = tuple[torch.Tensor, torch.Tensor]
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Options], torch.Tensor]  # queries, keys, values B x H x N x D: B x N x C
GREATEST_HALF = 65504


class ZeroCenteredRMSNorm(torch.nn.Module):
    """Divides by the root of the mean square and scales by one more than ``weight``, in float32."""

    def __init__(self, dim: int, eps: float = 1e-6, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.empty(dim, dtype=dtype, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, dim), in the dtype of *x*."""
        weight = comfy.ops.cast_to(self.weight, torch.float32, x.device) + 1
        return F.rms_norm(x.float(), x.shape[-1:], weight, self.eps).to(x.dtype)


class TextProjection(torch.nn.Module):
    """A norm, and two layers with GELU between them."""

    def __init__(
        self, context_in_dim: int, hidden_size: int, eps: float = 1e-6, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        kept = {"bias": False, "dtype": dtype, "device": device}
        self.text_norm = ZeroCenteredRMSNorm(context_in_dim, eps, dtype, device)
        self.in_layer = operations.Linear(context_in_dim, hidden_size, **kept)
        self.out_layer = operations.Linear(hidden_size, hidden_size, **kept)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(…, width of the text) to (…, C)."""
        result: torch.Tensor = self.out_layer(F.gelu(self.in_layer(self.text_norm(hidden_states)), approximate="tanh"))
        return result


class TimestepEmbedding(torch.nn.Module):
    """Two layers with SiLU between them."""

    def __init__(self, in_channels: int, time_embed_dim: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept = {"bias": False, "dtype": dtype, "device": device}
        self.linear_1 = operations.Linear(in_channels, time_embed_dim, **kept)
        self.linear_2 = operations.Linear(time_embed_dim, time_embed_dim, **kept)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """B x in to B x C."""
        result: torch.Tensor = self.linear_2(F.silu(self.linear_1(sample)))
        return result


class TimestepProjEmbeddings(torch.nn.Module):
    """The embedded time."""

    def __init__(self, embedding_dim: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedding(TIME_CHANNELS, embedding_dim, dtype, device, operations)

    def forward(self, timestep: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """Times (B, 0 to 1) as B x C in the dtype of *hidden_states*."""
        result: torch.Tensor = self.timestep_embedder(timestep_embedding(timestep.float(), TIME_CHANNELS).to(hidden_states.dtype))
        return result


class SwiGLUFeedForward(torch.nn.Module):
    """A wider layer, gated by another. *fused*: both are one weight, the gate's rows first."""

    def __init__(
        self, hidden_size: int, mlp_hidden_size: int, fused: bool = True, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        kept = {"bias": False, "dtype": dtype, "device": device}
        self.fused = fused
        if fused:
            self.gate_up = operations.Linear(hidden_size, 2 * mlp_hidden_size, **kept)
        else:
            self.gate_layer, self.proj = (operations.Linear(hidden_size, mlp_hidden_size, **kept) for _ in range(2))
        self.out = operations.Linear(mlp_hidden_size, hidden_size, **kept)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(…, C) to the same."""
        gate, up = (
            self.gate_up(hidden_states).chunk(2, dim=-1) if self.fused else (self.gate_layer(hidden_states), self.proj(hidden_states))
        )
        result: torch.Tensor = self.out(F.silu(gate) * up)
        return result


class Attention(torch.nn.Module):
    """The queries, keys and values of tokens, and the layer after what is attended to."""

    def __init__(
        self, dim: int, heads: int, dim_head: int, eps: float = 1e-6, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        self.heads, self.inner_dim = heads, heads * dim_head
        kept = {"dtype": dtype, "device": device}
        for name in ("to_q", "to_k", "to_v"):
            setattr(self, name, operations.Linear(dim, self.inner_dim, bias=False, **kept))
        self.norm_q, self.norm_k = (operations.RMSNorm(dim_head, eps=eps, **kept) for _ in range(2))
        self.to_out = torch.nn.ModuleList([operations.Linear(self.inner_dim, dim, bias=False, **kept), torch.nn.Dropout(0.0)])

    def forward(self, hidden_states: torch.Tensor, pe: torch.Tensor, attend: Attend, transformer_options: Options) -> torch.Tensor:
        """B x N x C to the same. *pe*: rotations. *attend* gets queries, keys and values; ``attn1_patch`` entries of
        *transformer_options* may change these, and the rotations, before.
        """
        values: list[Any] = [
            getattr(self, name)(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in ("to_q", "to_k", "to_v")
        ]
        q, k, v = self.norm_q(values[0]), self.norm_k(values[1]), values[2]
        for patch in transformer_options.get("patches", {}).get("attn1_patch", ()):
            out = patch(q, k, v, pe=pe, attn_mask=None, extra_options=dict(transformer_options))
            q, k, v, pe = out.get("q", q), out.get("k", k), out.get("v", v), out.get("pe", pe)
        attended = attend(apply_rope1(q, pe), apply_rope1(k, pe), v, transformer_options)
        result: torch.Tensor = self.to_out[0](attended)
        return result


@dataclass(frozen=True, slots=True)
class Modulation:
    """Scales and gates (each B x 1 x C) of attention and of the wider layer: the picture's *own*, and those of *prefix* tokens before."""

    own: Sequence[torch.Tensor]
    fixed: Sequence[torch.Tensor]
    prefix: int

    def scaled(self, x: torch.Tensor, number: int, plus: float = 0.0) -> torch.Tensor:
        """*x* (B x N x C) times the values *number* and *plus*."""
        if not self.prefix:
            return x * (self.own[number] + plus)
        parts = (x[:, : self.prefix] * (self.fixed[number] + plus), x[:, self.prefix :] * (self.own[number] + plus))
        return torch.cat(parts, dim=1)


class QwenImage21TransformerBlock(torch.nn.Module):
    """Attention and a wider layer, scaled and gated by the time."""

    def __init__(
        self,
        dim: int,
        num_attention_heads: int,
        attention_head_dim: int,
        mlp_ratio: int = 3,
        eps: float = 1e-6,
        fused_mlp: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.img_norm1, self.img_norm2 = (operations.LayerNorm(dim, elementwise_affine=False, eps=eps, **kept) for _ in range(2))
        self.attn = Attention(dim, num_attention_heads, attention_head_dim, eps, operations=operations, **kept)
        self.img_mlp = SwiGLUFeedForward(dim, dim * mlp_ratio, fused_mlp, operations=operations, **kept)

    def forward(
        self, hidden_states: torch.Tensor, mod: Modulation, pe: torch.Tensor, attend: Attend, transformer_options: Options
    ) -> torch.Tensor:
        """B x N x C to the same."""
        changed = mod.scaled(self.img_norm1(hidden_states), 0, 1.0)
        hidden_states = hidden_states + mod.scaled(self.attn(changed, pe, attend, transformer_options), 1)
        changed = mod.scaled(self.img_norm2(hidden_states), 2, 1.0)
        hidden_states = hidden_states + mod.scaled(self.img_mlp(changed), 3)
        return hidden_states.clip(-GREATEST_HALF, GREATEST_HALF) if hidden_states.dtype == torch.float16 else hidden_states


class LastLayer(torch.nn.Module):
    """A norm, scaled by the time."""

    def __init__(
        self, embedding_dim: int, conditioning_dim: int, eps: float = 1e-6, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        self.linear = operations.Linear(conditioning_dim, embedding_dim, bias=False, dtype=dtype, device=device)
        self.norm = operations.LayerNorm(embedding_dim, elementwise_affine=False, eps=eps, dtype=dtype, device=device)

    def forward(self, hidden_states: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        """B x I x C to the same, at the embedded time *temb* (B x C)."""
        result: torch.Tensor = self.norm(hidden_states) * (1 + self.linear(F.silu(temb)))[:, None]
        return result


def block_causal_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: Sequence[Segment], transformer_options: Options
) -> torch.Tensor:
    """What tokens attend to (B x N x C): to all before them, and within a picture to all of it. *segments* are those of the prefix."""
    heads, start = q.shape[1], segments[-1][1] if segments else 0
    parts = []
    for first, end, is_text in segments:
        mask = None
        if is_text:
            mask = torch.full((end - first, end), -torch.inf, dtype=q.dtype, device=q.device).triu(first + 1)
        parts.append(_attended(q[:, :, first:end], k[:, :, :end], v[:, :, :end], heads, mask, transformer_options))
    parts.append(_attended(q[:, :, start:], k, v, heads, None, transformer_options))
    return torch.cat(parts, dim=1)


def _attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, mask: torch.Tensor | None, options: Options) -> torch.Tensor:
    attended: torch.Tensor = optimized_attention(q, k, v, heads, mask=mask, skip_reshape=True, transformer_options=options)
    return attended
