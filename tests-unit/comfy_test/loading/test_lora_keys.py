"""Names in LoRA files, for UNets and text encoders, and applying a file to both."""

import types

import torch
from residency_models import Layers, management, patcher_of

import comfy.lora
from comfy.families.unet_key_names import unet_to_diffusers
from comfy.families.weight_names import WeightNames, WeightPart
from comfy.loading.lora import load_lora_for_models
from comfy.lora_convert import convert_lora
from comfy.weight_files.state_dicts import FileTensors

SD15 = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}


def module_with(*names):
    """A module whose weights have these dotted names."""
    root = torch.nn.Module()
    for name in names:
        *outer, last = name.split(".")
        holder = root
        for part in outer:
            if part not in holder._modules:
                holder.add_module(part, torch.nn.Module())
            holder = holder._modules[part]
        holder.register_parameter(last, torch.nn.Parameter(torch.zeros(2, 2), requires_grad=False))
    return root


def test_diffusers_names_of_a_unet():
    names = unet_to_diffusers(SD15)
    inner = "transformer_blocks.0.attn2.to_k.weight"
    assert names[f"down_blocks.0.attentions.1.{inner}"] == f"input_blocks.2.1.{inner}"
    assert names["down_blocks.2.downsamplers.0.conv.bias"] == "input_blocks.9.0.op.bias"
    assert names["mid_block.resnets.1.conv_shortcut.weight"] == "middle_block.2.skip_connection.weight"
    assert names["up_blocks.1.attentions.2.proj_in.weight"] == "output_blocks.5.1.proj_in.weight"
    assert names["up_blocks.0.upsamplers.0.conv.weight"] == "output_blocks.2.1.conv.weight"
    assert names["up_blocks.1.upsamplers.0.conv.weight"] == "output_blocks.5.2.conv.weight"
    assert names["conv_norm_out.weight"] == "out.0.weight" and "up_blocks.0.attentions.0.norm.weight" not in names
    assert unet_to_diffusers({"hidden_size": 3}) == {}


def test_every_style_of_unet_key_finds_its_weight():
    block = "input_blocks.1.1.transformer_blocks.0.attn1"
    keys = (f"diffusion_model.{block}.to_q.weight", f"diffusion_model.{block}.to_out.0.weight", f"diffusion_model.{block}.to_out.0.bias")
    model = module_with(*keys)
    model.model_config = types.SimpleNamespace(unet_config=SD15)
    found = comfy.lora.model_lora_keys_unet(model, {})
    flat = "down_blocks_0_attentions_0_transformer_blocks_0_attn1"
    dotted = flat.replace("blocks_0_attentions_0_transformer_blocks_0_", "blocks.0.attentions.0.transformer_blocks.0.")
    for name in (
        f"lora_unet_{block.replace('.', '_')}_to_q",
        f"lora_unet_{flat}_to_q",
        f"lycoris_{flat}_to_q",
        f"diffusion_model.{block}.to_q",
        f"{dotted}.processor.to_q",
        f"unet.{dotted}.processor.to_q",
        f"unet.{dotted}.to_q",
        f"base_model.model.{dotted}.to_q",
    ):
        assert found[name] == keys[0], name
    for name in (f"lora_unet_{flat}_to_out_0", f"unet.{dotted}.processor.to_out", f"unet.{dotted}.to_out.0"):
        assert found[name] == keys[1], name
    assert found[keys[2]] == keys[2]


def test_names_come_from_the_running_modules_where_there_is_a_table():
    model = module_with("diffusion_model.down.to_q.weight")
    model.weight_names = WeightNames(
        {"diffusion_model.input.q.weight": (WeightPart("diffusion_model.down.to_q.weight"),)}, {"diffusion_model.input.q.weight": (2, 2)}
    )
    found = comfy.lora.model_lora_keys_unet(model)
    assert found["lora_unet_down_to_q"] == found["lora_unet_input_q"] == found["unet.down.to_q"] == "diffusion_model.input.q.weight"
    assert comfy.lora.model_lora_keys_unet(model) is not found


LAYER = "transformer.text_model.encoder.layers.3.self_attn.q_proj.weight"


