"""Lotus: told from other networks, read in both styles of names, sampled in one step."""

import dataclasses

import pytest
import torch

import comfy.sample
import comfy.samplers
import comfy.sd
from benchmarks.make_checkpoint import UNETS
from comfy import model_base, model_detection, supported_models
from comfy.cli_args import args
from comfy.families.diffusers_names import unet_names
from comfy.families.published_layout import unet_layout
from comfy_extras.nodes_lotus import LotusConditioning
from comfy_extras.nodes_sdupscale import SD_4XUpscale_Conditioning

FULL = dataclasses.replace(UNETS["sd15"], context_dim=1024, use_linear=True, adm_in_channels=4, num_heads=-1, num_head_channels=64)
SMALL = dataclasses.replace(FULL, model_channels=64, channel_mult=(1, 2), num_res_blocks=(1, 1), depths=(1, 1), output_depths=(1,) * 4)


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(args, "cpu", True)


def weights():
    generator = torch.Generator().manual_seed(0)
    layout = unet_layout(SMALL)
    return {
        key: torch.randn(shape, generator=generator) * (torch.Size(shape[1:]).numel() ** -0.5 if len(shape) > 1 else 0.1)
        for key, shape in layout.items()
    }


def in_diffusers_names(tensors):
    names = {key: name.replace("add_embedding.", "class_embedding.") for key, name in unet_names(SMALL).items()}
    return {names[key]: tensor for key, tensor in tensors.items()}


def test_it_is_told_by_its_four_numbers():
    stand_ins = {key: torch.empty(shape, device="meta") for key, shape in unet_layout(FULL).items()}
    config = model_detection.model_config_from_unet(stand_ins, "")
    assert type(config) is supported_models.LotusD and config.model_class() is model_base.Lotus
    assert config.model_type({}) == model_base.ModelType.IMG_TO_IMG


@pytest.mark.parametrize("renamed", [lambda tensors: tensors, in_diffusers_names])
def test_one_step_makes_of_a_latent_what_the_network_says(renamed):
    patcher = comfy.sd.load_diffusion_model_state_dict(renamed(weights()))
    (conditioning,) = LotusConditioning.execute().args
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sampler = comfy.samplers.sampler_object("euler")
    sigmas = torch.tensor([float(patcher.model.model_sampling.sigma_max), 0.0])
    result = comfy.sample.sample_custom(patcher, torch.zeros_like(latent), 1.0, sampler, sigmas, conditioning, conditioning, latent)
    task = torch.tensor([[0.84147098, 0.0, 0.54030231, 1.0]])
    assert torch.allclose(patcher.model.encode_adm(), task)
    network, context = patcher.model.diffusion_model, conditioning[0][0]
    given = patcher.model.process_latent_in(latent)
    expected = patcher.model.process_latent_out(network(given, torch.tensor([999.0]), context=context, y=task))
    assert torch.allclose(result, expected, atol=1e-4, rtol=1e-3)


def test_the_text_has_two_tokens():
    text = LotusConditioning.execute().args[0][0][0]
    assert text.shape == (1, 2, 1024) and text.dtype == torch.float32 and text[0, 0, 0].item() == -0.3134765625 and text.std() > 0.1


def test_pictures_are_prepared_for_the_upscaler():
    positive, negative, latent = SD_4XUpscale_Conditioning.execute(torch.ones(2, 8, 12, 3), [["a", {}]], [["b", {"x": 1}]], 2.0, 0.1).args
    assert latent["samples"].shape == (2, 4, 4, 6) and positive[0][1]["concat_image"].shape == (2, 3, 4, 6)
    assert positive[0][1]["concat_image"].eq(1).all() and negative[0][1]["x"] == 1 and negative[0][1]["noise_augmentation"] == 0.1
    with pytest.raises(ValueError, match="scale_ratio"):
        SD_4XUpscale_Conditioning.execute(torch.ones(1, 8, 8, 3), [], [], 0.1, 0.0)
