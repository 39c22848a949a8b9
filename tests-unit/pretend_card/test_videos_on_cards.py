"""A network and an autoencoder of videos on a card, whole and streamed, give what they give on the host."""

from __future__ import annotations

import pathlib

import pytest
import torch
from cosmos_files import cosmos_vae_tensors, first_cosmos_tensors
from engine import FP32, Engine, differences, engine, leftovers, on_host, tensors_in

import comfy.sd


def results(made: Engine) -> list[torch.Tensor]:
    """A video's latent that begins with a given frame, a video, and the latent of one."""
    draw = torch.Generator().manual_seed(1)
    model = comfy.sd.load_diffusion_model_state_dict(first_cosmos_tensors(channels=17), model_options={"dtype": torch.float32})
    vae = comfy.sd.VAE(cosmos_vae_tensors())
    side = [[torch.randn(1, 5, 32, generator=draw), {"frame_rate": 16}]]
    mask = torch.ones(1, 1, 3, 6, 8)
    mask[:, :, 0] = 0.0
    latent = {"samples": torch.randn(1, 16, 3, 6, 8, generator=draw), "noise_mask": mask}
    sampled = made.sample(model, side, side, latent, steps=2)
    return [on_host(one).clone() for one in (sampled, vae.decode(latent["samples"]), vae.encode(torch.rand(9, 48, 64, 3, generator=draw)))]


@pytest.mark.parametrize("flags", [{}, {"novram": True}], ids=["whole", "streamed"])
def test_cosmos_on_a_card_is_cosmos_on_the_host(models: pathlib.Path, flags: dict[str, bool]) -> None:
    with engine(**FP32) as made:
        expected = results(made)
    with engine(1, **FP32, **flags) as made:
        found = results(made)
        assert not differences(tensors_in(expected, ""), tensors_in(found, ""), 1e-4)
        assert made.card.counters and not leftovers(made)
