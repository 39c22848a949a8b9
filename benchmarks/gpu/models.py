"""Models of the chosen family: loaded by this project, built by diffusers, and one step of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.bench import Bench

BATCH, TOKENS = 2, 77
TIMESTEP_SIGMA = 5.0


def load(bench: Bench, number: int = 0) -> tuple[Any, Any, Any]:
    """(patcher, text encoder, autoencoder) of checkpoint *number*."""
    import comfy.sd

    return comfy.sd.load_checkpoint_guess_config(bench.file(number))[:3]


def inputs(bench: Bench, network: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Latents, sigmas and conditioning for one call of *network*'s ``apply_model``, on the card."""
    config = bench.choice.sizes().unet
    generator = torch.Generator().manual_seed(3)
    side = bench.choice.side
    latent = torch.randn(BATCH, config.in_channels, side, side, generator=generator)
    conditioning = {"c_crossattn": torch.randn(BATCH, TOKENS, config.context_dim, generator=generator)}
    if network.adm_channels:
        conditioning["y"] = torch.randn(BATCH, network.adm_channels, generator=generator)
    on_card = {name: value.to(bench.device) for name, value in conditioning.items()}
    return latent.to(bench.device), torch.full((BATCH,), TIMESTEP_SIGMA).to(bench.device), on_card


def step(bench: Bench, patcher: Any) -> Callable[[], torch.Tensor]:
    """One call of the patcher's network, which is loaded as it is."""
    latent, sigmas, conditioning = inputs(bench, patcher.model)
    return lambda: patcher.model.apply_model(latent, sigmas, **conditioning)


def load_on_card(bench: Bench, patcher: Any) -> None:
    """Bring all of the patcher's weights to the card, as a sampler does."""
    import comfy.model_management as management

    management.load_models_gpu([patcher], memory_required=patcher.memory_required(input_shape(bench)))


def input_shape(bench: Bench) -> list[int]:
    """The shape of a batch of latents."""
    return [BATCH, bench.choice.sizes().unet.in_channels, bench.choice.side, bench.choice.side]


def diffusers_step(bench: Bench) -> tuple[Any, Callable[[], torch.Tensor]]:
    """diffusers' network with random weights in half precision on the card, and one call of it."""
    from diffusers import UNet2DConditionModel

    config = bench.choice.sizes().unet
    with torch.device("meta"):
        network = UNet2DConditionModel(**config.diffusers_arguments()).half()
    network = network.to_empty(device=bench.device).eval()
    for parameter in network.parameters():
        parameter.normal_(0.0, 0.02)
    half = {"device": bench.device, "dtype": torch.half}
    latent = torch.randn(BATCH, config.in_channels, bench.choice.side, bench.choice.side).to(**half)
    context = torch.randn(BATCH, TOKENS, config.context_dim).to(**half)
    added = None
    if config.adm_in_channels is not None:  # the rest is the embedding of six sizes
        added = {
            "text_embeds": torch.randn(BATCH, config.adm_in_channels - 6 * 256).to(**half),
            "time_ids": torch.ones(BATCH, 6).to(**half),
        }
    times = torch.full((BATCH,), 500.0).to(bench.device)
    return network, lambda: network(latent, times, context, added_cond_kwargs=added).sample
