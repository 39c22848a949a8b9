"""The layers of Stable Diffusion 3, with ComfyUI's constructors, attributes and parameter names.

Shapes: B batch, N tokens, C channels, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import comfy.ldm.common_dit
import comfy.ops
from comfy.families.timestep_embedding import timestep_embedding
from comfy.ldm.modules.attention import optimized_attention

Heads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
EPS = 1e-6
MIDDLE = 7.5  # of computed positions, and how far they reach along the shorter side


class Mlp(torch.nn.Module):
    """Two linear layers (1 x 1 convolutions with *use_conv*) with an activation between them."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Callable[[], torch.nn.Module] = torch.nn.GELU,
        bias: bool = True,
        use_conv: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        inner = hidden_features or in_features

        def layer(width: int, target: int) -> torch.nn.Module:
            if use_conv:
                return operations.Conv2d(width, target, 1, bias=bias, dtype=dtype, device=device)
            return operations.Linear(width, target, bias=bias, dtype=dtype, device=device)

        self.fc1, self.act, self.fc2 = layer(in_features, inner), act_layer(), layer(inner, out_features or in_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out)."""
        return self.fc2(self.act(self.fc1(x)))


def tanh_gelu() -> torch.nn.Module:
    """GELU by its approximation with tanh."""
    return torch.nn.GELU(approximate="tanh")


class PatchEmbed(torch.nn.Module):
    """Cuts latents into patches and gives each its token. Latents that are no whole number of patches are padded."""

    def __init__(
        self,
        img_size: int | None = 224,
        patch_size: Any = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        norm_layer: Callable[[int], torch.nn.Module] | None = None,
        flatten: bool = True,
        bias: bool = True,
        strict_img_size: bool = True,
        dynamic_img_pad: bool = True,
        padding_mode: str = "circular",
        conv3d: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        axes = 3 if conv3d else 2
        self.patch_size: tuple[int, ...] = (patch_size,) * axes if isinstance(patch_size, int) else tuple(patch_size)
        self.flatten, self.dynamic_img_pad, self.padding_mode = flatten, dynamic_img_pad, padding_mode
        sizes = {"kernel_size": self.patch_size, "stride": self.patch_size, "bias": bias, "dtype": dtype, "device": device}
        self.proj = (operations.Conv3d if conv3d else operations.Conv2d)(in_chans, embed_dim, **sizes)
        self.norm = torch.nn.Identity() if norm_layer is None else norm_layer(embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x channels x height x width to B x N x C (to B x C x rows x columns where ``flatten`` is off)."""
        if self.dynamic_img_pad:
            x = comfy.ldm.common_dit.pad_to_patch_size(x, self.patch_size, padding_mode=self.padding_mode)
        tokens = self.proj(x)
        return self.norm(tokens.flatten(2).transpose(1, 2) if self.flatten else tokens)


def modulate(x: torch.Tensor, shift: torch.Tensor | None, scale: torch.Tensor) -> torch.Tensor:
    """*x* (B x N x C) times 1 + *scale* (B x C), plus *shift* if there is one."""
    widened = 1 + scale.unsqueeze(1)
    return x * widened if shift is None else torch.addcmul(shift.unsqueeze(1), x, widened)


