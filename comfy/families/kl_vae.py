"""Stable Diffusion's autoencoder: an encoder and a decoder of ComfyUI's shape behind its two methods."""

import logging
import math
from typing import Any

import torch

import comfy.ops
from comfy.families.diffusers_names import earlier_vae_name, vae_names
from comfy.families.diffusers_unet import RenamedSource
from comfy.families.key_accounts import say_unused
from comfy.families.kl_vae_config import CELL, KlVaeConfig, is_diffusers_vae
from comfy.families.model_errors import IncompleteModelError, naming_file
from comfy.families.published_layout import vae_layout
from comfy.families.published_weights import load_published
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import WeightSource
from comfy.ldm.modules.diffusionmodules.model import Decoder, Encoder
from comfy.ops import cast_to_input

log = logging.getLogger(__name__)

Shape = tuple[int, ...]
WHAT = "the VAE"


class KlAutoencoder(torch.nn.Module):
    """Turns pictures (B x channels x height x width, -1 to 1) into latents and back.

    Parameters are on the meta device until :func:`load_vae_weights`; ``source_name`` says where they come from. A half that the file
    does not hold is None, and using it raises ``RuntimeError``.
    """

    def __init__(self, config: KlVaeConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_dim = latent = config.latent_channels
        self.bn = CellNorm(config.shown_channels) if config.normalised else None
        own = config.decoder_channels or config.channels
        sizes: dict[str, Any] = {
            **_multiples(config.channels),
            "num_res_blocks": config.num_res_blocks,
            "in_channels": config.image_channels,
            "out_ch": config.image_channels,
            "z_channels": latent,
        }
        with torch.device("meta"):
            self.encoder: Any = Encoder(**sizes) if config.has_encoder else None
            self.decoder: Any = Decoder(**{**sizes, **_multiples(own)}) if config.has_decoder else None
            convolution, quant = comfy.ops.disable_weight_init.Conv2d, config.quant_conv
            self.quant_conv = convolution(2 * latent, 2 * latent, 1) if quant and config.has_encoder else None
            self.post_quant_conv = convolution(latent, latent, 1) if quant and config.has_decoder else None
        self.source_name = "the file"
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of the latent distribution."""
        if self.encoder is None:
            raise RuntimeError(self._missing("encoder", "pictures cannot be turned into latents"))
        moments = self.encoder(x)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean = moments.chunk(2, dim=1)[0]
        return mean if self.bn is None else self.bn(mean)

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The picture of a latent."""
        if self.decoder is None:
            raise RuntimeError(self._missing("decoder", "latents cannot be turned into pictures"))
        if self.bn is not None:
            z = self.bn.undone(z)
        return self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z), **kwargs)

    def _missing(self, half: str, so: str) -> str:
        return f"the VAE of {self.source_name} holds no {half}, so {so} with it; load a VAE with both halves"


class CellNorm(torch.nn.Module):
    """Puts the 2 × 2 places of a cell behind each other as channels, and normalises those by running means and variances."""

    EPS = 1e-4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.running_mean = torch.nn.Parameter(torch.empty(channels, device="meta"))
        self.running_var = torch.nn.Parameter(torch.empty(channels, device="meta"))

    def _numbers(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, variance = (cast_to_input(value, like)[:, None, None] for value in (self.running_mean, self.running_var))
        return mean, torch.sqrt(variance + self.EPS)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """B x channels x height x width to B x (4 · channels) x height/2 x width/2."""
        cells = torch.nn.functional.pixel_unshuffle(places, CELL)
        mean, deviation = self._numbers(cells)
        return (cells - mean) / deviation

    def undone(self, cells: torch.Tensor) -> torch.Tensor:
        """The places of *cells*."""
        mean, deviation = self._numbers(cells)
        return torch.nn.functional.pixel_shuffle(cells * deviation + mean, CELL)


def _multiples(channels: tuple[int, ...]) -> dict[str, Any]:
    return {"ch": channels[0], "ch_mult": [width // channels[0] for width in channels]}


def load_vae_weights(model: KlAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published or diffusers' names) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        part = _in_published_names(part, model.config)
    load_published(model, part, dtype, WHAT)
    model.source_name = source.name
    if not (model.config.has_encoder and model.config.has_decoder):
        log.warning("%s holds only the %s of a VAE", source.name, "decoder" if model.config.has_decoder else "encoder")


def _in_published_names(source: WeightSource, config: KlVaeConfig) -> WeightSource:
    """*source* itself, or under the published names where it has diffusers', present or earlier."""
    shapes = source.shapes()
    if not is_diffusers_vae(shapes):
        return source
    absent = (() if config.has_encoder else ("encoder.", "quant_conv.")) + (() if config.has_decoder else ("decoder.", "post_quant_conv."))
    published = {key: name for key, name in vae_names(config).items() if not key.startswith(absent)}
    names = {key: name if name in shapes else earlier_vae_name(name) for key, name in published.items()}
    say_unused(source.name, WHAT, shapes, set(names.values()))
    layout = {key: shape for key, shape in vae_layout(config).items() if key in names}
    for key, name in names.items():
        if name not in shapes or math.prod(shapes[name]) != math.prod(layout[key]):
            found = list(shapes[name]) if name in shapes else "no such tensor"
            raise IncompleteModelError(f"{WHAT} in {source.name}: {name} should have shape {list(layout[key])}, the file has {found}")
    return RenamedSource(source, names, layout)


def decode_memory_bytes(shape: Shape, dtype_bytes: int, ratio: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x C x height x width; *ratio* is pixels per latent pixel along a side.

    Measured with SD's autoencoder; proportional to the picture's area.
    """
    return 2178 * math.prod(shape[2:4]) * ratio**2 * dtype_bytes


def encode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode pictures of *shape*, B x channels x height x width."""
    return 1767 * math.prod(shape[2:4]) * dtype_bytes
