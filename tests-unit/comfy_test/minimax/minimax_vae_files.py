"""Small autoencoders of MiniMax H3's kinds, of videos and of sound, with random weights in the published names."""

import functools

import torch
from safetensors.torch import save_file
from transformer_files import random_weight

from comfy.audio.minimax import MiniMaxAudioAutoencoder, MiniMaxAudioConfig
from comfy.images.minimax_vae import MiniMaxAutoencoder, MiniMaxVaeConfig

VIDEO_SIZES = MiniMaxVaeConfig(widths=(32,) * 6, latent_channels=24, layers=2, width=64, tokens=4)
AUDIO_SIZES = MiniMaxAudioConfig(
    width=2, inner=256, latent_channels=32, decoder_width=256, strides=(2, 4, 4, 5, 5), decoder_kernels=(9, 9, 4, 4, 4, 4, 4)
)


def published_name(name: str) -> str:
    """What files call the parameter *name* of an autoencoder of videos."""
    for own, theirs in (
        ("down_blocks.", "down."),
        ("resnets.", "block."),
        ("downsamplers.0", "downsample"),
        ("conv_shortcut", "nin_shortcut"),
    ):
        name = name.replace(own, theirs) if name.startswith("encoder.") else name
    return name


def vae_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """An autoencoder of videos, with means and deviations of latents of its own."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {published_name(name): tuple(value.shape) for name, value in MiniMaxAutoencoder(VIDEO_SIZES).named_parameters()}
    tensors = {name: random_weight(name, shape, generator) for name, shape in shapes.items()}
    return tensors | {"latents_std": 1 + torch.rand(24, generator=generator)}


@functools.cache
def audio_vae_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """An autoencoder of sound; the filters between its samples are those that it is made with."""
    generator = torch.Generator().manual_seed(seed)
    model = MiniMaxAudioAutoencoder(AUDIO_SIZES)
    tensors = {name: random_weight(name, tuple(value.shape), generator) for name, value in model.named_parameters()}
    filters = sinc_filter()
    tensors |= {name: filters.clone() for name in tensors if name.endswith(".filter")}
    tensors |= {name: 1 + value for name, value in tensors.items() if name.startswith("encoder.") and name.endswith(".alpha")}
    tensors["decoder.conv_post.weight"] *= 0.1
    return tensors | {"pre_block.attn.zero_k_bias": torch.zeros(256), "latents_std": 1 + torch.rand(32, generator=generator)}


def sinc_filter() -> torch.Tensor:
    """The kernel of every filter."""
    from diffusers.models.autoencoders.autoencoder_kl_minimax_h3_audio import kaiser_sinc_filter1d

    return kaiser_sinc_filter1d(0.25, 0.3, 12)


def vae_file(path, seed: int = 0) -> str:
    """*path*, after an autoencoder of videos was written there."""
    save_file(vae_tensors(seed), path)
    return str(path)


def audio_vae_file(path, seed: int = 0) -> str:
    """*path*, after an autoencoder of sound was written there."""
    save_file(audio_vae_tensors(seed), path)
    return str(path)
