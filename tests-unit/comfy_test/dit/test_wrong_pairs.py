"""Latents, texts and LoRA files of another family than the model's end in one error that names both files."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformer_files import flux_file

import comfy.model_base
import comfy.sd
import comfy.utils
from comfy import made_by
from comfy.families.model_errors import ModelFileError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return comfy.sd.load_diffusion_model(flux_file(tmp_path_factory.mktemp("flux") / "flux.safetensors", depth=1, single=1))


def test_who_made_a_tensor_is_said_where_it_is_known():
    assert made_by.said(torch.zeros(1)) == "" and made_by.said(made_by.mark(torch.zeros(1), "")) == ""
    assert made_by.said(made_by.mark(torch.zeros(1), "a.safetensors")) == " (made by a.safetensors)"


def test_a_latent_of_another_family(model):
    latent = made_by.mark(torch.zeros(1, 4, 8, 8), "sd.safetensors")
    with pytest.raises(ValueError, match=r"flux.safetensors works on latents of 16 channels.* 4 \(made by sd.safetensors\)"):
        model.model.process_latent_in(latent)
    with pytest.raises(ValueError, match=r"flux.safetensors works on latents of 16 channels.* 4 \(made by sd.safetensors\)"):
        model.model.extra_conds(reference_latents=[latent], noise=torch.zeros(1, 16, 8, 8), device=torch.device("cpu"))


def test_a_text_of_another_family(model):
    text = made_by.mark(torch.zeros(1, 3, 77), "clip.safetensors")
    with pytest.raises(ValueError, match=r"flux.safetensors takes texts encoded to 64 values.* has 77 \(made by clip.safetensors\)"):
        model.model.extra_conds(cross_attn=text, noise=torch.zeros(1, 16, 8, 8), device=torch.device("cpu"))


def test_an_autoencoder_of_another_family():
    vae = comfy.sd.VAE({})
    vae.first_stage_model, vae.latent_channels, vae.source_name = SimpleNamespace(), 16, "ae.safetensors"
    latent = made_by.mark(torch.zeros(1, 4, 8, 8), "sd.safetensors")
    for decode in (vae.decode, vae.decode_tiled):
        with pytest.raises(ValueError, match=r"the VAE ae.safetensors works on latents of 16 channels.* 4 \(made by sd.safetensors\)"):
            decode(latent)


def test_an_autoencoder_for_latents_of_other_dimensions():
    diffusion_model = SimpleNamespace(source_name="qwen.safetensors", latent_format=SimpleNamespace(latent_dimensions=3))
    latent = made_by.mark_latent(torch.zeros(1, 16, 1, 8, 8), diffusion_model)
    vae = comfy.sd.VAE({})
    vae.first_stage_model, vae.latent_channels, vae.source_name = SimpleNamespace(), 16, "ae.safetensors"
    with pytest.raises(ValueError, match=r"the VAE ae.safetensors works on latents of pictures.* one of videos.*made by qwen.safetensors"):
        vae.decode(latent)
    made_by.check_dimensions(latent, 3, "a VAE of videos")
    made_by.check_dimensions(torch.zeros(1, 16, 1, 8, 8), 2, "nobody knows what made it")


def test_a_lora_of_another_model(model, tmp_path):
    file = tmp_path / "sd.safetensors"
    save_file({"lora_unet_input_blocks_1_1_proj_in.lora_up.weight": torch.zeros(4, 4)}, file)
    lora = comfy.utils.load_torch_file(str(file))
    with pytest.raises(ModelFileError, match=r"sd.safetensors changes nothing in the diffusion model .*flux.safetensors: none of its 1"):
        comfy.sd.load_lora_for_models(model, None, lora, 1.0, 1.0)


def test_a_lora_for_text_encoders_alone_is_no_error_without_them(model):
    lora = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.zeros(4, 4)}
    assert comfy.sd.load_lora_for_models(model, None, lora, 1.0, 1.0)[0].patches == {}
