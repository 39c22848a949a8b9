"""The autoencoders of Wan 2.1 (also Qwen-Image's) and Wan 2.2: diffusers' network over the published weights, for videos and pictures."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    AutoencoderKLWan,
    WanCausalConv3d,
    WanResidualBlock,
    WanRMS_norm,
    patchify,
    unpatchify,
)

import comfy.ops
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]

WHAT = "the VAE"
FRAMES_PER_LATENT = 4
FRAMES_SEEN = 2  # of those before, by a convolution
FRAMES_AT_ONCE = 2  # in the decoder's last levels, where pictures are large
PUBLISHED_MARK = "decoder.middle.0.residual.0.gamma"
DIFFUSERS_MARK = "decoder.mid_block.resnets.0.norm1.gamma"
PATCH = 2  # along one side of what Wan 2.2's networks take as one pixel
RESNETS = {"encoder": 2, "decoder": 3}  # in each level
# Of a level's parts in Wan 2.2's published files: the level's names in diffusers, and its parts'.
LEVEL = re.compile(r"(encoder|decoder)\.(?:down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.(.+)")
LEVELS = {"encoder": ("down_blocks", "downsampler"), "decoder": ("up_blocks", "upsampler")}
IN_RESNET = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2", "shortcut": "conv_shortcut"}


@dataclass(frozen=True, slots=True)
class WanVaeConfig:
    """Sizes of one such autoencoder. ``width`` is the number of the encoder's channels at full resolution.

    ``is_residual``: whether it is Wan 2.2's, whose levels have shortcuts and whose pixels are patches of pictures.
    """

    width: int
    decoder_width: int
    latent_channels: int
    image_channels: int
    output_channels: int
    is_residual: bool = False

    @property
    def side(self) -> int:
        """Picture pixels per latent pixel along one side."""
        return 8 * (PATCH if self.is_residual else 1)


def read_wan_vae_config(shapes: Mapping[str, Shape]) -> WanVaeConfig:
    """The sizes that *shapes* (published or diffusers' names, no prefix) show. Raises ``KeyError`` for missing tensors."""
    if PUBLISHED_MARK in shapes:
        width, first, latent, last = "decoder.head.0.gamma", "encoder.conv1.weight", "decoder.conv1.weight", "decoder.head.2.weight"
        is_residual = any(LEVEL.match(name) for name in shapes)
    else:
        width, first, latent, last = "decoder.norm_out.gamma", "encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.conv_out.weight"
        is_residual = any(name.startswith("decoder.up_blocks.0.upsampler.") for name in shapes)
    pixel = PATCH**2 if is_residual else 1
    return WanVaeConfig(
        shapes[first][0], shapes[width][0], shapes[latent][1], shapes[first][1] // pixel, shapes[last][0] // pixel, is_residual
    )


class CausalConvolution(WanCausalConv3d):
    """A convolution over frames and pictures that sees no later frame; for a first frame alone, a convolution of the picture."""

    def forward(self, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        """*x*: B x channels x frames x height x width; *cache_x*: the frames before it, None for a beginning."""
        if cache_x is None and x.shape[2] == 1 and self.kernel_size[0] <= 1 + self._before and self.stride[0] == 1:
            # What comes before is black, so only the kernel's last frame counts.
            picture = F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, self.stride[1:], self._sides)
            return picture[:, :, None]
        return self._convolved(self._after(cache_x, x))

    def remembering(self, x: torch.Tensor, cache: list[Any] | None, index: list[int]) -> torch.Tensor:
        """The same after the frames that *cache* has under *index*, which counts on; it remembers the last ones of *x* instead."""
        if cache is None:
            return self(x)
        number, index[0] = index[0], index[0] + 1
        before = cache[number]
        if x.shape[2] == FRAMES_SEEN:
            cache[number] = x  # nobody changes it
        else:
            is_short = before is not None and x.shape[2] < FRAMES_SEEN
            cache[number] = torch.cat([before[:, :, -1:], x], dim=2) if is_short else x[:, :, -FRAMES_SEEN:].clone()
        if before is None:
            return self(x)
        x = self._after(before, x)
        del before  # its memory is free for the result
        return self._convolved(x)

    def _after(self, cache: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        """*x* after the frames that the kernel sees before it: those of *cache*, and black ones for what is missing."""
        if not self._before:
            return x
        earlier = [] if cache is None else [cache]
        if black := self._before - sum(part.shape[2] for part in earlier):
            earlier.insert(0, x.new_zeros(*x.shape[:2], black, *x.shape[3:]))
        return torch.cat([*earlier, x], dim=2)

    def _convolved(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv3d(x, self.weight, self.bias, self.stride, (0, *self._sides))

    @property
    def _before(self) -> int:
        """How many frames the kernel sees before the first."""
        return int(self._padding[4])

    @property
    def _sides(self) -> tuple[int, int]:
        """How many black pixels there are above and below, and left and right."""
        return int(self._padding[2]), int(self._padding[0])


class Norm(WanRMS_norm):
    """The norm over channels, in one new tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """*x*: channels second or last, as the norm was made for."""
        result = F.normalize(x, dim=1 if self.channel_first else -1)
        result *= self.scale
        result *= self.gamma
        if isinstance(self.bias, torch.Tensor):
            result += self.bias
        return result


class ResidualBlock(WanResidualBlock):
    """Two convolutions beside a shortcut; what one of them no longer needs is gone before the next."""

    conv1: CausalConvolution
    conv2: CausalConvolution

    def forward(self, x: torch.Tensor, feat_cache: list[Any] | None = None, feat_idx: Any = (0,)) -> torch.Tensor:
        """*x*: B x channels x frames x height x width; *feat_cache*: the frames before it, by convolution."""
        result = self.conv1.remembering(self._activated(self.norm1(x)), feat_cache, feat_idx)
        result = self.norm2(result)
        result = self.conv2.remembering(self._activated(result), feat_cache, feat_idx)
        result += self.conv_shortcut(x)
        return result

    @staticmethod
    def _activated(x: torch.Tensor) -> torch.Tensor:
        return F.silu(x, inplace=not x.requires_grad)


OWN = {WanCausalConv3d: CausalConvolution, WanRMS_norm: Norm, WanResidualBlock: ResidualBlock}


class WanAutoencoder(torch.nn.Module):
    """Turns videos (B x channels x frames x height x width, -1 to 1) into latents (B x 16 x frames x height x width) and back.

    Four frames make a latent one, but for the first, which stands alone; sides are divided by eight, by Wan 2.2's network by sixteen (and
    latents have 48 channels). Parameters are on the meta device until :func:`load_wan_vae`; ``weight_names`` are the published ones.
    Networks for pictures with transparency have four channels.
    """

    weight_names: WeightNames

    def __init__(self, config: WanVaeConfig) -> None:
        super().__init__()
        self.config = config
        self._patch = PATCH if config.is_residual else 1
        with torch.device("meta"):
            built = AutoencoderKLWan(
                base_dim=config.width,
                decoder_base_dim=config.decoder_width,
                z_dim=config.latent_channels,
                in_channels=config.image_channels * self._patch**2,
                out_channels=config.output_channels * self._patch**2,
                is_residual=config.is_residual,
            )
        self._doubling = 1 + max(number for number, doubles in enumerate(built.decoder.temperal_upsample) if doubles)  # levels
        self.encoder: Any = built.encoder
        self.decoder: Any = built.decoder
        self.quant_conv, self.post_quant_conv = built.quant_conv, built.post_quant_conv
        for layer in self.modules():
            layer.__class__ = OWN.get(type(layer), type(layer))
        comfy.ops.adopt_layers(self)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of the latent distribution; up to three frames that fill no latent one at the end are left out."""
        x = patchify(x, self._patch)
        later = (x.shape[2] - 1) // FRAMES_PER_LATENT
        cache = self._cache(self.encoder) if later else None
        parts = [self.encoder(x[:, :, :1], feat_cache=cache, feat_idx=[0])]
        for start in range(1, 1 + later * FRAMES_PER_LATENT, FRAMES_PER_LATENT):
            parts.append(self.encoder(x[:, :, start : start + FRAMES_PER_LATENT], feat_cache=cache, feat_idx=[0]))
        moments = self.quant_conv(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2))
        return moments.chunk(2, dim=1)[0]

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The video of a latent, frame by frame."""
        latent = self.post_quant_conv(z)
        cache = self._cache(self.decoder) if z.shape[2] > 1 else None
        frames: list[torch.Tensor] = []
        for index in range(z.shape[2]):
            frames += self._decoded(latent[:, :, index : index + 1], cache, index == 0)
        return unpatchify(frames[0] if len(frames) == 1 else torch.cat(frames, dim=2), self._patch)

    def _decoded(self, x: torch.Tensor, cache: list[Any] | None, is_first: bool) -> list[torch.Tensor]:
        """The frames of one latent frame; when there are as many as there will be, only a few go on together."""
        decoder, index = self.decoder, [0]
        x = decoder.conv_in.remembering(x, cache, index)
        x = decoder.mid_block(x, feat_cache=cache, feat_idx=index)
        for block in decoder.up_blocks[: self._doubling]:
            x = block(x, feat_cache=cache, feat_idx=index, first_chunk=is_first)
        return [self._finished(part, cache, list(index), is_first) for part in x.split(FRAMES_AT_ONCE, dim=2)]

    def _finished(self, x: torch.Tensor, cache: list[Any] | None, index: list[int], is_first: bool) -> torch.Tensor:
        for block in self.decoder.up_blocks[self._doubling :]:
            x = block(x, feat_cache=cache, feat_idx=index, first_chunk=is_first)
        return self.decoder.conv_out.remembering(F.silu(self.decoder.norm_out(x)), cache, index)

    @staticmethod
    def _cache(half: torch.nn.Module) -> list[Any]:
        """Room for the frames that each convolution needs of what came before."""
        return [None] * sum(isinstance(layer, WanCausalConv3d) for layer in half.modules())


def load_wan_vae(model: WanAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published or diffusers' names) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        plan = plan_wan_vae(part.shapes())
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def plan_wan_vae(shapes: Mapping[str, Shape]) -> ConversionPlan:
    """Which tensor of the file becomes which parameter; nothing is copied."""
    if any(LEVEL.match(name) for name in shapes):
        return plan_conversion(shapes, published_levels)
    if PUBLISHED_MARK in shapes:
        return plan_conversion(shapes, convert_wan_vae_to_diffusers)
    return plan_conversion(shapes, lambda tensors: tensors)


def _in_level(name: str) -> str | None:
    """diffusers' name of a part of a level of Wan 2.2's networks; None for what is in no level."""
    found = LEVEL.match(name)
    if found is None:
        return None
    half, level, part, rest = found.groups()
    levels, sampler = LEVELS[half]
    if int(part) == RESNETS[half]:
        return f"{half}.{levels}.{level}.{sampler}.{rest}"
    inner, _, leaf = rest.rpartition(".")
    return f"{half}.{levels}.{level}.resnets.{part}.{IN_RESNET[inner]}.{leaf}"


def published_levels(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """*tensors* of a network with levels, in published names, under diffusers' names."""
    levels = {name: _in_level(name) for name in tensors}
    others = convert_wan_vae_to_diffusers({name: value for name, value in tensors.items() if levels[name] is None})
    return others | {named: tensors[name] for name, named in levels.items() if named is not None}


def decode_memory_bytes(config: WanVaeConfig, shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x C x frames x height x width (or without frames); measured by ComfyUI."""
    if config.is_residual:
        return 8000 * shape[-2] * shape[-1] * config.side**2 * dtype_bytes
    frames = shape[2] if len(shape) == 5 else 1
    return (2200 if frames <= FRAMES_PER_LATENT else 7000) * shape[-2] * shape[-1] * 8 * 8 * dtype_bytes


def encode_memory_bytes(config: WanVaeConfig, shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode videos of *shape*, B x channels x frames x height x width; measured by ComfyUI."""
    if config.is_residual:
        return 3300 * shape[-2] * shape[-1] * dtype_bytes
    frames = shape[2] if len(shape) == 5 else 1
    return (1500 if frames <= FRAMES_PER_LATENT else 6000) * shape[-2] * shape[-1] * dtype_bytes
