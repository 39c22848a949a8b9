"""The layers of transformers of the Flux kind, with ComfyUI's constructors, attributes and parameter names.

Shapes: B batch, N tokens, C channels, H heads, D width of a head. Node packs replace ``attention`` and the layers' ``forward`` here;
each is looked up when it is called. Blocks change the tokens they are given in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.families.timestep_embedding
import comfy.ops
from comfy.ldm.flux.math import attention, rope
from comfy.rmsnorm import RMSNorm

__all__ = [
    "DoubleStreamBlock",
    "EmbedND",
    "LastLayer",
    "MLPEmbedder",
    "Modulation",
    "ModulationOut",
    "QKNorm",
    "RMSNorm",
    "SelfAttention",
    "SiLUActivation",
    "SingleStreamBlock",
    "YakMLP",
    "apply_mod",
    "attention",
    "build_mlp",
    "rope",
    "timestep_embedding",
]

Options = dict[str, Any]
Ranges = Sequence[Sequence[int]]  # (first token, end, row of the modulation)
ops = comfy.ops.disable_weight_init


def timestep_embedding(t: torch.Tensor, dim: int, max_period: int = 10000, time_factor: float = 1000.0) -> torch.Tensor:
    """Sines and cosines of times *t* (one per batch entry, 0…1 scaled by *time_factor*): batch x *dim*, in *t*'s dtype."""
    return comfy.families.timestep_embedding.timestep_embedding(time_factor * t, dim, max_period).to(t)


class EmbedND(torch.nn.Module):
    """Rotations for positions along several axes, each of which has its share of a head's values."""

    def __init__(self, dim: int, theta: float, axes_dim: Sequence[int]) -> None:
        super().__init__()
        self.dim, self.theta, self.axes_dim = dim, theta, axes_dim

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Positions B x N x axes to rotations B x 1 x N x D/2 x 2 x 2, float32."""
        turns = [rope(ids[..., axis], self.axes_dim[axis], self.theta) for axis in range(ids.shape[-1])]
        return torch.cat(turns, dim=-3)[:, None]


class MLPEmbedder(torch.nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(
        self, in_dim: int, hidden_dim: int, bias: bool = True, dtype: Any = None, device: Any = None, operations: Any = ops
    ) -> None:
        super().__init__()
        self.in_layer = operations.Linear(in_dim, hidden_dim, bias=bias, dtype=dtype, device=device)
        self.silu = torch.nn.SiLU()
        self.out_layer = operations.Linear(hidden_dim, hidden_dim, bias=bias, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, hidden)."""
        return self.out_layer(self.silu(self.in_layer(x)))


class SiLUActivation(torch.nn.Module):
    """The SiLU of the first half of the channels times the second half."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_fn = torch.nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, 2 C) to (…, C)."""
        gate, value = x.chunk(2, dim=-1)
        return self.gate_fn(gate) * value


class YakMLP(torch.nn.Module):
    """A gated feed-forward layer whose gate has a layer of its own."""

    def __init__(self, hidden_size: int, intermediate_size: int, dtype: Any = None, device: Any = None, operations: Any = ops) -> None:
        super().__init__()
        kept = {"bias": True, "dtype": dtype, "device": device}
        self.hidden_size, self.intermediate_size = hidden_size, intermediate_size
        self.gate_proj = operations.Linear(hidden_size, intermediate_size, **kept)
        self.up_proj = operations.Linear(hidden_size, intermediate_size, **kept)
        self.down_proj = operations.Linear(intermediate_size, hidden_size, **kept)
        self.act_fn = torch.nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, C)."""
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def build_mlp(
    hidden_size: int,
    mlp_hidden_dim: int,
    mlp_silu_act: bool = False,
    yak_mlp: bool = False,
    dtype: Any = None,
    device: Any = None,
    operations: Any = ops,
) -> torch.nn.Module:
    """A block's feed-forward layer: with GELU, gated without biases (*mlp_silu_act*), or :class:`YakMLP`."""
    kept = {"dtype": dtype, "device": device}
    if yak_mlp:
        return YakMLP(hidden_size, mlp_hidden_dim, operations=operations, **kept)
    activation = SiLUActivation() if mlp_silu_act else torch.nn.GELU(approximate="tanh")
    first = operations.Linear(hidden_size, mlp_hidden_dim * (2 if mlp_silu_act else 1), bias=not mlp_silu_act, **kept)
    return torch.nn.Sequential(first, activation, operations.Linear(mlp_hidden_dim, hidden_size, bias=not mlp_silu_act, **kept))


