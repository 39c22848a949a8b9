"""The sizes of a Stable Diffusion autoencoder, read from tensor shapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy.families.sd_unet_config import NORM_GROUPS

Shape = tuple[int, ...]
CELL = 2  # places along a side of a cell
NORM = "bn.running_mean"


@dataclass(frozen=True, slots=True)
class KlVaeConfig:
    """Sizes of one KL autoencoder. ``channels`` begins with the level of full resolution.

    ``decoder_channels`` are the decoder's where they differ. ``normalised``: a latent is 2 × 2 places of ``latent_channels`` in one cell,
    which are normalised by numbers of the file (Flux.2).
    """

    image_channels: int
    latent_channels: int
    channels: tuple[int, ...]
    num_res_blocks: int
    quant_conv: bool
    has_encoder: bool = True
    has_decoder: bool = True
    decoder_channels: tuple[int, ...] | None = None
    normalised: bool = False

    @property
    def ratio(self) -> int:
        """Picture pixels per latent pixel along one side."""
        return 2 ** (len(self.channels) - 1) * (CELL if self.normalised else 1)

    @property
    def shown_channels(self) -> int:
        """Channels of latents as samplers have them."""
        return self.latent_channels * (CELL**2 if self.normalised else 1)

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
    """The autoencoder that *shapes* (published or diffusers' names, no prefix) describe, or None if they describe none.

    A file may hold the encoder or the decoder alone.
    """
    first, latent = shapes.get("encoder.conv_in.weight"), shapes.get("decoder.conv_in.weight")
    if any(shape is not None and len(shape) != 4 for shape in (first, latent)) or (first is None and latent is None):
        return None
    halves = {"has_encoder": first is not None, "has_decoder": latent is not None}
    if first is not None:
        channels, blocks = _encoder_channels(shapes)
    else:
        channels, blocks = _decoder_channels(shapes)
    image_channels = first[1] if first is not None else shapes.get("decoder.conv_out.weight", (0,))[0]
    latent_channels = latent[1] if latent is not None else shapes.get("encoder.conv_out.weight", (0,))[0] // 2
    if not channels or not image_channels or not latent_channels:
        return None
    quant_conv = "post_quant_conv.weight" in shapes or (latent is None and "quant_conv.weight" in shapes)
    own = _decoder_channels(shapes)[0] if first is not None and latent is not None else ()
    return KlVaeConfig(
        image_channels,
        latent_channels,
        channels,
        blocks,
        quant_conv,
        **halves,
        decoder_channels=None if own in ((), channels) else own,
        normalised=NORM in shapes,
    )


def _encoder_channels(shapes: Mapping[str, Shape]) -> tuple[tuple[int, ...], int]:
    """Channels from full resolution down, and residual blocks per level."""
    for block in ("encoder.down.{}.block.{}.conv1.weight", "encoder.down_blocks.{}.resnets.{}.conv1.weight"):
        channels = _widths(shapes, block)
        if channels:
            return channels, _count(shapes, block)
    return (), 0


def _decoder_channels(shapes: Mapping[str, Shape]) -> tuple[tuple[int, ...], int]:
    """Channels and blocks per level, from the decoder: it has one block more, and diffusers counts its levels from the lowest up."""
    published, diffusers = "decoder.up.{}.block.{}.conv1.weight", "decoder.up_blocks.{}.resnets.{}.conv1.weight"
    channels = _widths(shapes, published)
    if channels:
        return channels, _count(shapes, published) - 1
    return _widths(shapes, diffusers)[::-1], max(0, _count(shapes, diffusers) - 1)


def _widths(shapes: Mapping[str, Shape], block: str) -> tuple[int, ...]:
    channels: list[int] = []
    while (shape := shapes.get(block.format(len(channels), 0))) is not None:
        channels.append(shape[0])
    return tuple(channels)


def _count(shapes: Mapping[str, Shape], block: str) -> int:
    count = 0
    while block.format(0, count) in shapes:
        count += 1
    return count


def is_diffusers_vae(shapes: Mapping[str, Shape]) -> bool:
    """Whether the tensors carry diffusers' names."""
    return any(key in shapes for key in ("decoder.up_blocks.0.resnets.0.norm1.weight", "encoder.down_blocks.0.resnets.0.norm1.weight"))
