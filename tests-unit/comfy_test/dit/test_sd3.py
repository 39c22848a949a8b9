"""Stable Diffusion 3: what its files are told by, diffusers' network and names, positions, its hooks, LoRA names."""

import pytest
import text_encoder_files
import torch
from image_family_files import numbers, sd3_config, sd3_tensors, vae_tensors
from safetensors.torch import save_file
from transformer_files import network_of

import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import sd3
from comfy.dit.models.sd3 import SD3
from comfy.dit.registry import family_of, read_transformer_config
from comfy.families.kl_vae_config import KlVaeConfig
from comfy.ldm.modules.diffusionmodules import mmdit_layers
from comfy.ldm.modules.diffusionmodules.mmdit import ContextProcessor, MMDiT, OpenAISignatureMMDITWrapper
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy.ops import disable_weight_init

FP32 = {"dtype": torch.float32}
MEDIUM = {"twice": (0,), "normalised": True}


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), model_options=FP32)


def inputs(size=(6, 8)):
    given = {"x": numbers(1, 16, *size, seed=1), "timesteps": torch.tensor([600.0])}
    return {**given, "context": numbers(1, 5, 48, seed=2), "y": numbers(1, 32, seed=3)}


@pytest.fixture(scope="module")
def network():
    return loaded(sd3_tensors(**MEDIUM)).model.diffusion_model


@pytest.mark.parametrize("sizes", [{}, MEDIUM, {"side": None}])
def test_it_is_told_by_its_joint_blocks(sizes):
    model = loaded({"model.diffusion_model." + name: value for name, value in sd3_tensors(**sizes).items()}).model
    assert type(model) is comfy.model_base.SD3 is SD3 and isinstance(model.model_config, comfy.supported_models.SD3)
    assert family_of(model.model_config.unet_config) is sd3.FAMILY and model.model_type.name == "FLOW"
    assert model.model_sampling.shift == 3.0 and model.latent_format.latent_channels == 16
    network = model.diffusion_model
    assert type(network) is OpenAISignatureMMDITWrapper and network.x_block_self_attn_layers == list(sizes.get("twice", ()))
    assert (network.pos_embed is None) is (sizes.get("side", 12) is None)


def test_the_real_sizes_give_the_published_names():
    network = network_of(sd3_config(depth=38, context=4096, pooled=2048, side=192, normalised=True))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert sum(value.numel() for value in network.parameters()) > 8_000_000_000
    assert shapes["joint_blocks.37.context_block.adaLN_modulation.1.weight"] == (4864, 2432)
    assert shapes["pos_embed"] == (1, 36864, 2432) and "joint_blocks.37.context_block.attn.proj.weight" not in shapes
    real = read_transformer_config(shapes)
    assert real["depth"] == 38 and real["pos_embed_max_size"] == 192 and real["qk_norm"] == "rms"
    assert list(network.patch_blocks())[-1] == ("double_block", 37)
    assert sd3.read_config({name: shape for name, shape in shapes.items() if not name.startswith("final_layer.")}) is None


@pytest.mark.parametrize("sizes", [{}, MEDIUM])
def test_it_computes_what_diffusers_computes_from_a_file_in_its_names(sizes):
    from diffusers import SD3Transformer2DModel

    twin = SD3Transformer2DModel(
        sample_size=24,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=64,
        joint_attention_dim=48,
        caption_projection_dim=128,
        pooled_projection_dim=32,
        pos_embed_max_size=12,
        dual_attention_layers=sizes.get("twice", ()),
        qk_norm="rms_norm" if sizes else None,
    ).eval()
    given = inputs()
    expected = twin(given["x"], given["context"], given["y"], given["timesteps"], return_dict=False)[0]
    found = loaded(twin.state_dict()).model.diffusion_model(**given)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4)


def test_positions_are_those_in_the_middle_of_the_largest_square(network):
    places = network.cropped_pos_embed((6, 8))
    square = network.pos_embed.reshape(12, 12, -1)
    assert torch.equal(places[0], square[4:7, 4:8].flatten(0, 1))
    with pytest.raises(ValueError, match="12 x 12 patches"):
        network.cropped_pos_embed((30, 4))
    computed = network_of(sd3_config(side=None))
    assert computed.cropped_pos_embed((4, 6)).shape == (6, 128)
    assert network(**inputs((7, 5))).shape == (1, 16, 7, 5)


