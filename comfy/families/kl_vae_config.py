"""The sizes of a Stable Diffusion autoencoder, read from tensor shapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy.families.sd_unet_config import NORM_GROUPS

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KlVaeConfig:
    """Sizes of one KL autoencoder. ``channels`` begins with the level of full resolution."""

    image_channels: int
    latent_channels: int
    channels: tuple[int, ...]
    num_res_blocks: int
    quant_conv: bool

    @property
    def ratio(self) -> int:
        """Picture pixels per latent pixel along one side."""
        return 2 ** (len(self.channels) - 1)

    def diffusers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of diffusers' ``AutoencoderKL`` for this network."""
        levels = len(self.channels)
        return {
            "in_channels": self.image_channels,
            "out_channels": self.image_channels,
            "latent_channels": self.latent_channels,
            "block_out_channels": self.channels,
            "layers_per_block": self.num_res_blocks,
            "norm_num_groups": NORM_GROUPS,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "use_quant_conv": self.quant_conv,
            "use_post_quant_conv": self.quant_conv,
        }


def read_vae_config(shapes: Mapping[str, Shape]) -> KlVaeConfig | None:
    """The autoencoder that *shapes* (published or diffusers' names, no prefix) describe, or None if they describe none."""
    layouts = ("encoder.down.{}.block.{}.conv1.weight", "encoder.down_blocks.{}.resnets.{}.conv1.weight")
    first, latent = shapes.get("encoder.conv_in.weight"), shapes.get("decoder.conv_in.weight")
    if first is None or latent is None or len(first) != 4 or len(latent) != 4:
        return None
    for block in layouts:
        channels: list[int] = []
        while (shape := shapes.get(block.format(len(channels), 0))) is not None:
            channels.append(shape[0])
        if channels:
            blocks = 0
            while block.format(0, blocks) in shapes:
                blocks += 1
            return KlVaeConfig(first[1], latent[1], tuple(channels), blocks, "post_quant_conv.weight" in shapes)
    return None


def is_diffusers_vae(shapes: Mapping[str, Shape]) -> bool:
    """Whether the tensors have diffusers' names."""
    return "decoder.up_blocks.0.resnets.0.norm1.weight" in shapes