class QKNorm(torch.nn.Module):
    """Queries and keys, each divided by its root mean square."""

    def __init__(self, dim: int, dtype: Any = None, device: Any = None, operations: Any = ops) -> None:
        super().__init__()
        self.query_norm = operations.RMSNorm(dim, dtype=dtype, device=device)
        self.key_norm = operations.RMSNorm(dim, dtype=dtype, device=device)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """*q* and *k* normalised, in *v*'s dtype and on its device."""
        return self.query_norm(q).to(v), self.key_norm(k).to(v)


class SelfAttention(torch.nn.Module):
    """The projections of one stream's attention; the block attends."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = operations.Linear(dim, dim * 3, bias=qkv_bias, dtype=dtype, device=device)
        self.norm = QKNorm(dim // num_heads, dtype=dtype, device=device, operations=operations)
        self.proj = operations.Linear(dim, dim, bias=proj_bias, dtype=dtype, device=device)

    def heads_of(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries and keys (normalised) and values of tokens *x*: B x H x N x D each."""
        return split_heads(self.qkv(x), self.num_heads, self.norm)


def split_heads(qkv: torch.Tensor, heads: int, norm: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """*qkv* (B x N x 3·C) as normalised queries and keys, and values: B x H x N x D each."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = norm(q, k, v)
    return q, k, v


@dataclass
class ModulationOut:
    """What the time and the vector conditioning do to a layer: its input is scaled by 1 + *scale* and shifted, its result gated."""

    shift: torch.Tensor
    scale: torch.Tensor
    gate: torch.Tensor


class Modulation(torch.nn.Module):
    """Makes one (or, for *double*, two) :class:`ModulationOut` of the embedded conditioning."""

    def __init__(self, dim: int, double: bool, bias: bool = True, dtype: Any = None, device: Any = None, operations: Any = ops) -> None:
        super().__init__()
        self.is_double = double
        self.multiplier = 6 if double else 3
        self.lin = operations.Linear(dim, self.multiplier * dim, bias=bias, dtype=dtype, device=device)

    def forward(self, vec: torch.Tensor) -> tuple[ModulationOut, ModulationOut | None]:
        """*vec*, B x C or B x rows x C; the parts are B x rows x C."""
        rows = vec if vec.ndim == 3 else vec[:, None]
        parts = self.lin(F.silu(rows)).chunk(self.multiplier, dim=-1)
        return ModulationOut(*parts[:3]), ModulationOut(*parts[3:]) if self.is_double else None


def apply_mod(
    tensor: torch.Tensor, m_mult: torch.Tensor, m_add: torch.Tensor | None = None, modulation_dims: Ranges | None = None
) -> torch.Tensor:
    """*tensor* (B x N x C) times *m_mult*, plus *m_add* if given. With *modulation_dims* each range of tokens has its row of both, and
    *tensor* itself is changed.
    """
    if modulation_dims is None:
        return tensor * m_mult if m_add is None else torch.addcmul(m_add, tensor, m_mult)
    for first, end, row in modulation_dims:
        tokens = tensor[:, first:end]
        tokens *= m_mult[:, row : row + 1]
        if m_add is not None:
            tokens += m_add[:, row : row + 1]
    return tensor


def _modulated(x: torch.Tensor, mod: ModulationOut, ranges: Ranges | None) -> torch.Tensor:
    return apply_mod(x, 1 + mod.scale, mod.shift, ranges)


def _attend(
    heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor], pe: Any, mask: torch.Tensor | None, options: Options, extra: Options
) -> torch.Tensor:
    """The attention of *heads* with the packs' ``attn1_patch`` before and ``attn1_output_patch`` after it, which are given *extra*."""
    q, k, v = heads
    patches = options.get("patches", {})
    for patch in patches.get("attn1_patch", ()):
        changed = patch(q, k, v, pe=pe, attn_mask=mask, extra_options=extra)
        q, k, v = changed.get("q", q), changed.get("k", k), changed.get("v", v)
        pe, mask = changed.get("pe", pe), changed.get("attn_mask", mask)
    attended = attention(q, k, v, pe=pe, mask=mask, transformer_options=options)
    for patch in patches.get("attn1_output_patch", ()):
        attended = patch(attended, extra)
    return attended


def _finite(x: torch.Tensor) -> torch.Tensor:
    """*x*; in half precision with what overflowed set to the largest number."""
    return torch.nan_to_num(x, nan=0.0) if x.dtype == torch.float16 else x


class DoubleStreamBlock(torch.nn.Module):
    """Picture and text tokens, each with layers of its own, attend to all tokens together."""

    img_mod: Any
    img_norm1: Any
    img_attn: Any
    txt_mod: Any
    txt_norm1: Any
    txt_attn: Any

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool = False,
        modulation: bool = True,
        mlp_silu_act: bool = False,
        proj_bias: bool = True,
        yak_mlp: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        self.num_heads, self.hidden_size, self.modulation = num_heads, hidden_size, modulation
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        made = {**kept, "operations": operations}
        norm = {"elementwise_affine": False, "eps": 1e-6, **kept}
        inner = int(hidden_size * mlp_ratio)
        for stream in ("img", "txt"):
            if modulation:
                setattr(self, f"{stream}_mod", Modulation(hidden_size, double=True, **made))
            setattr(self, f"{stream}_norm1", operations.LayerNorm(hidden_size, **norm))
            setattr(self, f"{stream}_attn", SelfAttention(hidden_size, num_heads, qkv_bias, proj_bias, **made))
            setattr(self, f"{stream}_norm2", operations.LayerNorm(hidden_size, **norm))
            setattr(self, f"{stream}_mlp", build_mlp(hidden_size, inner, mlp_silu_act, yak_mlp, **made))

    def forward(
        self,
        img: torch.Tensor,
        txt: torch.Tensor,
        vec: Any,
        pe: torch.Tensor | None,
        attn_mask: torch.Tensor | None = None,
        modulation_dims_img: Ranges | None = None,
        modulation_dims_txt: Ranges | None = None,
        transformer_options: Options | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Picture and text tokens (B x N x C each) after the block.

        *vec*: the embedded conditioning (B x C), or the modulations of both streams where the block has none of its own. *pe*: the
        rotations of the text's tokens, then the picture's.
        """
        options = {} if transformer_options is None else transformer_options
        (img_first, img_second), (txt_first, txt_second) = (self.img_mod(vec), self.txt_mod(vec)) if self.modulation else vec
        of_txt = self.txt_attn.heads_of(_modulated(self.txt_norm1(txt), txt_first, modulation_dims_txt))
        of_img = self.img_attn.heads_of(_modulated(self.img_norm1(img), img_first, modulation_dims_img))
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(of_txt, of_img))
        del of_txt, of_img
        words = txt.shape[1]
        attended = _attend((q, k, v), pe, attn_mask, options, {**options, "img_slice": [words, q.shape[2]]})
        del q, k, v
        self._finish("img", img, attended[:, words:], img_first, img_second, modulation_dims_img)
        self._finish("txt", txt, attended[:, :words], txt_first, txt_second, modulation_dims_txt)
        return img, _finite(txt)

    def _finish(
        self, stream: str, x: torch.Tensor, attended: torch.Tensor, first: ModulationOut, second: ModulationOut, ranges: Ranges | None
    ) -> None:
        """Add what was attended to, and then the feed-forward layer's result, to the tokens *x* of *stream*, in place."""
        x += apply_mod(getattr(self, f"{stream}_attn").proj(attended), first.gate, None, ranges)
        fed = getattr(self, f"{stream}_mlp")(_modulated(getattr(self, f"{stream}_norm2")(x), second, ranges))
        x += apply_mod(fed, second.gate, None, ranges)


class SingleStreamBlock(torch.nn.Module):
    """Attention and feed-forward side by side, from one layer and into one layer (Dehghani et al. 2023, arXiv:2302.05442)."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qk_scale: float | None = None,
        modulation: bool = True,
        mlp_silu_act: bool = False,
        bias: bool = True,
        yak_mlp: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        self.hidden_dim = self.hidden_size = hidden_size
        self.num_heads, self.yak_mlp = num_heads, yak_mlp
        self.scale = qk_scale or (hidden_size // num_heads) ** -0.5
        self.mlp_hidden_dim = int(hidden_size * mlp_ratio)
        self.mlp_hidden_dim_first = self.mlp_hidden_dim * (2 if mlp_silu_act or yak_mlp else 1)
        self.linear1 = operations.Linear(hidden_size, hidden_size * 3 + self.mlp_hidden_dim_first, bias=bias, **kept)
        self.linear2 = operations.Linear(hidden_size + self.mlp_hidden_dim, hidden_size, bias=bias, **kept)
        self.norm = QKNorm(hidden_size // num_heads, operations=operations, **kept)
        self.pre_norm = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6, **kept)
        self.modulation = Modulation(hidden_size, double=False, operations=operations, **kept) if modulation else None
        self.mlp_act: torch.nn.Module = torch.nn.GELU(approximate="tanh")
        if yak_mlp:
            self.mlp_act = torch.nn.SiLU()
        elif mlp_silu_act:
            self.mlp_act = SiLUActivation()

    def forward(
        self,
        x: torch.Tensor,
        vec: Any,
        pe: torch.Tensor | None,
        attn_mask: torch.Tensor | None = None,
        modulation_dims: Ranges | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """All tokens (B x N x C) after the block; *vec* as in :class:`DoubleStreamBlock`."""
        options = {} if transformer_options is None else transformer_options
        mod = vec if self.modulation is None else self.modulation(vec)[0]
        widened = self.linear1(_modulated(self.pre_norm(x), mod, modulation_dims))
        qkv, wide = widened.split([3 * self.hidden_size, self.mlp_hidden_dim_first], dim=-1)
        attended = _attend(split_heads(qkv, self.num_heads, self.norm), pe, attn_mask, options, dict(options))
        x += apply_mod(self.linear2(torch.cat((attended, self._activated(wide)), 2)), mod.gate, None, modulation_dims)
        return _finite(x)

    def _activated(self, wide: torch.Tensor) -> torch.Tensor:
        if not self.yak_mlp:
            return self.mlp_act(wide)
        value, gate = wide.chunk(2, dim=-1)
        return self.mlp_act(gate) * value


class LastLayer(torch.nn.Module):
    """From tokens to patches of the latent."""

    def __init__(
        self,
        hidden_size: int,
        patch_size: int,
        out_channels: int,
        bias: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        self.norm_final = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6, **kept)
        self.linear = operations.Linear(hidden_size, patch_size * patch_size * out_channels, bias=bias, **kept)
        modulation = operations.Linear(hidden_size, 2 * hidden_size, bias=bias, **kept)
        self.adaLN_modulation = torch.nn.Sequential(torch.nn.SiLU(), modulation)

    def forward(self, x: torch.Tensor, vec: torch.Tensor, modulation_dims: Ranges | None = None) -> torch.Tensor:
        """B x N x C to B x N x (values of a patch); *vec* is B x C or B x rows x C."""
        shift, scale = self.adaLN_modulation(vec if vec.ndim == 3 else vec[:, None]).chunk(2, dim=-1)
        return self.linear(apply_mod(self.norm_final(x), 1 + scale, shift, modulation_dims))
