"""Qwen-Image 2.1's autoencoder: diffusers' network over the published weights, for pictures with transparency."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage21 import AutoencoderKLQwenImage21, QwenImage21CausalConv3d, QwenImage21Resample

import comfy.ops
from comfy.families.conversion_plan import load_parameters, plan_conversion
from comfy.families.model_errors import naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource
from comfy.images.wan_vae import DIFFUSERS_MARK, LEVEL, PUBLISHED_MARK, WHAT, published_levels

Shape = tuple[int, ...]

SIDE = 16
LEVELS = 5
FRAMES_ONLY = ".time_conv."  # of parts that pictures do not need
DECODED_BYTES, ENCODED_BYTES = 23, 16  # of working memory, for each pixel and each channel of the network at full resolution


@dataclass(frozen=True, slots=True)
class Qwen21VaeConfig:
    """Sizes of one such autoencoder: channels of both halves at full resolution, of latents and of pictures."""

    width: int
    decoder_width: int
    latent_channels: int
    image_channels: int
    output_channels: int


def is_qwen21_vae(shapes: Mapping[str, Shape]) -> bool:
    """Whether *shapes* (published or diffusers' names, no prefix) are of such an autoencoder: Wan 2.2's with a level more."""
    if PUBLISHED_MARK in shapes:
        return any((found := LEVEL.match(name)) is not None and int(found[2]) == LEVELS - 1 for name in shapes)
    return DIFFUSERS_MARK in shapes and any(name.startswith(f"decoder.up_blocks.{LEVELS - 1}.resnets.") for name in shapes)


def read_qwen21_vae_config(shapes: Mapping[str, Shape]) -> Qwen21VaeConfig:
    """The sizes that *shapes* show. Raises ``KeyError`` for missing tensors."""
    if PUBLISHED_MARK in shapes:
        first, width, latent, last = "encoder.conv1.weight", "decoder.head.0.gamma", "decoder.conv1.weight", "decoder.head.2.weight"
    else:
        first, width, latent, last = "encoder.conv_in.weight", "decoder.norm_out.gamma", "decoder.conv_in.weight", "decoder.conv_out.weight"
    return Qwen21VaeConfig(shapes[first][0], shapes[width][0], shapes[latent][1], shapes[first][1], shapes[last][0])


class Qwen21Autoencoder(torch.nn.Module):
    """Turns pictures (B x 4 x height x width, -1 to 1) into latents (B x 64 x height / 16 x width / 16) and back.

    Parameters are on the meta device until :func:`load_qwen21_vae`; ``weight_names`` are the published ones.
    """

    weight_names: WeightNames

    def __init__(self, config: Qwen21VaeConfig) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):
            built: Any = AutoencoderKLQwenImage21(
                base_dim=config.width,
                decoder_base_dim=config.decoder_width,
                z_dim=config.latent_channels,
                in_channels=config.image_channels,
                out_channels=config.output_channels,
            )
        self.encoder: Any = built.encoder
        self.decoder: Any = built.decoder
        self.quant_conv, self.post_quant_conv = built.quant_conv, built.post_quant_conv
        for layer in self.modules():
            if isinstance(layer, QwenImage21Resample) and hasattr(layer, "time_conv"):
                del layer.time_conv
        comfy.ops.adopt_layers(self)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of the latent distribution."""
        moments: torch.Tensor = self.quant_conv(self.encoder(x.unsqueeze(2)))
        return moments.chunk(2, dim=1)[0].squeeze(2)

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The picture of a latent."""
        picture: torch.Tensor = self.decoder(self.post_quant_conv(z.unsqueeze(2)), first_chunk=True)
        return picture.squeeze(2)


def load_qwen21_vae(model: Qwen21Autoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published or diffusers' names) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    flat = {layer for layer, module in model.named_modules() if isinstance(module, QwenImage21CausalConv3d)}

    def convert(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        named = published_levels(tensors) if PUBLISHED_MARK in tensors else dict(tensors)
        return {name: _for_pictures(value) if name.rpartition(".")[0] in flat else value for name, value in named.items()}

    with naming_file(source.name, WHAT):
        plan = plan_conversion(part.shapes(), convert)
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def _for_pictures(value: torch.Tensor) -> torch.Tensor:
    """A kernel without its dimension of frames, of which it has one."""
    return value.squeeze(2) if value.ndim == 5 and value.shape[2] == 1 else value


def decode_memory_bytes(config: Qwen21VaeConfig, shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x C x height x width: Wan 2.1's for one picture, by channel."""
    return DECODED_BYTES * config.decoder_width * shape[-2] * shape[-1] * SIDE**2 * dtype_bytes


def encode_memory_bytes(config: Qwen21VaeConfig, shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode pictures of *shape*, B x channels x height x width, in the same way."""
    return ENCODED_BYTES * config.width * shape[-2] * shape[-1] * dtype_bytes
