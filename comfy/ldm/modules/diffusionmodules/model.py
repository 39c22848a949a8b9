"""The encoder and decoder of Stable Diffusion's autoencoder, in ComfyUI's tree and with its constructors.

The paths of parameters (``decoder.mid.attn_1.q.weight``) are the published names. Node packs walk ``down``, ``mid`` and ``up``. Shapes: B
batch, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.model_management
import comfy.ops
from comfy.cli_args import args
from comfy.ldm.modules.attention_in_parts import attention_split
from comfy.ldm.modules.diffusionmodules.fixed_arguments import AUTOENCODER, refuse_others
from comfy.residency.attention_asked import IN_PARTS, asked_attention

ops = comfy.ops.disable_weight_init


def nonlinearity(x: torch.Tensor) -> torch.Tensor:
    """SiLU."""
    return F.silu(x)


def Normalize(in_channels: int, num_groups: int = 32) -> torch.nn.GroupNorm:  # noqa: N802 - the name node packs import
    """The norm before each convolution."""
    return ops.GroupNorm(num_groups=num_groups, num_channels=in_channels, eps=1e-6, affine=True)


class PointwiseConv2d(ops.Conv2d):
    """A 1x1 convolution, computed as one matrix product over all positions."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        out = F.linear(input.flatten(2).transpose(1, 2), weight[:, :, 0, 0], bias)
        return out.transpose(1, 2).unflatten(2, input.shape[2:])


class Upsample(torch.nn.Module):
    """Nearest-neighbour doubling, then a convolution if *with_conv*."""

    def __init__(self, in_channels: int, with_conv: bool, conv_op: Any = ops.Conv2d, scale_factor: float = 2.0) -> None:
        super().__init__()
        self.with_conv, self.scale_factor = with_conv, scale_factor
        if with_conv:
            self.conv = conv_op(in_channels, in_channels, kernel_size=3, stride=1, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x height x width to twice both."""
        x = F.interpolate(x, scale_factor=self.scale_factor, mode="nearest")
        return self.conv(x) if self.with_conv else x


class Downsample(torch.nn.Module):
    """Halves height and width, rounded down: a convolution over the picture padded below and right, or a mean over 2 x 2."""

    def __init__(self, in_channels: int, with_conv: bool, stride: Any = 2, conv_op: Any = ops.Conv2d) -> None:
        super().__init__()
        self.with_conv = with_conv
        if with_conv:
            self.conv = conv_op(in_channels, in_channels, kernel_size=3, stride=stride, padding=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x height x width to half of both."""
        return self.conv(F.pad(x, (0, 1, 0, 1))) if self.with_conv else F.avg_pool2d(x, kernel_size=2, stride=2)


class ResnetBlock(torch.nn.Module):
    """Two normalised convolutions with a residual connection; *temb_channels* other than 0 adds an embedding between them."""

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int | None = None,
        conv_shortcut: bool = False,
        dropout: float = 0.0,
        temb_channels: int = 512,
        conv_op: Any = ops.Conv2d,
        norm_op: Any = Normalize,
    ) -> None:
        super().__init__()
        self.in_channels, self.use_conv_shortcut = in_channels, conv_shortcut
        self.out_channels = width = in_channels if out_channels is None else out_channels
        self.swish = torch.nn.SiLU(inplace=True)
        self.norm1 = norm_op(in_channels)
        self.conv1 = conv_op(in_channels, width, kernel_size=3, stride=1, padding=1)
        if temb_channels > 0:
            self.temb_proj = ops.Linear(temb_channels, width)
        self.norm2 = norm_op(width)
        self.dropout = torch.nn.Dropout(dropout, inplace=True)
        self.conv2 = conv_op(width, width, kernel_size=3, stride=1, padding=1)
        if in_channels != width and conv_shortcut:
            self.conv_shortcut = conv_op(in_channels, width, kernel_size=3, stride=1, padding=1)
        elif in_channels != width:
            self.nin_shortcut = conv_op(in_channels, width, kernel_size=1, stride=1, padding=0)

    def forward(self, x: torch.Tensor, temb: torch.Tensor | None = None) -> torch.Tensor:
        """B x C in x height x width to B x C out x height x width; *temb*: B x its channels."""
        h = self.conv1(self.swish(self.norm1(x)))
        if temb is not None:
            h = h + self.temb_proj(F.silu(temb))[:, :, None, None]
        h = self.conv2(self.dropout(self.swish(self.norm2(h))))
        if self.in_channels != self.out_channels:
            x = self.conv_shortcut(x) if self.use_conv_shortcut else self.nin_shortcut(x)
        return h.add_(x)