def test_a_replacement_of_a_block_and_residuals(network):
    seen = []

    def replacement(args, extra):
        seen.append(sorted(args))
        return extra["original_block"](args)

    plain = network(**inputs())
    options = {"patches_replace": {"dit": {("double_block", 1): replacement}}}
    assert torch.equal(network(**inputs(), transformer_options=options), plain)
    assert seen == [["img", "transformer_options", "txt", "vec"]]
    controlled = network(**inputs(), control={"output": [None, torch.ones(1, 12, 128)]})
    assert not torch.allclose(controlled, plain) and torch.equal(network(**inputs(), control={"output": []}), plain)


def test_conditioning_needs_the_pooled_text_of_its_own_encoders():
    model = loaded(sd3_tensors()).model
    given = {"noise": numbers(1, 16, 4, 4), "device": torch.device("cpu"), "cross_attn": numbers(1, 5, 48)}
    conds = model.extra_conds(**given, pooled_output=numbers(1, 32))
    assert conds["y"].cond.shape == (1, 32) and conds["c_crossattn"].cond.shape == (1, 5, 48)
    for pooled in (None, numbers(1, 8)):
        with pytest.raises(ValueError, match=r"pooled text of 32 values.*type sd3"):
            model.extra_conds(**given, pooled_output=pooled)
    with pytest.raises(ValueError, match="encoded to 48 values"):
        model.extra_conds(**{**given, "cross_attn": numbers(1, 5, 40)}, pooled_output=numbers(1, 32))


def test_lora_files_name_weights_in_the_usual_ways():
    names = model_lora_keys_unet(loaded(sd3_tensors(**MEDIUM)).model, {})
    key = ("diffusion_model.joint_blocks.0.x_block.attn2.qkv.weight", (0, 128, 128))
    assert names["transformer.transformer_blocks.0.attn2.to_k"] == names["lycoris_transformer_blocks_0_attn2_to_k"] == key
    weight = "diffusion_model.joint_blocks.1.x_block.mlp.fc2.weight"
    assert names["base_model.model.transformer_blocks.1.ff.net.2"] == names["lora_unet_joint_blocks_1_x_block_mlp_fc2"] == weight
    assert names["transformer.transformer_blocks.1.norm1_context.linear"][2] is not None


def test_a_stream_runs_alone_as_control_nets_run_it():
    block = mmdit_layers.DismantledBlock(64, 1, qkv_bias=True, operations=disable_weight_init)
    for value in block.parameters():
        torch.nn.init.normal_(value, std=0.1)
    assert block(numbers(1, 4, 64), numbers(1, 64)).shape == (1, 4, 64)
    twice = mmdit_layers.DismantledBlock(64, 1, x_block_self_attn=True, operations=disable_weight_init)
    for value in twice.parameters():
        torch.nn.init.normal_(value, std=0.1)
    assert twice(numbers(1, 4, 64), numbers(1, 64)).shape == (1, 4, 64)
    with pytest.raises(ValueError, match="not by 'other'"):
        mmdit_layers.SelfAttention(64, 1, qk_norm="other", operations=disable_weight_init)


def test_text_may_have_blocks_of_its_own():
    processor = ContextProcessor(64, 2, operations=disable_weight_init)
    for value in processor.parameters():
        torch.nn.init.normal_(value, std=0.1)
    text = numbers(1, 3, 64)
    assert processor(text).shape == text.shape and torch.equal(text, numbers(1, 3, 64))
    with pytest.raises(TypeError):
        MMDiT(unknown=1)


def test_a_checkpoint_holds_its_text_encoders_and_autoencoder(tmp_path):
    vae = KlVaeConfig(3, 16, (32, 32, 32, 32), 1, False)
    parts = {f"text_encoders.{name}.transformer.": text_encoder_files.text_model(name) for name in ("clip_l", "clip_g")}
    parts |= {
        "model.diffusion_model.": sd3_tensors(pooled=2 * text_encoder_files.CLIP_WIDTH, context=4096),
        "first_stage_model.": vae_tensors(vae),
    }
    path = tmp_path / "whole.safetensors"
    save_file({prefix + name: value for prefix, tensors in parts.items() for name, value in tensors.items()}, path)
    model, clip, found, _ = comfy.sd.load_checkpoint_guess_config(str(path))
    assert type(model.model) is comfy.model_base.SD3 and found.latent_channels == 16
    states, values = clip.encode_from_tokens_scheduled(clip.tokenize("x"))[0]
    assert states.shape == (1, 77, 4096) and values["pooled_output"].shape == (1, 2 * text_encoder_files.CLIP_WIDTH)
