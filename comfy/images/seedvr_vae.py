"""SeedVR2's autoencoder of videos: ByteDance's network, whose published weight names are much like diffusers', run a few frames at a time.

Shapes: B videos, C channels, F frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource
from comfy.images.hunyuan_vae import Carried
from comfy.ldm.modules.diffusionmodules.model import vae_attention

Shape = tuple[int, ...]
Kernel = int | tuple[int, int, int]
Layers = comfy.ops.disable_weight_init

WHAT = "the VAE"
SIDE, FRAMES, COLOURS = 8, 4, 3
SCALE = 0.9152  # of latents
GROUPS, SMALLEST = 32, 1e-6
ENCODER_BLOCKS, DECODER_BLOCKS = 2, 3  # of a level
# Numbers held at once for a pixel by the published sizes: beside the frames of a part, and for each of these.
ENCODED, DECODED = (700, 1000), (1500, 1600)


@dataclass(frozen=True, slots=True)
class SeedVRVaeConfig:
    """Sizes of one such autoencoder: channels, level by level; in which levels frames become fewer, or more; channels of latents."""

    widths: tuple[int, ...]
    fewer_frames: tuple[bool, ...]
    more_frames: tuple[bool, ...]
    latent_channels: int


def read_seedvr_vae_config(shapes: Mapping[str, Shape]) -> SeedVRVaeConfig:
    """The sizes that *shapes* (published names, no prefix) show. Raises ``KeyError`` for missing tensors, ``UnknownModelError`` for others
    of the kind.
    """
    levels = count_blocks(shapes, "encoder.down_blocks.{}.")
    down, up = "encoder.down_blocks.{}.downsamplers.0.conv.weight", "decoder.up_blocks.{}.upsamplers.0.upscale_conv.weight"
    found = SeedVRVaeConfig(
        widths=tuple(shapes[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"][0] for level in range(levels)),
        fewer_frames=tuple(shapes[down.format(level)][2] > 1 for level in range(levels - 1)),
        more_frames=tuple(shapes[up.format(level)][0] == 8 * shapes[up.format(level)][1] for level in range(levels - 1)),
        latent_channels=shapes["decoder.conv_in.weight"][1],
    )
    if levels != 4 or sum(found.fewer_frames) != 2 or sum(found.more_frames) != 2:
        raise UnknownModelError(
            f"it has {levels} levels, of which {sum(found.fewer_frames)} make frames fewer; supported: SeedVR2's, 4 and 2"
        )
    return found


class CausalConvolution(Carried, Layers.Conv3d):
    """Over frames and pictures, seeing no later frame; what lies before the first is as it is."""

    def __init__(self, inner: int, outer: int, kernel: Kernel, stride: Kernel = 1, padding: int = 0) -> None:
        super().__init__(inner, outer, kernel, stride, (0, padding, padding))
        self.lead, self.kept = self.kernel_size[0] - 1, self.kernel_size[0] - self.stride[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x F x H x W."""
        if self.lead:
            x = torch.cat((x[:, :, :1].expand(-1, -1, self.lead, -1, -1) if self.before is None else self.before, x), dim=2)
            if self.carries and self.kept:
                self.before = x[:, :, -self.kept :].clone()
        return super().forward(x)


