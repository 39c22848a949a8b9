"""ACE-Step 1's autoencoder: sound as pictures of its loudness by pitch, which diffusers' deep compression autoencoder makes latents of.

Shapes: B sounds, C channels, T samples; latents B x 8 x 16 rows x places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC

import comfy.ops
from comfy.audio.music_vocoder import HOP, RATE_HZ, MusicVocoder, VocoderConfig, log_mel
from comfy.audio.normed import older_name
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource

__all__ = ["RATE_HZ", "MusicAutoencoder", "MusicVaeConfig", "load_music_vae", "read_music_vae_config"]

Shape = tuple[int, ...]

WHAT = "the VAE"
MARK = "vocoder.backbone.channel_layers.0.0.bias"
ROWS = 16  # of a latent
SIDE = 8  # places of a picture along each side of a latent's
SCALE, SHIFT = 0.1786, -1.9091
QUIET, LOUD = -11.0, 3.0  # what pictures hold at the least and at the most
HEAD = 32
RESIDUAL, ATTENTIVE = "ResBlock", "EfficientViTBlock"


@dataclass(frozen=True, slots=True)
class MusicVaeConfig:
    """Sizes: by level of both halves of the autoencoder the channels, the numbers of blocks, and which are attentive; the vocoder's."""

    widths: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    attentive: tuple[bool, ...]
    scales: tuple[tuple[int, ...], ...]
    latent_channels: int
    channels: int
    vocoder: VocoderConfig


def read_music_vae_config(shapes: Mapping[str, Shape]) -> MusicVaeConfig:
    """The sizes that *shapes* (published names, no prefix) show. Raises ``KeyError`` for missing tensors, ``UnknownModelError`` for others
    of the kind.
    """
    named = {older_name(name): shape for name, shape in shapes.items()}
    levels = count_blocks(named, "dcae.encoder.down_blocks.{}.")
    encoder, decoder = "dcae.encoder.down_blocks.{}.", "dcae.decoder.up_blocks.{}."
    counts = [[count_blocks(named, half.format(level) + "{}.") for level in range(levels)] for half in (encoder, decoder)]
    attentive = tuple(f"{encoder.format(level)}0.attn.to_q.weight" in named for level in range(levels))
    blocks = [f"{encoder.format(level)}0." for level in range(levels)]
    widths = tuple(
        named[f"{block}attn.to_q.weight" if has else f"{block}conv1.weight"][1] for block, has in zip(blocks, attentive, strict=True)
    )
    config = MusicVaeConfig(
        widths=widths,
        encoder_blocks=tuple(count - (level < levels - 1) for level, count in enumerate(counts[0])),
        decoder_blocks=tuple(count - (level < levels - 1) for level, count in enumerate(counts[1])),
        attentive=attentive,
        scales=tuple((5,) if has else () for has in attentive),
        latent_channels=named["dcae.decoder.conv_in.weight"][1],
        channels=named["dcae.encoder.conv_in.weight"][1],
        vocoder=_read_vocoder(named),
    )
    if 2 ** (levels - 1) != SIDE or prod(config.vocoder.strides) != HOP:
        raise UnknownModelError(f"it has {levels} levels, and columns of {prod(config.vocoder.strides)} samples; supported: 4, and {HOP}")
    return config


def _read_vocoder(named: Mapping[str, Shape]) -> VocoderConfig:
    stages = count_blocks(named, "vocoder.backbone.stages.{}.")
    ups = [named[f"vocoder.head.ups.{number}.weight_v"] for number in range(count_blocks(named, "vocoder.head.ups.{}."))]
    blocks = count_blocks(named, "vocoder.head.resblocks.{}.") // max(1, len(ups))
    return VocoderConfig(
        depths=tuple(count_blocks(named, f"vocoder.backbone.stages.{stage}." + "{}.") for stage in range(stages)),
        widths=tuple(named[f"vocoder.backbone.stages.{stage}.0.dwconv.weight"][0] for stage in range(stages)),
        channels=ups[0][0],
        kernels=tuple(kernel for _, _, kernel in ups),
        strides=tuple(kernel // 2 for _, _, kernel in ups),
        block_kernels=tuple(named[f"vocoder.head.resblocks.{number}.convs1.0.weight_v"][2] for number in range(blocks)),
        first_kernel=named["vocoder.head.conv_pre.weight_v"][2],
        last_kernel=named["vocoder.head.conv_post.weight_v"][2],
    )


class MusicAutoencoder(torch.nn.Module):
    """Turns sound (B x C x T, -1 to 1) into latents and back. Parameters are on the meta device until :func:`load_music_vae`;
    ``weight_names`` are the published ones.
    """

    weight_names: WeightNames

    def __init__(self, config: MusicVaeConfig) -> None:
        super().__init__()
        self.config = config
        kinds = tuple(ATTENTIVE if has else RESIDUAL for has in config.attentive)
        with torch.device("meta"):
            built = AutoencoderDC(
                in_channels=config.channels,
                latent_channels=config.latent_channels,
                attention_head_dim=HEAD,
                encoder_block_types=kinds,
                decoder_block_types=kinds,
                encoder_block_out_channels=config.widths,
                decoder_block_out_channels=config.widths,
                encoder_layers_per_block=config.encoder_blocks,
                decoder_layers_per_block=config.decoder_blocks,
                encoder_qkv_multiscales=config.scales,
                decoder_qkv_multiscales=config.scales,
                upsample_block_type="interpolate",
                downsample_block_type="conv",
            )
            self.dcae = torch.nn.Module()
            self.dcae.encoder, self.dcae.decoder = built.encoder, built.decoder
            self.vocoder = MusicVocoder(config.vocoder)
        comfy.ops.adopt_layers(self)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The latents of sounds, one after the other."""
        latents = []
        for sound in x:
            picture = (log_mel(sound) - QUIET) / (LOUD - QUIET) * 2 - 1
            latents.append(self._half("encoder", picture[None]))
        return (torch.cat(latents) - SHIFT) * SCALE

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The sounds of latents, one after the other."""
        sounds = []
        for latent in z / SCALE + SHIFT:
            picture = (self._half("decoder", latent[None])[0] + 1) / 2 * (LOUD - QUIET) + QUIET
            sounds.append(self.vocoder.decode(picture)[:, 0])
        return torch.stack(sounds)

    def _half(self, name: str, x: torch.Tensor) -> torch.Tensor:
        half: Any = getattr(self.dcae, name)
        return half(x)


def load_music_vae(model: MusicAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        plan = plan_music_vae(part.shapes())
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def plan_music_vae(shapes: Mapping[str, Shape]) -> ConversionPlan:
    """Which tensor of the file becomes which parameter; nothing is copied."""
    return plan_conversion(shapes, lambda tensors: {older_name(name): value for name, value in tensors.items()})