def test_text_encoder_keys_with_one_and_with_two_encoders():
    one = comfy.lora.model_lora_keys_clip(module_with(f"clip_l.{LAYER}"), {})
    for name in (
        "lora_te_text_model_encoder_layers_3_self_attn_q_proj",
        "lora_te1_text_model_encoder_layers_3_self_attn_q_proj",
        "text_encoder.text_model.encoder.layers.3.self_attn.q_proj",
        "text_encoders.clip_l.transformer.text_model.encoder.layers.3.self_attn.q_proj",
    ):
        assert one[name] == f"clip_l.{LAYER}"
    both = module_with(f"clip_l.{LAYER}", f"clip_g.{LAYER}", "clip_g.transformer.text_projection.weight")
    two = comfy.lora.model_lora_keys_clip(both, {})
    assert two["lora_te1_text_model_encoder_layers_3_self_attn_q_proj"] == f"clip_l.{LAYER}"
    assert two["lora_te2_text_model_encoder_layers_3_self_attn_q_proj"] == f"clip_g.{LAYER}"
    assert two["text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj"] == f"clip_g.{LAYER}"
    assert two["lora_te2_text_projection"] == "clip_g.transformer.text_projection.weight"
    refiner = comfy.lora.model_lora_keys_clip(module_with(f"clip_g.{LAYER}"), {})
    assert refiner["lora_te_text_model_encoder_layers_3_self_attn_q_proj"] == f"clip_g.{LAYER}"


class Clip:
    def __init__(self, patcher):
        self.patcher, self.cond_stage_model = patcher, patcher.model

    def clone(self):
        return Clip(self.patcher.clone())

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0):
        return self.patcher.add_patches(patches, strength_patch, strength_model)


def test_one_file_is_applied_to_model_and_text_encoder(caplog):
    with management() as manager:
        model = patcher_of(module_with("diffusion_model.a.weight"))
        clip = Clip(patcher_of(module_with(f"clip_l.{LAYER}")))
        text_key = "lora_te_text_model_encoder_layers_3_self_attn_q_proj"
        file = {f"{name}.lora_{part}.weight": torch.ones(2, 2) for name in ("lora_unet_a", text_key) for part in ("up", "down")}
        file["surplus"] = torch.ones(1)
        new_model, new_clip = load_lora_for_models(model, clip, file, 0.5, 0.25, lora_metadata={"by": "me"})
        manager.load_models_gpu([new_model, new_clip.patcher])
        assert new_model.model.diffusion_model.a.weight.unique().tolist() == [1.0]
        weight = new_clip.patcher.weights.get(f"clip_l.{LAYER}")
        assert weight.unique().tolist() == [0.5] and not model.patches and not clip.patcher.patches
        assert new_model.get_attachment("lora_metadata") == new_clip.patcher.get_attachment("lora_metadata") == {"by": "me"}
        assert "surplus" in caplog.text and caplog.text.count("\n") < 6
        assert load_lora_for_models(None, None, {}, 1, 1) == (None, None)
        assert load_lora_for_models(patcher_of(Layers()), None, file, 1, 1)[1] is None


def test_file_keys_with_one_underscore_too_many_are_mended():
    file = {"lora_unet__blocks_0.lora_up.weight": 1, "other": 2}
    assert convert_lora(file) == {"lora_unet_blocks_0.lora_up.weight": 1, "other": 2}
    plain = {"lora_unet_blocks_0.lora_up.weight": 1}
    assert convert_lora(plain) is plain
    assert convert_lora(FileTensors(file, "a.safetensors")).path == "a.safetensors"


def test_t5_is_numbered_after_the_clip_models():
    t5 = "t5xxl.transformer.encoder.block.0.q.weight"
    clip_l, clip_g = (f"{name}.transformer.text_model.encoder.layers.0.mlp.fc1.weight" for name in ("clip_l", "clip_g"))

    def numbered(*keys):
        found = comfy.lora.model_lora_keys_clip(module_with(*keys), {})
        return {name for name, key in found.items() if key == t5 and name.startswith("lora_te")}

    assert numbered(t5) == {"lora_te1_encoder_block_0_q"}
    assert numbered(t5, clip_l) == {"lora_te2_encoder_block_0_q", "lora_te3_encoder_block_0_q"}
    assert numbered(t5, clip_l, clip_g) == {"lora_te3_encoder_block_0_q"}