def _per_frame(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """*layer*, of pictures, for each frame of *x* alone."""
    return layer(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)


class ResnetBlock3D(torch.nn.Module):
    """Two convolutions beside the way around them."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = Layers.GroupNorm(GROUPS, inner, SMALLEST), Layers.GroupNorm(GROUPS, outer, SMALLEST)
        self.conv1, self.conv2 = CausalConvolution(inner, outer, 3, padding=1), CausalConvolution(outer, outer, 3, padding=1)
        self.conv_shortcut = CausalConvolution(inner, outer, 1) if inner != outer else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x F x H x W."""
        hidden = self.conv1(F.silu(_per_frame(self.norm1, x)))
        hidden = self.conv2(F.silu(_per_frame(self.norm2, hidden)))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(torch.nn.Module):
    """Of the places of a picture to each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.group_norm = Layers.GroupNorm(GROUPS, width, SMALLEST)
        self.to_q, self.to_k, self.to_v = (Layers.Linear(width, width) for _ in range(3))
        self.to_out = torch.nn.ModuleList([Layers.Linear(width, width)])
        self.attention = vae_attention()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W."""
        places = self.group_norm(x).flatten(2).transpose(1, 2)
        query, key, value = (layer(places).transpose(1, 2).view_as(x) for layer in (self.to_q, self.to_k, self.to_v))
        seen = self.attention(query, key, value).flatten(2).transpose(1, 2)
        return x + self.to_out[0](seen).transpose(1, 2).view_as(x)


class UNetMidBlock3D(torch.nn.Module):
    """What is between both halves of levels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attentions = torch.nn.ModuleList([Attention(width)])
        self.resnets = torch.nn.ModuleList(ResnetBlock3D(width, width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x F x H x W."""
        return self.resnets[1](_per_frame(self.attentions[0], self.resnets[0](x)))


class Downsample3D(torch.nn.Module):
    """Half as many rows and columns; in some levels also half as many frames, of which the first stands alone."""

    def __init__(self, width: int, fewer: bool) -> None:
        super().__init__()
        self.conv = CausalConvolution(width, width, (3 if fewer else 1, 3, 3), (2 if fewer else 1, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x F x H x W."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample3D(torch.nn.Module):
    """The other way."""

    def __init__(self, width: int, more: bool) -> None:
        super().__init__()
        self.frames = 2 if more else 1
        self.upscale_conv = Layers.Conv3d(width, width * 4 * self.frames, 1)
        self.conv = CausalConvolution(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x F x H x W."""
        parts = self.upscale_conv(x).unflatten(1, (2, 2, self.frames, -1))  # rows, columns, frames
        x = parts.permute(0, 4, 5, 3, 6, 1, 7, 2).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        if self.frames > 1 and self.conv.before is None:  # the first frame becomes one
            x = torch.cat((x[:, :, :1], x[:, :, 2:]), dim=2)
        return self.conv(x)


class _Level(torch.nn.Module):
    """Blocks, and a change of size behind them."""

    def __init__(self, inner: int, outer: int, blocks: int) -> None:
        super().__init__()
        self.resnets = torch.nn.ModuleList(ResnetBlock3D(outer if number else inner, outer) for number in range(blocks))
        self.downsamplers = self.upsamplers = torch.nn.ModuleList()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x F x H x W."""
        for layer in (*self.resnets, *self.downsamplers, *self.upsamplers):
            x = layer(x)
        return x


class Encoder3D(torch.nn.Module):
    """Videos to means and logarithms of variances."""

    def __init__(self, config: SeedVRVaeConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = CausalConvolution(COLOURS, widths[0], 3, padding=1)
        self.down_blocks = torch.nn.ModuleList(
            _Level(inner, outer, ENCODER_BLOCKS) for inner, outer in zip((widths[0], *widths), widths, strict=False)
        )
        for level, width, fewer in zip(self.down_blocks, widths, config.fewer_frames, strict=False):
            level.downsamplers = torch.nn.ModuleList([Downsample3D(width, fewer)])
        self.mid_block = UNetMidBlock3D(widths[-1])
        self.conv_norm_out = Layers.GroupNorm(GROUPS, widths[-1], SMALLEST)
        self.conv_out = CausalConvolution(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x 3 x F x H x W to B x C x F' x H/8 x W/8."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(F.silu(_per_frame(self.conv_norm_out, self.mid_block(x))))


class Decoder3D(torch.nn.Module):
    """Latents to videos."""

    def __init__(self, config: SeedVRVaeConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.conv_in = CausalConvolution(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = UNetMidBlock3D(widths[0])
        self.up_blocks = torch.nn.ModuleList(
            _Level(inner, outer, DECODER_BLOCKS) for inner, outer in zip((widths[0], *widths), widths, strict=False)
        )
        for level, width, more in zip(self.up_blocks, widths, config.more_frames, strict=False):
            level.upsamplers = torch.nn.ModuleList([Upsample3D(width, more)])
        self.conv_norm_out = Layers.GroupNorm(GROUPS, widths[-1], SMALLEST)
        self.conv_out = CausalConvolution(widths[-1], COLOURS, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x F x H x W to B x 3 x F' x 8 H x 8 W."""
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(F.silu(_per_frame(self.conv_norm_out, x)))


class SeedVRAutoencoder(torch.nn.Module):
    """Turns videos (B x 3 x F x H x W, -1 to 1) into latents, the means of their distributions, scaled, and back. 4 n + 1 frames are n + 1
    latent ones. Parameters are on the meta device until :func:`load_seedvr_vae`; ``weight_names`` are the published ones.
    """

    weight_names: WeightNames

    def __init__(self, config: SeedVRVaeConfig) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):
            self.encoder, self.decoder = Encoder3D(config), Decoder3D(config)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x frames x H/8 x W/8."""
        return self._in_parts(self.encoder, x, FRAMES).chunk(2, dim=1)[0] * SCALE

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The video of a latent."""
        return self._in_parts(self.decoder, z / SCALE, 1)

    @staticmethod
    def _in_parts(half: torch.nn.Module, x: torch.Tensor, frames: int) -> torch.Tensor:
        """What *half* makes of the first frame and *frames* more, of as many that follow, and so on: the same as of all at once."""
        parts = list(_cut(x, frames))
        carried = [layer for layer in half.modules() if isinstance(layer, Carried)]
        try:
            for layer in carried:
                layer.begin(len(parts) > 1)
            return torch.cat([half(part) for part in parts], dim=2)
        finally:
            for layer in carried:
                layer.begin(False)


def _cut(x: torch.Tensor, frames: int) -> Iterator[torch.Tensor]:
    """*x* in parts of *frames*, of which the first has one more and the last may have some more."""
    edges = _edges(x.shape[2], frames)
    return (x[:, :, first:last] for first, last in zip(edges, edges[1:]))


def _edges(length: int, frames: int) -> list[int]:
    """Where the parts of *length* frames begin, and the end."""
    return [0, *(1 + frames * number for number in range(1, max(1, (length - 1) // frames))), length]


def load_seedvr_vae(model: SeedVRAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published names) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        plan = plan_seedvr_vae(part.shapes())
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def plan_seedvr_vae(shapes: Mapping[str, Shape]) -> ConversionPlan:
    """Which tensor of the file becomes which parameter: the names are the same."""
    return plan_conversion(shapes, lambda tensors: tensors)


def encode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode videos of *shape*, B x 3 x F x H x W, as measured on a CPU, a tenth or more to spare."""
    return _working_bytes(shape[2], _longest_part(shape[2], FRAMES), shape[3] * shape[4], ENCODED, dtype_bytes)


def decode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x C x F x H x W, as measured on a CPU, a tenth or more to spare."""
    frames, at_once = (FRAMES * (length - 1) + 1 for length in (max(1, shape[2]), _longest_part(shape[2], 1)))
    return _working_bytes(frames, at_once, shape[3] * shape[4] * SIDE**2, DECODED, dtype_bytes)


def _working_bytes(frames: int, at_once: int, pixels: int, numbers: tuple[int, int], dtype_bytes: int) -> float:
    """For *frames* of *pixels*, of which *at_once* go through the network; their colours are held twice."""
    beside, for_each = numbers
    return (beside + for_each * at_once + 2 * COLOURS * frames) * pixels * dtype_bytes


def _longest_part(length: int, frames: int) -> int:
    edges = _edges(length, frames)
    return max(1, *(last - first for first, last in zip(edges, edges[1:])))
