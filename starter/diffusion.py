"""Stable Diffusion 1.x's noise, and a plain Euler sampler over bare diffusers networks.

Training uses it, and it checks a model without the server's sampling code.
"""

import torch

TRAIN_STEPS = 1000


def signal_shares() -> torch.Tensor:
    """The share of signal power left after each of the 1000 steps (betas linear in their square roots), float32."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def add_noise(latents_BCHW: torch.Tensor, noise: torch.Tensor, share_B: torch.Tensor) -> torch.Tensor:
    """*latents* with their power reduced to *share* and the rest filled with *noise*."""
    share = share_B.view(-1, 1, 1, 1)
    return share.sqrt() * latents_BCHW + (1 - share).sqrt() * noise


@torch.no_grad()
def euler(
    unet: torch.nn.Module, wanted: torch.Tensor, unwanted: torch.Tensor, noise_BCHW: torch.Tensor, cfg: float = 4.5, steps: int = 20
) -> torch.Tensor:
    """Latents of unit variance for prompt states *wanted* and *unwanted* (B x tokens x width), guided by *cfg*."""
    shares = signal_shares()
    times = torch.linspace(TRAIN_STEPS - 1, 0, steps).round().long()
    sigmas = torch.cat([((1 - shares[times]) / shares[times]).sqrt(), torch.zeros(1)])
    x = noise_BCHW * sigmas[0]
    contexts = torch.cat([wanted, unwanted])
    for index, time in enumerate(times):
        sigma = sigmas[index]
        scaled = (x / (sigma**2 + 1).sqrt()).repeat(2, 1, 1, 1)
        towards, away = unet(scaled, time, contexts).sample.chunk(2)
        x = x + (sigmas[index + 1] - sigma) * (away + (towards - away) * cfg)
    return x
