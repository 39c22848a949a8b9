"""TAESD, a tiny autoencoder for previews (Ollin Boer Bohan), built from diffusers' layers and loaded from the published files."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.vae import DecoderTiny, EncoderTiny

import comfy.ops
import comfy.utils
from comfy.families.key_accounts import say_unused
from comfy.families.model_errors import IncompleteModelError, naming_file

BLOCKS_PER_STAGE = {"encoder": (1, 3, 3, 3), "decoder": (3, 3, 3, 1)}
WIDTH = 64


def conv(n_in: int, n_out: int, **kwargs: Any) -> torch.nn.Module:
    """A convolution over 3 x 3 that keeps the size; *kwargs* are those of ``Conv2d``."""
    return comfy.ops.disable_weight_init.Conv2d(n_in, n_out, 3, padding=1, **kwargs)


class Clamp(torch.nn.Module):
    """Bends values smoothly into -3…3."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """*x* in that range."""
        return 3 * (x / 3).tanh()


class Block(torch.nn.Module):
    """Three convolutions beside a shortcut, named as in published files; ``use_midblock_gn`` adds a normalised branch before them."""

    def __init__(self, n_in: int, n_out: int, use_midblock_gn: bool = False) -> None:
        super().__init__()
        layers, relu = comfy.ops.disable_weight_init, torch.nn.ReLU
        self.conv = torch.nn.Sequential(conv(n_in, n_out), relu(), conv(n_out, n_out), relu(), conv(n_out, n_out))
        self.skip = torch.nn.Identity() if n_in == n_out else layers.Conv2d(n_in, n_out, 1, bias=False)
        self.fuse = relu()
        self.pool: torch.nn.Sequential | None = None
        if use_midblock_gn:
            width = 4 * n_in
            widen, narrow = layers.Conv2d(n_in, width, 1, bias=False), layers.Conv2d(width, n_in, 1, bias=False)
            self.pool = torch.nn.Sequential(widen, layers.GroupNorm(4, width), relu(inplace=True), narrow)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Batch x n_in x height x width to batch x n_out x height x width."""
        if self.pool is not None:
            x = x + self.pool(x)
        return self.fuse(self.conv(x) + self.skip(x))


def _load(part: torch.nn.Module, path: str, shift: int, what: str) -> None:
    """Give *part* the weights in the published file *path*, which counts layers from *shift*; what is not used there is logged.

    Raises ``ModelFileError``, naming the file and the component *what*.
    """
    tensors = comfy.utils.load_torch_file(path, safe_load=True)
    published = {}
    for name in part.state_dict():
        _, number, rest = name.split(".", 2)
        published[name] = f"{int(number) + shift}.{rest}"
    missing = [name for name in published.values() if not isinstance(tensors.get(name), torch.Tensor)]
    if missing:
        raise IncompleteModelError(f"{what} in {path}: {len(missing)} of {len(published)} tensors are missing, first {missing[0]}")
    say_unused(path, what, map(str, tensors), set(published.values()))
    with naming_file(path, what):
        part.load_state_dict({name: tensors[source] for name, source in published.items()})


class TAESD(torch.nn.Module):
    """Decoder and encoder between latents (in the sampler's scale) and pictures in -1…1, channels first.

    A part whose path is None keeps random weights. Raises ``ModelFileError``, naming the file, for one of another architecture.
    """

    latent_magnitude = 3
    latent_shift = 0.5

    def __init__(self, encoder_path: str | None = None, decoder_path: str | None = None, latent_channels: int = 4) -> None:
        super().__init__()
        self.taesd_encoder = EncoderTiny(3, latent_channels, BLOCKS_PER_STAGE["encoder"], (WIDTH,) * 4, "relu")
        self.taesd_decoder = DecoderTiny(latent_channels, 3, BLOCKS_PER_STAGE["decoder"], (WIDTH,) * 4, 2, "relu", "nearest")
        self.vae_scale = torch.nn.Parameter(torch.tensor(1.0))
        self.vae_shift = torch.nn.Parameter(torch.tensor(0.0))
        if encoder_path is not None:
            _load(self.taesd_encoder, encoder_path, 0, "the encoder of the small autoencoder")
        if decoder_path is not None:  # the published decoder counts its clamp as layer 0
            _load(self.taesd_decoder, decoder_path, 1, "the decoder of the small autoencoder")
        self.requires_grad_(False).eval()

    @staticmethod
    def scale_latents(x: torch.Tensor) -> torch.Tensor:
        """Latents as values in 0…1."""
        return (x / (2 * TAESD.latent_magnitude) + TAESD.latent_shift).clamp(0, 1)

    @staticmethod
    def unscale_latents(x: torch.Tensor) -> torch.Tensor:
        """The latents of values in 0…1."""
        return (x - TAESD.latent_shift) * 2 * TAESD.latent_magnitude

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures B×3×8H×8W for latents B×C×H×W."""
        return self.taesd_decoder((x - self.vae_shift) * self.vae_scale)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Latents for pictures whose sides are multiples of 8."""
        return self.taesd_encoder(x) / self.vae_scale + self.vae_shift
