"""Oobleck, the autoencoder of Stable Audio and ACE-Step 1.5: diffusers' network over the published weights.

Shapes: B sounds, C channels, T samples, L places of a latent.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck, Snake1d
from torch.nn.utils import weight_norm

from comfy.audio.normed import Normed, NormedConvolution, NormedTransposed, older_name
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]

WHAT = "the VAE"
PUBLISHED_MARK = "decoder.layers.1.layers.0.beta"
DIFFUSERS_MARK = "decoder.block.0.snake1.beta"
RATE_HZ, FINER_RATE_HZ = 44100, 48000
FINER_KERNEL = 12  # of the decoder's second level, which tells ACE-Step's from Stable Audio's
# Of a level of each half: its parts in order, by diffusers' names.
LEVELS = {
    "encoder": ("res_unit1", "res_unit2", "res_unit3", "snake1", "conv1"),
    "decoder": ("snake1", "conv_t1", "res_unit1", "res_unit2", "res_unit3"),
}
UNIT = ("snake1", "conv1", "snake2", "conv2")
DEEP = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.layers\.(\d+)(?:\.layers\.(\d+))?\.(.+)")
SHALLOW = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class OobleckConfig:
    """Sizes of one such autoencoder: channels of both halves at the sound's own rate, how many times as many a level has, strides."""

    width: int
    decoder_width: int
    multiples: tuple[int, ...]
    strides: tuple[int, ...]
    latent_channels: int
    channels: int
    rate_hz: int

    @property
    def ratio(self) -> int:
        """Samples per place of a latent."""
        return prod(self.strides)


def read_oobleck_config(shapes: Mapping[str, Shape]) -> OobleckConfig:
    """The sizes that *shapes* (published or diffusers' names, no prefix) show. Raises ``KeyError`` for missing tensors,
    ``UnknownModelError`` for halves that do not mirror each other.
    """
    named = {diffusers_name(name, shapes): shape for name, shape in shapes.items()}
    levels = count_blocks(named, "encoder.block.{}.")
    downs = [named[f"encoder.block.{level}.conv1.weight_v"] for level in range(levels)]
    ups = [named[f"decoder.block.{level}.conv_t1.weight_v"] for level in range(count_blocks(named, "decoder.block.{}."))]
    width, channels, _ = named["encoder.conv1.weight_v"]
    strides = tuple(kernel // 2 for _, _, kernel in downs)
    if not levels or strides != tuple(kernel // 2 for _, _, kernel in reversed(ups)):
        raise UnknownModelError("its encoder and its decoder have different strides; supported: those of Stable Audio and ACE-Step 1.5")
    return OobleckConfig(
        width=width,
        decoder_width=ups[-1][1],
        multiples=tuple(outer // width for outer, _, _ in downs),
        strides=strides,
        latent_channels=named["decoder.conv1.weight_v"][1],
        channels=channels,
        rate_hz=FINER_RATE_HZ if len(ups) > 1 and ups[1][-1] == FINER_KERNEL else RATE_HZ,
    )


class _Snake(Snake1d):
    """diffusers' activation, with one new tensor instead of four."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """B x C x T: x + sin²(αx) / β."""
        alpha, beta = (values.to(hidden_states).exp() if self.logscale else values.to(hidden_states) for values in (self.alpha, self.beta))
        turned = (alpha * hidden_states).sin_().pow_(2)
        return turned.mul_((beta + 1e-9).reciprocal()).add_(hidden_states)


OWN_CLASSES: dict[type, type] = {Snake1d: _Snake, torch.nn.Conv1d: NormedConvolution, torch.nn.ConvTranspose1d: NormedTransposed}


class OobleckAutoencoder(torch.nn.Module):
    """Turns sound (B x C x T, -1 to 1) into latents (B x channels x L) and back. Parameters are on the meta device until
    :func:`load_oobleck`; ``weight_names`` are the published ones.
    """

    weight_names: WeightNames

    def __init__(self, config: OobleckConfig) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, about how diffusers has the weights normed
            built = AutoencoderOobleck(
                encoder_hidden_size=config.width,
                downsampling_ratios=list(config.strides),
                channel_multiples=list(config.multiples),
                decoder_channels=config.decoder_width,
                decoder_input_channels=config.latent_channels,
                audio_channels=config.channels,
                sampling_rate=config.rate_hz,
            )
            if 2 * config.latent_channels != config.width:  # as diffusers takes for granted
                last = torch.nn.Conv1d(config.width * config.multiples[-1], 2 * config.latent_channels, kernel_size=3, padding=1)
                built.encoder.conv2 = weight_norm(last)
        self.encoder: Any = built.encoder
        self.decoder: Any = built.decoder
        for layer in self.modules():
            own = OWN_CLASSES.get(type(layer))
            if own is not None:
                layer.__class__ = own
            if isinstance(layer, Normed):
                layer._forward_pre_hooks.clear()  # which would put the weight beside its parts
                vars(layer).pop("weight", None)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """A latent drawn, by torch's own generator as in ComfyUI, from the distribution that the encoder gives."""
        mean, scale = self.encoder(x).chunk(2, dim=1)
        return torch.randn_like(mean) * (F.softplus(scale) + 1e-4) + mean

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The sound of a latent."""
        return self.decoder(z)


def load_oobleck(model: OobleckAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published or diffusers' names) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        plan = plan_oobleck(part.shapes())
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def plan_oobleck(shapes: Mapping[str, Shape]) -> ConversionPlan:
    """Which tensor of the file becomes which parameter; nothing is copied."""
    return plan_conversion(shapes, lambda tensors: {diffusers_name(name, shapes): _as_kept(name, value) for name, value in tensors.items()})


def _as_kept(name: str, value: torch.Tensor) -> torch.Tensor:
    return value.reshape(1, -1, 1) if name.endswith((".alpha", ".beta")) else value


def diffusers_name(name: str, shapes: Mapping[str, Shape]) -> str:
    """diffusers' name of the tensor *name* in a file with *shapes*; one that it already has, or that is of another part, stays."""
    deep = DEEP.fullmatch(name)
    if deep is not None:
        half, level, part, inner, leaf = deep.groups()
        unit = "" if inner is None else f".{UNIT[int(inner)]}"
        return f"{half}.block.{int(level) - 1}.{LEVELS[half][int(part)]}{unit}.{older_name(leaf)}"
    shallow = SHALLOW.fullmatch(name)
    if shallow is None:
        return name
    half, level, leaf = shallow.groups()
    place = "conv1" if level == "0" else "snake1" if leaf in ("alpha", "beta") else "conv2"
    return f"{half}.{place}.{older_name(leaf)}"
