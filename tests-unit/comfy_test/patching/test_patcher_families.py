"""Real networks at small widths: patches by published names, LoRA files, and any amount of room give the same picture."""

import pytest
import torch
from residency_models import MIB, management
from small_models import small_checkpoint

import comfy.lora
import comfy.sd
from comfy.loading.lora import load_lora_for_models
from comfy.patching.layers import layers_of


def lora_for(weights, key_map, prefix):
    """A LoRA of rank 2 for each weight that has a name beginning with *prefix*."""
    generator, file = torch.Generator().manual_seed(0), {}
    for name, key in key_map.items():
        weight = weights.get(key) if str(name).startswith(prefix) else None
        if weight is not None and weight.ndim > 1:
            trailing = [1] * (weight.ndim - 2)
            file[f"{name}.lora_up.weight"] = 0.05 * torch.randn(weight.shape[0], 2, *trailing, generator=generator)
            file[f"{name}.lora_down.weight"] = 0.05 * torch.randn(2, *weight.shape[1:], generator=generator)
    return file


def run(vram_bytes, family, adm_channels):
    """The network's answer, unpatched and with a LoRA for UNet and text encoder, and how many layers were streamed."""
    with management(vram_bytes) as manager:
        model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(small_checkpoint(family), output_vae=False, output_clip=True)
        originals = {**dict(model.model.named_parameters()), **dict(clip.cond_stage_model.named_parameters())}
        file = {
            **lora_for(model.weights, comfy.lora.model_lora_keys_unet(model.model), "lora_unet_down_blocks"),
            **lora_for(clip.patcher.weights, comfy.lora.model_lora_keys_clip(clip.cond_stage_model), "lora_te1_"),
        }
        patched, patched_clip = load_lora_for_models(model, clip, file, 0.8, 0.6)
        assert len(patched.patches) + len(patched_clip.patcher.patches) == len(file) // 2 > 50
        answers, streamed = [], 0
        for patcher, encoder in ((patched, patched_clip), (model, clip)):
            text = encoder.encode_from_tokens(encoder.tokenize("a cat"))
            manager.load_models_gpu([patcher])
            streamed += sum(layer.is_streamed for layer in layers_of(patcher.model))
            latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
            extra = {"y": torch.ones(1, patcher.model.adm_channels)} if adm_channels else {}
            with torch.inference_mode():
                answers.append(patcher.model.apply_model(latent, torch.tensor([5.0]), c_crossattn=text, **extra))
        manager.unload_all_models()
        current = {**dict(model.model.named_parameters()), **dict(clip.cond_stage_model.named_parameters())}
        assert all(current[name] is parameter for name, parameter in originals.items())
        return answers, streamed


@pytest.mark.parametrize(("family", "adm_channels"), [("sd15", 0), ("sdxl-light", 2816)])
def test_a_lora_and_little_room_change_nothing_but_what_they_should(family, adm_channels):
    (patched, plain), streamed = run(None, family, adm_channels)
    assert streamed == 0 and not torch.allclose(patched, plain, atol=1e-4) and patched.isfinite().all()
    (patched_in_little_room, plain_in_little_room), streamed = run(3 * MIB, family, adm_channels)
    assert streamed > 50
    assert torch.equal(patched_in_little_room, patched) and torch.equal(plain_in_little_room, plain)


@pytest.mark.parametrize("name", ["time_embed.0", "input_blocks.0.0", "middle_block.1.transformer_blocks.0.attn1.to_out.0", "out.2"])
def test_a_layer_is_found_and_replaced_by_its_name_in_comfyui(name):
    path = "diffusion_model." + name
    with management(None) as manager:
        model, _, _, _ = comfy.sd.load_checkpoint_guess_config(small_checkpoint("sd15"), output_vae=False, output_clip=False)
        layer = model.get_model_object(path)
        assert torch.equal(layer.weight, model.model_state_dict()[path + ".weight"])
        assert model.get_model_object(path + ".bias") is layer.bias
        patched = model.clone()
        answers, context = [], torch.randn(1, 77, model.model.model_config.unet_config["context_dim"])

        class Doubled(torch.nn.Module):
            def forward(self, *arguments):
                return 2 * layer(*arguments)

        patched.add_object_patch(path, Doubled())
        for patcher in (model, patched, model):
            manager.load_models_gpu([patcher])
            with torch.inference_mode():
                answers.append(patcher.model.apply_model(torch.ones(1, 4, 8, 8), torch.tensor([5.0]), c_crossattn=context))
        assert patched.get_model_object(path) is not layer
        assert torch.equal(answers[0], answers[2]) and not torch.allclose(answers[0], answers[1], rtol=1e-3)
        manager.unload_all_models()
        assert model.get_model_object(path) is layer
