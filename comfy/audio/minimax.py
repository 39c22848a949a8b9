"""MiniMax H3's autoencoder of sound: diffusers' network, for each side of a stereo sound alone, over the published weights.

Shapes: B sounds, T samples, L times of a latent.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_minimax_h3_audio import AutoencoderKLMiniMaxH3Audio

import comfy.ops
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]

WHAT = "the VAE"
RATE_HZ = 32000
SIDES = 2
STRIDE_OF_KERNEL = {9: 5, 4: 2}  # of the decoder's levels
STRIDED = "encoder.block.{}.block.4.weight"


@dataclass(frozen=True, slots=True)
class MiniMaxAudioConfig:
    """Sizes of one such autoencoder: channels at the sound's own rate, in the middle, of latents, and where the decoder begins; strides."""

    width: int
    inner: int
    latent_channels: int
    decoder_width: int
    strides: tuple[int, ...]
    decoder_kernels: tuple[int, ...]

    @property
    def ratio(self) -> int:
        """Samples per time of a latent."""
        return prod(self.strides)


def read_minimax_audio_config(shapes: Mapping[str, Shape]) -> MiniMaxAudioConfig:
    """The sizes that *shapes* (published names, no prefix) show. Raises ``KeyError`` for missing tensors, ``UnknownModelError`` for others
    of the kind.
    """
    levels = 1
    while STRIDED.format(levels) in shapes:
        levels += 1
    kernels = tuple(shapes[f"decoder.ups.{level}.0.weight"][2] for level in range(count_blocks(shapes, "decoder.ups.{}.")))
    config = MiniMaxAudioConfig(
        width=shapes["encoder.block.0.weight"][0],
        inner=shapes["dec_in_proj.weight"][0],
        latent_channels=shapes["mean_proj.weight"][0],
        decoder_width=shapes["decoder.conv_pre.weight"][0],
        strides=tuple(shapes[STRIDED.format(level)][2] // 2 for level in range(1, levels)),
        decoder_kernels=kernels,
    )
    unknown = sorted(set(kernels) - STRIDE_OF_KERNEL.keys())
    if unknown or prod(STRIDE_OF_KERNEL[kernel] for kernel in kernels) != config.ratio:
        raise UnknownModelError(
            f"its decoder has kernels of {list(kernels)} samples; supported: those of MiniMax H3's, 9, 9, 4, 4, 4, 4, 4"
        )
    return config


class MiniMaxAudioAutoencoder(torch.nn.Module):
    """Turns stereo sounds (B x 2 x T, -1 to 1) into latents (B x 32 x 2 x L), normalised, and back. A sound that fills no time of a latent
    at its end goes on with silence. Parameters are on the meta device until :func:`load_minimax_audio`; ``weight_names`` are the published
    ones.
    """

    weight_names: WeightNames
    output_sample_rate = RATE_HZ  # read by nodes and packs

    def __init__(self, config: MiniMaxAudioConfig) -> None:
        super().__init__()
        self.config, self.sample_rate = config, RATE_HZ
        with torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, about how diffusers has the weights normed
            built: Any = AutoencoderKLMiniMaxH3Audio(
                encoder_dim=config.width,
                encoder_rates=config.strides,
                latent_dim=config.inner,
                latent_channels=config.latent_channels,
                decoder_dim=config.decoder_width,
                decoder_rates=tuple(STRIDE_OF_KERNEL[kernel] for kernel in config.decoder_kernels),
                decoder_kernel_sizes=config.decoder_kernels,
            )
            for layer in built.modules():
                if hasattr(layer, "weight_g"):  # files hold the weights themselves
                    torch.nn.utils.remove_weight_norm(layer)
            self.latents_mean, self.latents_std = (torch.nn.Parameter(torch.empty(config.latent_channels)) for _ in range(2))
        for name in ("encoder", "pre_block", "mean_proj", "logs_proj", "dec_in_proj", "decoder"):
            setattr(self, name, getattr(built, name))
        for layer in self.modules():
            for name, value in list(layer.named_buffers(recurse=False)):  # files hold these as well
                delattr(layer, name)
                layer.register_parameter(name, torch.nn.Parameter(value))
        comfy.ops.adopt_layers(self)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of the latent distribution, normalised."""
        own: Any = self
        sides = torch.nn.functional.pad(x, (0, -x.shape[-1] % self.config.ratio)).flatten(0, 1)[:, None]
        inner = own.pre_block(own.encoder(sides).transpose(1, 2)).transpose(1, 2)
        mean = (own.mean_proj(inner) - self.latents_mean.to(inner)[:, None]) / self.latents_std.to(inner)[:, None]
        return mean.unflatten(0, (len(x), -1)).transpose(1, 2)

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The sound of a latent."""
        own: Any = self
        sides = z.transpose(1, 2).flatten(0, 1)
        sides = sides * self.latents_std.to(z)[:, None] + self.latents_mean.to(z)[:, None]
        return own.decoder(own.dec_in_proj(sides)).reshape(len(z), z.shape[2], -1)


def load_minimax_audio(model: MiniMaxAudioAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published names) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        plan = plan_minimax_audio(part.shapes())
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def plan_minimax_audio(shapes: Mapping[str, Shape]) -> ConversionPlan:
    """Which tensor of the file becomes which parameter: the names are the same."""
    return plan_conversion(shapes, lambda tensors: tensors)


def encode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode sounds of *shape*, B x 2 x T; measured by ComfyUI."""
    return (900 * shape[2] + 105e6) * dtype_bytes * 1.03


def decode_memory_bytes(ratio: int, shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x 32 x 2 x L, of *ratio* samples each; measured by ComfyUI."""
    return max(42e6, 220 * shape[-1] * ratio + 20e6) * dtype_bytes * 1.03
