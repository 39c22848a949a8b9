"""Models that take a picture's latent beside their own: its channels, its scale, and what they do to a result."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

import comfy.sample
import comfy.sd
from benchmarks.make_checkpoint import UNETS, random_tensor
from comfy import latent_formats, model_base
from comfy.families.guiding_picture import IP2P
from comfy.families.published_layout import unet_layout


def guided_model():
    """A small InstructPix2Pix of Stable Diffusion 1.x."""
    sizes = dataclasses.replace(UNETS["sd15"], in_channels=8, model_channels=32, num_heads=4)
    generator = torch.Generator().manual_seed(0)
    return comfy.sd.load_diffusion_model_state_dict(
        {key: random_tensor(key, shape, generator) for key, shape in unet_layout(sizes).items()}
    )


def test_the_picture_is_fitted_to_the_noise_and_missing_ones_are_zeros():
    noise = torch.ones(2, 4, 8, 8)
    assert torch.equal(IP2P().concat_cond(noise=noise, device="cpu"), torch.zeros_like(noise))
    picture = torch.randn(2, 4, 8, 8)
    assert torch.equal(IP2P().concat_cond(noise=noise, device="cpu", concat_latent_image=picture), picture)
    fitted = IP2P().concat_cond(noise=noise, device="cpu", concat_latent_image=torch.full((1, 4, 16, 12), 0.5))
    assert fitted.shape == noise.shape and torch.allclose(fitted, torch.full_like(noise, 0.5))


@pytest.mark.parametrize("kind", [model_base.ModelType.EPS, model_base.ModelType.V_PREDICTION_EDM])
def test_cosxl_takes_the_picture_in_the_samplers_scale(kind):
    picture = torch.randn(1, 4, 2, 2)
    taken = model_base.SDXL_instructpix2pix.process_ip2p_image_in(SimpleNamespace(model_type=kind), picture)
    expected = picture if kind is model_base.ModelType.EPS else latent_formats.SDXL().process_in(picture)
    assert torch.equal(taken, expected)


@torch.inference_mode()
def test_the_picture_in_the_conditioning_changes_the_result_and_nothing_else_is_needed():
    model = guided_model()
    assert type(model.model) is model_base.SD15_instructpix2pix and model.model.diffusion_model.in_channels == 8
    text, noise = torch.randn(1, 7, 768, generator=torch.Generator().manual_seed(1)), torch.randn(1, 4, 8, 8)

    def sample(options):
        conds = [[text, options]], [[text * 0, options]]
        return comfy.sample.sample(model, noise, 1, 2.0, "euler", "normal", *conds, torch.zeros_like(noise), disable_pbar=True)

    plain, zero = sample({}), sample({"concat_latent_image": torch.zeros(1, 4, 8, 8)})
    guided = sample({"concat_latent_image": torch.ones(1, 4, 8, 8)})
    assert torch.equal(plain, zero) and plain.isfinite().all() and not torch.allclose(plain, guided, atol=1e-2)
