"""How Wan-Animate sees what faces do: pictures of a face become motion vectors (the encoder of LIA, Wang et al. 2022, whose layers are
StyleGAN 2's), these tokens, and the video's tokens attend to them. In ComfyUI's tree and published weight names.

Shapes: B batch, F frames of a face, L latent frames, N tokens of a latent frame's face, S tokens of the video, C width of a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.modules.attention
import comfy.model_management
from comfy.ldm.wan.hearing import EPS, CausalConv1d

GAIN = 2**0.5  # what an activation multiplies by, as it halves the variance
SLOPE = 0.2
BLUR = (1.0, 3.0, 3.0, 1.0)
WIDTHS = (32, 64, 128, 256, 512, 512, 512, 512)  # channels of a face's picture of 512 x 512, then of each half of its sides


def _cast(parameter: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return comfy.model_management.cast_to(parameter, dtype=like.dtype, device=like.device)


def _even(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """*layer* of *x*, its weight over the root of its number of inputs; these are divided, as the weight may be quantised."""
    weight: Any = layer.weight
    value: torch.Tensor = layer(x * math.prod(weight.shape[1:]) ** -0.5)
    return value


class FusedLeakyReLU(torch.nn.Module):
    """A bias for each channel of B x C x H x W, and a leaky ReLU that keeps the variance."""

    def __init__(self, channel: int, **kept: Any) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.empty(1, channel, 1, 1, **kept))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of any B x C x H x W."""
        return F.leaky_relu(x + _cast(self.bias, x), SLOPE) * GAIN


class Blur(torch.nn.Module):
    """Averages neighbours, channel by channel, after *pad* zeros before and after rows and columns. Files hold its fixed numbers too."""

    def __init__(self, kernel: Sequence[float], pad: tuple[int, int]) -> None:
        super().__init__()
        self.weights, self.pad = tuple(kernel), pad

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of any B x C x H x W."""
        line, channels = x.new_empty(len(self.weights), dtype=torch.float32), x.shape[1]
        for place, weight in enumerate(self.weights[::-1]):  # filled, not copied: nothing waits for the host
            line[place].fill_(weight / sum(self.weights))
        square = torch.outer(line, line).to(x.dtype).expand(channels, 1, -1, -1)
        return F.conv2d(F.pad(x, self.pad * 2), square, groups=channels)


class ConvLayer(torch.nn.Sequential):
    """A convolution; pictures whose sides it halves are blurred before, and *activate* adds a bias and a leaky ReLU."""

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        kernel_size: int,
        downsample: bool = False,
        activate: bool = True,
        operations: Any = None,
        **kept: Any,
    ) -> None:
        layers: list[torch.nn.Module] = []
        moved = {"padding": kernel_size // 2}
        if downsample:
            around = len(BLUR) + kernel_size - 3
            layers.append(Blur(BLUR, ((around + 1) // 2, around // 2)))
            moved = {"stride": 2}
        self.place = len(layers)
        layers.append(operations.Conv2d(in_channel, out_channel, kernel_size, bias=False, **moved, **kept))
        if activate:
            layers.append(FusedLeakyReLU(out_channel, **kept))
        super().__init__(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x in x H x W to B x out x H' x W'."""
        for layer in self:
            x = _even(layer, x) if hasattr(layer, "weight") else layer(x)
        return x