def pytorch_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention with one head over the positions of feature maps B x C x height x width."""
    q_tokens, k_tokens, v_tokens = (part.flatten(2).transpose(1, 2)[:, None] for part in (q, k, v))
    out = F.scaled_dot_product_attention(q_tokens, k_tokens, v_tokens)
    return out[:, 0].transpose(1, 2).unflatten(2, q.shape[2:])


def attention_by_flags(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The same result; in parts where a flag asks for that, and on cards whose fused attention fails at high resolutions (AMD's)."""
    management = comfy.model_management
    is_refused = q.device.type == "cuda" and not management.pytorch_attention_enabled_vae()
    if not is_refused and asked_attention(args) not in IN_PARTS:
        return pytorch_attention(q, k, v)
    out = attention_split(*(part.flatten(2).transpose(1, 2) for part in (q, k, v)), heads=1)
    return out.transpose(1, 2).unflatten(2, q.shape[2:])


def vae_attention() -> Any:
    """The attention function in use."""
    return attention_by_flags


class AttnBlock(torch.nn.Module):
    """Self-attention over all positions with a residual connection."""

    def __init__(self, in_channels: int, conv_op: Any = PointwiseConv2d, norm_op: Any = Normalize) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.norm = norm_op(in_channels)
        self.q, self.k, self.v = (conv_op(in_channels, in_channels, kernel_size=1) for _ in range(3))
        self.proj_out = conv_op(in_channels, in_channels, kernel_size=1)
        self.optimized_attention = vae_attention()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x height x width to the same."""
        h = self.norm(x)
        return x + self.proj_out(self.optimized_attention(self.q(h), self.k(h), self.v(h)))


def make_attn(in_channels: int, attn_type: str = "vanilla", attn_kwargs: Any = None, **kwargs: Any) -> AttnBlock:
    """The attention of a middle block. Raises ``ValueError`` for another *attn_type*."""
    refuse_others("make_attn", {"attn_type": attn_type}, AUTOENCODER)
    return AttnBlock(in_channels, **kwargs)


class _Level(torch.nn.Module):
    """Residual blocks at one size (``block``, no ``attn``), with ``downsample`` or ``upsample`` where the size changes."""

    downsample: Downsample
    upsample: Upsample

    def __init__(self, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.block = torch.nn.ModuleList(_residual(*pair, dropout) for pair in zip(widths, widths[1:]))
        self.attn = torch.nn.ModuleList()


class _Middle(torch.nn.Module):
    """Residual, attention, residual."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = _residual(width, width, dropout)
        self.attn_1 = make_attn(width)
        self.block_2 = _residual(width, width, dropout)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """B x C x height x width to the same."""
        return self.block_2(self.attn_1(self.block_1(h)))


def _residual(channels_in: int, channels_out: int, dropout: float) -> ResnetBlock:
    return ResnetBlock(in_channels=channels_in, out_channels=channels_out, temb_channels=0, dropout=dropout)


