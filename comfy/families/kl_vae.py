"""Stable Diffusion's autoencoder: ComfyUI's encoder and decoder with its two calls."""

import math
from typing import Any

import torch

import comfy.ops
from comfy.families.diffusers_names import earlier_vae_name, vae_names
from comfy.families.diffusers_unet import RenamedSource
from comfy.families.kl_vae_config import KlVaeConfig, is_diffusers_vae
from comfy.families.model_errors import IncompleteModelError
from comfy.families.published_layout import vae_layout
from comfy.families.published_weights import load_published
from comfy.families.weight_source import WeightSource
from comfy.ldm.modules.diffusionmodules.model import Decoder, Encoder

Shape = tuple[int, ...]


class KlAutoencoder(torch.nn.Module):
    """Pictures in [-1, 1], B x channels x height x width, to latents and back. Parameters on meta until :func:`load_vae_weights`."""

    def __init__(self, config: KlVaeConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_dim = latent = config.latent_channels
        self.bn = None
        sizes: dict[str, Any] = {
            "ch": config.channels[0],
            "ch_mult": [width // config.channels[0] for width in config.channels],
            "num_res_blocks": config.num_res_blocks,
            "in_channels": config.image_channels,
            "out_ch": config.image_channels,
            "z_channels": latent,
        }
        with torch.device("meta"):
            self.encoder, self.decoder = Encoder(**sizes), Decoder(**sizes)
            self.quant_conv = comfy.ops.disable_weight_init.Conv2d(2 * latent, 2 * latent, 1) if config.quant_conv else None
            self.post_quant_conv = comfy.ops.disable_weight_init.Conv2d(latent, latent, 1) if config.quant_conv else None
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of the latent distribution."""
        moments = self.encoder(x)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return moments.chunk(2, dim=1)[0]

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The picture of a latent."""
        return self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z), **kwargs)


def load_vae_weights(model: KlAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published or diffusers' names) in *dtype*. Raises ``IncompleteModelError``."""
    load_published(model, _in_published_names(source, model.config), dtype, "the VAE")


def _in_published_names(source: WeightSource, config: KlVaeConfig) -> WeightSource:
    """*source* itself, or under the published names where it has diffusers', present or earlier."""
    shapes = source.shapes()
    if not is_diffusers_vae(shapes):
        return source
    names = {key: name if name in shapes else earlier_vae_name(name) for key, name in vae_names(config).items()}
    layout = vae_layout(config)
    for key, name in names.items():
        if name not in shapes or math.prod(shapes[name]) != math.prod(layout[key]):
            found = list(shapes[name]) if name in shapes else "no such tensor"
            raise IncompleteModelError(f"the VAE in {source.name}: {name} should have shape {list(layout[key])}, the file has {found}")
    return RenamedSource(source, names, layout)


def decode_memory_bytes(shape: Shape, dtype_bytes: int, ratio: int) -> float:
    """Working memory of decoding latents of *shape*: measured with SD's autoencoder, in proportion to the picture's area."""
    return 2178 * math.prod(shape[2:4]) * ratio**2 * dtype_bytes


def encode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Working memory of encoding pictures of *shape*, batch x channels x height x width."""
    return 1767 * math.prod(shape[2:4]) * dtype_bytes