class ResBlock(torch.nn.Module):
    """Two convolutions, and one beside them; half of the sides."""

    def __init__(self, in_channel: int, out_channel: int, **kept: Any) -> None:
        super().__init__()
        self.conv1 = ConvLayer(in_channel, in_channel, 3, **kept)
        self.conv2 = ConvLayer(in_channel, out_channel, 3, downsample=True, **kept)
        self.skip = ConvLayer(in_channel, out_channel, 1, downsample=True, activate=False, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x in x H x W to B x out x H/2 x W/2."""
        return (self.conv2(self.conv1(x)) + self.skip(x)) * 0.5**0.5


class EncoderApp(torch.nn.Module):
    """Pictures become vectors. *widths*: channels at the beginning, and after each halving down to 4 x 4."""

    def __init__(self, w_dim: int = 512, widths: Sequence[int] = WIDTHS, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        made = {"operations": operations, **kept}
        halving = [ResBlock(wide, narrow, **made) for wide, narrow in zip(widths, widths[1:])]
        last = operations.Conv2d(widths[-1], w_dim, 4, bias=False, **kept)
        self.convs = torch.nn.ModuleList([ConvLayer(3, widths[0], 1, **made), *halving, last])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x 3 x H x W to B x *w_dim*."""
        *layers, last = self.convs
        for layer in layers:
            x = layer(x)
        return _even(last, x).flatten(1)


class Encoder(torch.nn.Module):
    """Pictures become what of a motion they show: one number for each direction."""

    def __init__(self, dim: int = 512, motion_dim: int = 20, widths: Sequence[int] = WIDTHS, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.net_app = EncoderApp(dim, widths, operations=operations, **kept)
        self.fc = torch.nn.Sequential(*(operations.Linear(dim, size, **kept) for size in (dim, dim, dim, dim, motion_dim)))

    def encode_motion(self, x: torch.Tensor) -> torch.Tensor:
        """B x 3 x H x W to B x *motion_dim*."""
        x = self.net_app(x)
        for layer in self.fc:
            x = _even(layer, x)
        return x


class Direction(torch.nn.Module):
    """The directions of motions, made orthogonal at each call."""

    def __init__(self, motion_dim: int, dim: int = 512, **kept: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(dim, motion_dim, **kept))
        self.motion_dim = motion_dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x *motion_dim* to B x *dim*: the sum of the directions times their numbers."""
        weight = _cast(self.weight, x)
        weight = weight + 1e-8 * torch.eye(*weight.shape, device=x.device, dtype=x.dtype)  # so that zeros have directions too
        across: torch.Tensor = torch.linalg.qr(weight.float())[0]
        return x @ across.T.to(x.dtype)


class Synthesis(torch.nn.Module):
    """What a motion is put together from."""

    def __init__(self, motion_dim: int, dim: int = 512, **kept: Any) -> None:
        super().__init__()
        self.direction = Direction(motion_dim, dim, **kept)


class Generator(torch.nn.Module):
    """The part of LIA that tells a face's motion from its picture."""

    def __init__(
        self,
        style_dim: int = 512,
        motion_dim: int = 20,
        dim: int = 512,
        widths: Sequence[int] = WIDTHS,
        operations: Any = None,
        **kept: Any,
    ) -> None:
        super().__init__()
        self.enc = Encoder(style_dim, motion_dim, widths, operations=operations, **kept)
        self.dec = Synthesis(motion_dim, dim, **kept)

    def get_motion(self, img: torch.Tensor) -> torch.Tensor:
        """Pictures of faces, B x 3 x H x W in -1…1, to B x *dim*."""
        moved: torch.Tensor = self.dec.direction(self.enc.encode_motion(img))
        return moved


class FaceEncoder(torch.nn.Module):
    """A face's motion over time becomes tokens, several for each latent frame, and one that is learnt."""

    def __init__(self, in_dim: int, hidden_dim: int, num_heads: int = 4, between: int = 1024, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        made = {"operations": operations, **kept}
        self.num_heads = num_heads
        self.conv1_local = CausalConv1d(in_dim, between * num_heads, **made)
        self.conv2 = CausalConv1d(between, between, 2, **made)
        self.conv3 = CausalConv1d(between, between, 2, **made)
        self.out_proj = operations.Linear(between, hidden_dim, **kept)
        self.padding_tokens = torch.nn.Parameter(torch.empty(1, 1, 1, hidden_dim, **kept))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x F x in to B x L x N x C."""
        heads = self.conv1_local(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2).flatten(0, 1)
        for layer in (self.conv2, self.conv3, self.out_proj):
            heads = layer(F.silu(F.layer_norm(heads, heads.shape[-1:], eps=EPS)))
        tokens = heads.unflatten(0, (len(x), -1)).transpose(1, 2)
        return torch.cat((tokens, _cast(self.padding_tokens, tokens).expand(*tokens.shape[:2], -1, -1)), dim=2)


class FaceBlock(torch.nn.Module):
    """Attention of a latent frame's tokens to what its face does."""

    def __init__(self, hidden_size: int, heads_num: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.hidden_size, self.heads_num = hidden_size, heads_num
        self.linear1_kv = operations.Linear(hidden_size, hidden_size * 2, **kept)
        self.linear1_q = operations.Linear(hidden_size, hidden_size, **kept)
        self.linear2 = operations.Linear(hidden_size, hidden_size, **kept)
        self.q_norm, self.k_norm = (operations.RMSNorm(hidden_size // heads_num, eps=EPS, **kept) for _ in range(2))

    def forward(self, x: torch.Tensor, motion_vec: torch.Tensor) -> torch.Tensor:
        """What is added to *x*, B x S x C; *motion_vec* B x L x N x C, where S is a multiple of L."""
        sides = (self.heads_num, self.hidden_size // self.heads_num)
        key, value = self.linear1_kv(F.layer_norm(motion_vec, motion_vec.shape[-1:], eps=EPS)).flatten(0, 1).chunk(2, dim=-1)
        query = self.linear1_q(F.layer_norm(x, x.shape[-1:], eps=EPS)).unflatten(1, (motion_vec.shape[1], -1)).flatten(0, 1)
        query, key = (norm(part.unflatten(-1, sides)).to(value).flatten(2) for norm, part in ((self.q_norm, query), (self.k_norm, key)))
        attended = comfy.ldm.modules.attention.optimized_attention(query, key, value, heads=self.heads_num)
        return self.linear2(attended.reshape(x.shape))


class FaceAdapter(torch.nn.Module):
    """Those blocks, one for every few of the network's."""

    def __init__(self, hidden_dim: int, heads_num: int, num_adapter_layers: int = 1, **kept: Any) -> None:
        super().__init__()
        self.fuser_blocks = torch.nn.ModuleList(FaceBlock(hidden_dim, heads_num, **kept) for _ in range(num_adapter_layers))

    def forward(self, x: torch.Tensor, motion_embed: torch.Tensor, idx: int) -> torch.Tensor:
        """What the block *idx* adds to *x*."""
        added: torch.Tensor = self.fuser_blocks[idx](x, motion_embed)
        return added
