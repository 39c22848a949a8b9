"""Stable Video Diffusion's autoencoder: Stable Diffusion's encoder, and diffusers' decoder that makes all frames of a video together."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import TemporalDecoder

import comfy.ops
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.kl_vae import decode_memory_bytes, encode_memory_bytes
from comfy.families.kl_vae_config import KlVaeConfig, read_vae_config
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource
from comfy.ldm.modules.diffusionmodules.model import Encoder

__all__ = ["FramesAutoencoder", "decode_memory_bytes", "encode_memory_bytes", "load_svd_vae", "plan_svd_vae", "read_svd_vae_config"]

Shape = tuple[int, ...]

WHAT = "the VAE"
BLOCKS = 2  # in each level of the encoder, and in the middle
# Published names of the decoder's parts, and diffusers'; levels are counted the other way round there.
BLOCK = re.compile(r"decoder\.(mid\.block_[12]|up\.\d+\.block\.\d+)\.(.+)")
ATTENTION = re.compile(r"decoder\.mid\.attn_1\.(\w+)\.(weight|bias)")
UPSAMPLE = re.compile(r"decoder\.up\.(\d+)\.upsample\.(.+)")
IN_MIDDLE = {"mid.block_1": "mid_block.resnets.0", "mid.block_2": "mid_block.resnets.1"}
IN_TIME = {"in_layers.0": "norm1", "in_layers.2": "conv1", "out_layers.0": "norm2", "out_layers.3": "conv2"}
IN_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"}
ENDS = {"decoder.norm_out.": "decoder.conv_norm_out.", "decoder.conv_out.time_mix_conv.": "decoder.time_conv_out."}


def read_svd_vae_config(shapes: Mapping[str, Shape]) -> KlVaeConfig:
    """The sizes that *shapes* (published names, no prefix) show. Raises ``UnknownModelError`` for others of the kind."""
    config = read_vae_config(shapes)
    is_whole = config is not None and config.has_encoder and config.has_decoder and config.decoder_channels is None
    if config is None or not is_whole or config.num_res_blocks != BLOCKS:
        raise UnknownModelError(f"supported are autoencoders with both halves, of the same sizes, with {BLOCKS} blocks in each level")
    return config


class FramesAutoencoder(torch.nn.Module):
    """Turns pictures (B x 3 x height x width, -1 to 1) into latents, each alone, and latents, the frames of one video, into pictures.

    Parameters are on the meta device until :func:`load_svd_vae`; ``weight_names`` are the published ones.
    """

    weight_names: WeightNames

    def __init__(self, config: KlVaeConfig) -> None:
        super().__init__()
        self.config = config
        sizes: dict[str, Any] = {
            "ch": config.channels[0],
            "ch_mult": [width // config.channels[0] for width in config.channels],
            "num_res_blocks": config.num_res_blocks,
            "in_channels": config.image_channels,
            "out_ch": config.image_channels,
            "z_channels": config.latent_channels,
        }
        with torch.device("meta"):
            self.encoder: Any = Encoder(**sizes)
            widths: Any = config.channels
            self.decoder: Any = TemporalDecoder(config.latent_channels, config.image_channels, widths, config.num_res_blocks)
        comfy.ops.adopt_layers(self.decoder)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The means of the latent distributions."""
        return self.encoder(x).chunk(2, dim=1)[0]

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The pictures of the latents *z*."""
        return self.decoder(z, image_only_indicator=z.new_zeros(1, len(z)), num_frames=len(z))


def load_svd_vae(model: FramesAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published names) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        plan = plan_svd_vae(part.shapes())
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def plan_svd_vae(shapes: Mapping[str, Shape]) -> ConversionPlan:
    """Which tensor of the file becomes which parameter; nothing is copied."""
    levels = sum(f"decoder.up.{number}.block.0.conv1.weight" in shapes for number in range(len(shapes)))
    return plan_conversion(shapes, lambda tensors: dict(_converted(name, value, levels) for name, value in tensors.items()))


def _converted(name: str, value: torch.Tensor, levels: int) -> tuple[str, torch.Tensor]:
    """diffusers' name and form: published attention layers are convolutions of single places."""
    own = _diffusers_name(name, levels)
    return own, value.flatten(1) if ".attentions." in own and value.ndim > 2 else value


def _diffusers_name(name: str, levels: int) -> str:
    if found := BLOCK.match(name):
        block, rest = found.groups()
        if block not in IN_MIDDLE:
            _, level, _, number = block.split(".")
            block = f"up_blocks.{levels - 1 - int(level)}.resnets.{number}"
        return f"decoder.{IN_MIDDLE.get(block, block)}.{_in_block(rest)}"
    if found := ATTENTION.match(name):
        return f"decoder.mid_block.attentions.0.{IN_ATTENTION[found[1]]}.{found[2]}"
    if found := UPSAMPLE.match(name):
        return f"decoder.up_blocks.{levels - 1 - int(found[1])}.upsamplers.0.{found[2]}"
    return next((own + name.removeprefix(theirs) for theirs, own in ENDS.items() if name.startswith(theirs)), name)


def _in_block(rest: str) -> str:
    if rest == "mix_factor":
        return "time_mixer.mix_factor"
    if rest.startswith("time_stack."):
        layer, _, leaf = rest.removeprefix("time_stack.").rpartition(".")
        return f"temporal_res_block.{IN_TIME.get(layer, layer)}.{leaf}"
    return f"spatial_res_block.{rest.replace('nin_shortcut', 'conv_shortcut')}"
