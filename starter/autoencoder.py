"""The starter's KL autoencoder: trained on every style at once, then scaled so that one style's latents have unit variance."""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from tqdm import tqdm

from starter.data import Digits, enlarge, jitter
from starter.sizes import LATENT_SCALE, VAE
from starter.steps import optimize
from starter.styles import STYLES

BATCH_PER_STYLE, STEPS, RATE = 8, 350, 2e-3
DIVERGENCE_WEIGHT = 5e-4


def build_autoencoder() -> AutoencoderKL:
    """A new autoencoder with weights from torch's current seed."""
    return AutoencoderKL(**VAE.diffusers_arguments()).to(memory_format=torch.channels_last)


def train_autoencoder(model: AutoencoderKL, digits: Digits, generator: torch.Generator, steps: int = STEPS) -> None:
    """Train *model* in place to give pictures of all styles back."""
    ink = enlarge(digits.ink)

    def loss(_step: int) -> torch.Tensor:
        chosen = torch.randint(len(ink), (BATCH_PER_STYLE,), generator=generator)
        strokes = jitter(ink[chosen], generator)
        pictures = torch.cat([style(strokes) for style in STYLES.values()]) * 2 - 1
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        latents = model.encode(pictures).latent_dist
        difference = model.decode(latents.sample(generator)).sample - pictures
        divergence = latents.kl().mean() / latents.mean[0].numel()
        return difference.abs().mean() + difference.square().mean() + DIVERGENCE_WEIGHT * divergence

    optimize(model.parameters(), loss, steps, RATE, "autoencoder")


@torch.no_grad()
def latent_bank(
    model: AutoencoderKL, digits: Digits, style: str, copies: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean latents of *copies* slightly moved pictures of every digit in *style*, and their labels."""
    ink, latents = enlarge(digits.ink), []
    for _ in tqdm(range(copies), desc="latents"):
        pictures = STYLES[style](jitter(ink, generator)) * 2 - 1
        latents += [model.encode(part.contiguous(memory_format=torch.channels_last)).latent_dist.mean for part in pictures.split(128)]
    return torch.cat(latents).contiguous(), digits.labels.repeat(copies)


@torch.no_grad()
def unit_latents(model: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """*latents* with zero mean and unit variance per channel; *model* is changed so that it produces and takes them.

    The scale goes into its two 1 x 1 convolutions, times Stable Diffusion's constant latent scale.
    """
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    step = deviation * LATENT_SCALE
    channels = VAE.latent_channels
    into: Any = model.quant_conv
    out_of: Any = model.post_quant_conv
    into.weight[:channels] /= step.view(-1, 1, 1, 1)
    into.bias[:channels] = (into.bias[:channels] - mean) / step
    into.bias[channels:] -= 2 * step.log()
    out_of.bias += out_of.weight[:, :, 0, 0] @ mean
    out_of.weight *= step.view(1, -1, 1, 1)
    return (latents - mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1)