def get_2d_sincos_pos_embed_torch(
    embed_dim: int,
    w: int,
    h: int,
    val_center: float = MIDDLE,
    val_magnitude: float = MIDDLE,
    device: Any = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Sines and cosines of the places of *h* x *w* patches: (h · w) x *embed_dim*, half for the column, half for the row."""
    frequencies = 1.0 / 10000 ** (torch.arange(embed_dim // 4, device=device, dtype=dtype) / (embed_dim / 4))

    def waves(count: int) -> torch.Tensor:
        reach = val_magnitude * count / min(h, w)
        angles = torch.linspace(val_center - reach, val_center + reach, count, device=device, dtype=dtype)[:, None] * frequencies
        return torch.cat((angles.sin(), angles.cos()), dim=1)

    columns, rows = waves(w)[None].expand(h, -1, -1), waves(h)[:, None].expand(-1, w, -1)
    return torch.cat((columns, rows), dim=-1).flatten(0, 1)


class TimestepEmbedder(torch.nn.Module):
    """Embeds times by sines and cosines and two linear layers with SiLU between them."""

    def __init__(
        self,
        hidden_size: int,
        frequency_embedding_size: int = 256,
        output_size: int | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
        max_period: int = 10000,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.mlp = torch.nn.Sequential(
            operations.Linear(frequency_embedding_size, hidden_size, **kept),
            torch.nn.SiLU(),
            operations.Linear(hidden_size, hidden_size if output_size is None else output_size, **kept),
        )
        self.frequency_embedding_size, self.max_period = frequency_embedding_size, max_period

    def forward(self, t: torch.Tensor, dtype: torch.dtype, **kwargs: Any) -> torch.Tensor:
        """Times (B) as B x output size in *dtype*."""
        return self.mlp(timestep_embedding(t, self.frequency_embedding_size, self.max_period).to(dtype))


class VectorEmbedder(torch.nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, input_dim: int, hidden_size: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.mlp = torch.nn.Sequential(
            operations.Linear(input_dim, hidden_size, **kept), torch.nn.SiLU(), operations.Linear(hidden_size, hidden_size, **kept)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x input to B x hidden."""
        return self.mlp(x)


class RMSNorm(torch.nn.Module):
    """Divides by the root of the mean square; scales by a weight with *elementwise_affine*."""

    def __init__(
        self, dim: int, elementwise_affine: bool = False, eps: float = EPS, device: Any = None, dtype: Any = None, **kwargs: Any
    ) -> None:
        super().__init__()
        self.eps, self.learnable_scale = eps, elementwise_affine
        self.weight: torch.nn.Parameter | None
        weight = torch.nn.Parameter(torch.empty(dim, device=device, dtype=dtype)) if elementwise_affine else None
        self.register_parameter("weight", weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, dim)."""
        return comfy.ldm.common_dit.rms_norm(x, self.weight, self.eps)


def split_qkv(qkv: torch.Tensor, head_dim: int) -> Heads:
    """Queries, keys and values of *qkv* (B x N x 3·C): B x N x heads x D each."""
    q, k, v = qkv.unflatten(-1, (3, -1, head_dim)).unbind(2)
    return q, k, v


class SelfAttention(torch.nn.Module):
    """The projections of one stream's attention; the joint block attends. Without ``proj`` if nothing comes after it (*pre_only*)."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        pre_only: bool = False,
        qk_norm: str | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        self.num_heads, self.head_dim, self.pre_only = num_heads, dim // num_heads, pre_only
        self.qkv = operations.Linear(dim, dim * 3, bias=qkv_bias, **kept)
        if not pre_only:
            self.proj = operations.Linear(dim, dim, **kept)
        kinds: dict[str | None, Callable[[], torch.nn.Module]] = {
            None: torch.nn.Identity,
            "rms": lambda: RMSNorm(self.head_dim, elementwise_affine=True, **kept),
            "ln": lambda: operations.LayerNorm(self.head_dim, eps=EPS, **kept),
        }
        if qk_norm not in kinds:
            raise ValueError(f"queries and keys are normalised by 'rms', 'ln' or not at all, not by {qk_norm!r}")
        self.ln_q, self.ln_k = kinds[qk_norm](), kinds[qk_norm]()

    def pre_attention(self, x: torch.Tensor) -> Heads:
        """Queries and keys (normalised) and values of tokens *x*: B x N x C each, values B x N x heads x D."""
        q, k, v = split_qkv(self.qkv(x), self.head_dim)
        return self.ln_q(q).flatten(2), self.ln_k(k).flatten(2), v.flatten(2)

    def post_attention(self, x: torch.Tensor) -> torch.Tensor:
        """What the tokens attended to, projected."""
        return self.proj(x)


class DismantledBlock(torch.nn.Module):
    """One stream of a joint block in halves, before and after attention.

    ``attn2`` (with *x_block_self_attn*) lets the picture attend to itself once more. With *pre_only* nothing comes after attention.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        pre_only: bool = False,
        qk_norm: str | None = None,
        x_block_self_attn: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        attention: dict[str, Any] = {"num_heads": num_heads, "qkv_bias": qkv_bias, "qk_norm": qk_norm, "operations": operations, **kept}
        self.pre_only, self.x_block_self_attn = pre_only, x_block_self_attn
        self.norm1 = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=EPS, **kept)
        self.attn = SelfAttention(hidden_size, pre_only=pre_only, **attention)
        if x_block_self_attn:
            self.attn2 = SelfAttention(hidden_size, **attention)
        if not pre_only:
            self.norm2 = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=EPS, **kept)
            self.mlp = Mlp(hidden_size, int(hidden_size * mlp_ratio), act_layer=tanh_gelu, operations=operations, **kept)
        parts = 9 if x_block_self_attn else 2 if pre_only else 6
        self.adaLN_modulation = torch.nn.Sequential(torch.nn.SiLU(), operations.Linear(hidden_size, parts * hidden_size, **kept))
        self._parts = parts

    def pre_attention(self, x: torch.Tensor, c: torch.Tensor) -> tuple[Heads, tuple[torch.Tensor, ...] | None]:
        """Heads of tokens *x* for the conditioning *c* (B x C), and what :meth:`post_attention` needs besides (None with ``pre_only``)."""
        shift, scale, *others = self.adaLN_modulation(c).chunk(self._parts, dim=1)
        heads = self.attn.pre_attention(modulate(self.norm1(x), shift, scale))
        return heads, None if self.pre_only else (x, *others)

    def post_attention(
        self,
        attn: torch.Tensor,
        x: torch.Tensor,
        gate_msa: torch.Tensor,
        shift_mlp: torch.Tensor,
        scale_mlp: torch.Tensor,
        gate_mlp: torch.Tensor,
    ) -> torch.Tensor:
        """The tokens after what they attended to, *attn*, and the feed-forward layer."""
        x = x + gate_msa.unsqueeze(1) * self.attn.post_attention(attn)
        return x + gate_mlp.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))

    def pre_attention_x(self, x: torch.Tensor, c: torch.Tensor) -> tuple[Heads, Heads, tuple[torch.Tensor, ...]]:
        """Heads for both attentions, and what :meth:`post_attention_x` needs besides."""
        shift, scale, gate, *feed, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(self._parts, dim=1)
        normal = self.norm1(x)
        heads = self.attn.pre_attention(modulate(normal, shift, scale))
        return heads, self.attn2.pre_attention(modulate(normal, shift2, scale2)), (x, gate, *feed, gate2)

    def post_attention_x(
        self,
        attn: torch.Tensor,
        attn2: torch.Tensor,
        x: torch.Tensor,
        gate_msa: torch.Tensor,
        shift_mlp: torch.Tensor,
        scale_mlp: torch.Tensor,
        gate_mlp: torch.Tensor,
        gate_msa2: torch.Tensor,
    ) -> torch.Tensor:
        """The tokens after both attentions and the feed-forward layer."""
        x = gate_cat(x, gate_msa, gate_msa2, self.attn.post_attention(attn), self.attn2.post_attention(attn2))
        return x + gate_mlp.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """The stream alone: tokens *x* (B x N x C) after the block."""
        heads = self.attn.num_heads
        if self.x_block_self_attn:
            own, again, kept = self.pre_attention_x(x, c)
            return self.post_attention_x(optimized_attention(*own, heads), optimized_attention(*again, heads), *kept)
        own, kept_one = self.pre_attention(x, c)
        return self.post_attention(optimized_attention(*own, heads), *(kept_one or ()))


def gate_cat(x: torch.Tensor, gate_msa: torch.Tensor, gate_msa2: torch.Tensor, attn1: torch.Tensor, attn2: torch.Tensor) -> torch.Tensor:
    """*x* and the results of both attentions, gated, added up."""
    return x + gate_msa.unsqueeze(1) * attn1 + gate_msa2.unsqueeze(1) * attn2


def block_mixing(
    context: torch.Tensor,
    x: torch.Tensor,
    context_block: Any,
    x_block: Any,
    c: torch.Tensor,
    transformer_options: Any = None,
    **unused: Any,
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Text and picture tokens after a joint block; None for text that nothing needs any more."""
    options = {} if transformer_options is None else transformer_options
    of_text, kept_text = context_block.pre_attention(context, c)
    again: Any = None
    if x_block.x_block_self_attn:
        of_picture, again, kept = x_block.pre_attention_x(x, c)
    else:
        of_picture, kept = x_block.pre_attention(x, c)
    heads, words = x_block.attn.num_heads, context.shape[1]
    joint = (torch.cat(pair, dim=1) for pair in zip(of_text, of_picture))
    attended = optimized_attention(*joint, heads=heads, transformer_options=options)
    text = None if context_block.pre_only else context_block.post_attention(attended[:, :words], *kept_text)
    if again is None:
        return text, x_block.post_attention(attended[:, words:], *kept)
    alone = optimized_attention(*again, heads=heads, transformer_options=options)
    return text, x_block.post_attention_x(attended[:, words:], alone, *kept)


class JointBlock(torch.nn.Module):
    """The streams of text (``context_block``) and picture (``x_block``) of one width and one number of heads."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        pre_only: bool,
        qk_norm: str | None = None,
        x_block_self_attn: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.context_block = DismantledBlock(hidden_size, num_heads, pre_only=pre_only, qk_norm=qk_norm, **kwargs)
        self.x_block = DismantledBlock(hidden_size, num_heads, qk_norm=qk_norm, x_block_self_attn=x_block_self_attn, **kwargs)

    def forward(self, context: torch.Tensor, x: torch.Tensor, c: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Text and picture tokens after the block; None for text that nothing needs any more."""
        return block_mixing(context, x, self.context_block, self.x_block, c, **kwargs)


class FinalLayer(torch.nn.Module):
    """From tokens to patches."""

    def __init__(
        self, hidden_size: int, patch_size: int, out_channels: int, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        self.norm_final = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=EPS, **kept)
        self.linear = operations.Linear(hidden_size, patch_size * patch_size * out_channels, **kept)
        self.adaLN_modulation = torch.nn.Sequential(torch.nn.SiLU(), operations.Linear(hidden_size, 2 * hidden_size, **kept))

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """B x N x C to B x N x values of a patch."""
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))
