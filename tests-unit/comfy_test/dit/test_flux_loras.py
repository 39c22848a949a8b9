"""LoRA files for Flux: every style of names finds its weights, and the changes are what the files say."""

import logging

import flux_loras
import pytest
import torch
from transformer_files import flux_tensors

import comfy.sd
from comfy.dit.flux import swap_halves
from comfy.lora_convert import convert_lora

LAYERS = {"kohya": 6, "plain": 6, "control": 7, "xlabs": 6, "lycoris": 2}


@pytest.fixture(scope="module")
def model():
    return comfy.sd.load_diffusion_model_state_dict(flux_tensors(), model_options={"dtype": torch.float32})


def patched(model, lora, caplog):
    """The patcher with *lora*, and what the log says of keys that found nothing."""
    caplog.set_level(logging.WARNING)
    caplog.clear()
    clone, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)
    return clone, [record.message for record in caplog.records]


@pytest.mark.parametrize("style", ["kohya", "plain", "diffusers", "onetrainer", "lycoris", "control", "xlabs"])
def test_every_key_of_every_style_finds_its_weight(model, style, caplog):
    clone, messages = patched(model, getattr(flux_loras, style)(), caplog)
    assert messages == []
    changed = {key for key, value in clone.patches.items() if key.endswith(".weight") and "norm" not in key}
    assert len(changed) >= LAYERS.get(style, 10)


def test_a_change_in_diffusers_names_goes_to_its_rows(model, caplog):
    up, down = torch.randn(256, 2), torch.randn(2, 256)
    last_up, last_down = torch.randn(512, 2), torch.randn(2, 256)
    lora = {
        "transformer.single_transformer_blocks.0.attn.to_k.lora_B.weight": up,
        "transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight": down,
        "transformer.norm_out.linear.lora_B.weight": last_up,
        "transformer.norm_out.linear.lora_A.weight": last_down,
    }
    clone, messages = patched(model, lora, caplog)
    tensors = flux_tensors()
    clone.patch_model()
    try:
        found = {key: value.clone() for key, value in clone.model.diffusion_model.named_parameters()}
    finally:
        clone.unpatch_model()
    expected = tensors["single_blocks.0.linear1.weight"].clone()
    expected[256:512] += up @ down
    assert messages == [] and torch.allclose(found["single_blocks.0.linear1.weight"], expected, atol=1e-5)
    last = tensors["final_layer.adaLN_modulation.1.weight"] + swap_halves(last_up @ last_down)
    assert torch.allclose(found["final_layer.adaLN_modulation.1.weight"], last, atol=1e-5)
    assert torch.equal(
        dict(model.model.diffusion_model.named_parameters())["single_blocks.0.linear1.weight"], tensors["single_blocks.0.linear1.weight"]
    )


def test_a_control_lora_widens_the_first_layer_and_replaces_norms(model, caplog):
    lora = flux_loras.control()
    clone, _ = patched(model, lora, caplog)
    clone.patch_model()
    try:
        network = clone.model.diffusion_model
        assert network.img_in.weight.shape == (256, 128)
        norm = network.double_blocks[0].img_attn.norm.query_norm.weight
        assert torch.equal(norm, lora["double_blocks.0.img_attn.norm.query_norm.scale"])
        noise = torch.zeros(1, 16, 4, 4)
        picture = torch.ones(1, 16, 8, 8)
        concat = clone.model.concat_cond(noise=noise, device=torch.device("cpu"), concat_latent_image=picture)
        assert concat.shape == noise.shape and torch.equal(concat, clone.model.process_latent_in(torch.ones_like(noise)))
    finally:
        clone.unpatch_model()
    assert model.model.diffusion_model.img_in.weight.shape == (256, 64)
    assert model.model.concat_cond(noise=noise, device=torch.device("cpu")) is None


def test_names_of_usos_files():
    key = "single_blocks.1.processor.qkv_lora.down.weight"
    assert list(convert_lora({key: torch.zeros(1)})) == ["diffusion_model.single_blocks.1.linear1_qkv.lora_down.weight"]
