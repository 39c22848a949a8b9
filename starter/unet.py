"""The starter's diffusion network: learns to predict the noise in a digit's latent, given a prompt that names the digit."""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from starter.diffusion import TRAIN_STEPS, add_noise, signal_shares
from starter.prompts import ANY_DIGIT
from starter.sizes import UNET
from starter.steps import AveragedWeights, optimize

BATCH, STEPS, RATE = 64, 1200, 1.5e-3
WITHOUT_PROMPT = 0.1  # share of the pictures learnt under the empty prompt
WITHOUT_DIGIT = 0.05  # … and under another prompt that names no digit
AVERAGE_DECAY = 0.997
SNR_LIMIT = 5.0  # signal-to-noise ratio above which a step's weight falls (min-SNR weighting, Hang et al. 2023)


def build_unet() -> UNet2DConditionModel:
    """A new network with weights from torch's current seed."""
    return UNet2DConditionModel(**UNET.diffusers_arguments())


def train_unet(
    unet: UNet2DConditionModel,
    latents: torch.Tensor,
    labels: torch.Tensor,
    bank: torch.Tensor,
    generator: torch.Generator,
    steps: int = STEPS,
) -> None:
    """Train *unet* in place on unit-variance *latents* and the prompts' hidden states (``prompt_bank``)."""
    shares = signal_shares()
    weights = (SNR_LIMIT * (1 - shares) / shares).clamp(max=1.0)
    average = AveragedWeights(unet, AVERAGE_DECAY)

    def loss(_step: int) -> torch.Tensor:
        chosen = torch.randint(len(latents), (BATCH,), generator=generator)
        times = torch.randint(TRAIN_STEPS, (BATCH,), generator=generator)
        noise = torch.randn(BATCH, *latents.shape[1:], generator=generator)
        contexts = _contexts(bank, labels[chosen], generator)
        predicted = unet(add_noise(latents[chosen], noise, shares[times]), times, contexts).sample
        return (weights[times] * (predicted - noise).square().mean((1, 2, 3))).mean()

    optimize(unet.parameters(), loss, steps, RATE, "diffusion model", average.update)
    average.store()


def _contexts(bank: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random prompt's states for each label; some prompts are empty or name no digit."""
    luck = torch.rand(len(labels), generator=generator)
    prompts = torch.randint(bank.shape[1], (len(labels),), generator=generator)
    classes = torch.where(luck < WITHOUT_PROMPT + WITHOUT_DIGIT, ANY_DIGIT, labels)
    prompts = torch.where(luck < WITHOUT_PROMPT, 0, prompts)
    return bank[classes, prompts]