class Encoder(torch.nn.Module):
    """Pictures B x *in_channels* x height x width to the moments of their latents, two times *z_channels* if *double_z*.

    Raises ``TypeError`` and ``ValueError`` for arguments that ask for another network, as :class:`Decoder` does.
    """

    def __init__(
        self,
        *,
        ch: int,
        in_channels: int,
        z_channels: int,
        num_res_blocks: int,
        ch_mult: Sequence[int] = (1, 2, 4, 8),
        dropout: float = 0.0,
        resamp_with_conv: bool = True,
        resolution: int = 256,
        double_z: bool = True,
        **fixed: Any,
    ) -> None:
        super().__init__()
        refuse_others("Encoder", fixed, AUTOENCODER)
        self.ch, self.temb_ch, self.in_channels, self.resolution = ch, 0, in_channels, resolution
        self.num_resolutions, self.num_res_blocks = len(ch_mult), num_res_blocks
        self.conv_in = ops.Conv2d(in_channels, ch, kernel_size=3, stride=1, padding=1)
        self.in_ch_mult = (1, *ch_mult)
        self.down: Any = torch.nn.ModuleList()
        width = ch
        for number, multiple in enumerate(ch_mult):
            level = _Level([width, *(ch * multiple,) * num_res_blocks], dropout)
            width = ch * multiple
            if number + 1 < len(ch_mult):
                level.downsample = Downsample(width, resamp_with_conv)
            self.down.append(level)
        self.mid = _Middle(width, dropout)
        self.norm_out = Normalize(width)
        self.conv_out = ops.Conv2d(width, 2 * z_channels if double_z else z_channels, kernel_size=3, stride=1, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The moments, B x channels x height / ratio x width / ratio."""
        h = self.conv_in(x)
        for level in self.down:
            for block in level.block:
                h = block(h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h)), inplace=True))


class Decoder(torch.nn.Module):
    """Latents B x *z_channels* x height x width to pictures with *out_ch* channels; ``up[0]`` is the level of the picture's size."""

    def __init__(
        self,
        *,
        ch: int,
        out_ch: int,
        z_channels: int,
        num_res_blocks: int,
        ch_mult: Sequence[int] = (1, 2, 4, 8),
        dropout: float = 0.0,
        resamp_with_conv: bool = True,
        in_channels: int = 3,
        resolution: int = 256,
        tanh_out: bool = False,
        **fixed: Any,
    ) -> None:
        super().__init__()
        refuse_others("Decoder", fixed, AUTOENCODER)
        self.ch, self.temb_ch, self.in_channels, self.resolution = ch, 0, in_channels, resolution
        self.num_resolutions, self.num_res_blocks, self.tanh_out, self.give_pre_end = len(ch_mult), num_res_blocks, tanh_out, False
        width = ch * ch_mult[-1]
        side = resolution // 2 ** (len(ch_mult) - 1)
        self.z_shape = (1, z_channels, side, side)
        self.conv_in = ops.Conv2d(z_channels, width, kernel_size=3, stride=1, padding=1)
        self.mid = _Middle(width, dropout)
        levels: list[_Level] = []
        for number, multiple in reversed(list(enumerate(ch_mult))):
            level = _Level([width, *(ch * multiple,) * (num_res_blocks + 1)], dropout)
            width = ch * multiple
            if number:
                level.upsample = Upsample(width, resamp_with_conv)
            levels.insert(0, level)
        self.up: Any = torch.nn.ModuleList(levels)
        self.norm_out = Normalize(width)
        self.conv_out = ops.Conv2d(width, out_ch, kernel_size=3, stride=1, padding=1)

    def get_last_layer(self) -> torch.Tensor:
        """The last layer's weight."""
        return self.conv_out.weight

    def forward(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The pictures, B x channels x height * ratio x width * ratio."""
        h = self.mid(self.conv_in(z))
        for level in reversed(list(self.up)):
            for block in level.block:
                h = block(h)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        h = self.conv_out(F.silu(self.norm_out(h), inplace=True))
        return torch.tanh(h) if self.tanh_out else h
