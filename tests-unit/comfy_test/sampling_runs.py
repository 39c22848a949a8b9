"""Runs of a small random Stable Diffusion model, from prompts to latent."""

import functools

import torch
from small_models import small_checkpoint

import comfy.sample
import comfy.sd
from comfy.cli_args import args


@functools.cache
def loaded(family="sd15"):
    """(patcher, positive, negative) of the small checkpoint."""
    args.cpu = True
    with torch.inference_mode():
        patcher, clip, _, _ = comfy.sd.load_checkpoint_guess_config(small_checkpoint(family), output_vae=False)
        sides = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a red house", "blue")]
    return patcher, *sides


def run(
    patcher=None,
    latent=None,
    seed=3,
    steps=3,
    cfg=4.0,
    sampler="euler",
    scheduler="karras",
    family="sd15",
    noise=None,
    sides=None,
    **options,
):
    """A sampling of a 64 x 64 pixel latent; *sides* replaces the conditioning."""
    base, positive, negative = loaded(family)
    positive, negative = (positive, negative) if sides is None else sides
    latent = torch.zeros(1, 4, 8, 8) if latent is None else latent
    with torch.inference_mode():
        noise = comfy.sample.prepare_noise(latent, seed) if noise is None else noise
        return comfy.sample.sample(
            patcher or base, noise, steps, cfg, sampler, scheduler, positive, negative, latent, seed=seed, disable_pbar=True, **options
        )
