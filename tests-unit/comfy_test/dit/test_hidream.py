"""HiDream: what its files are told by, its network against diffusers', its conditioning, its four text encoders."""

import pytest
import text_encoder_files
import torch
from image_family_files import as_bytes, hidream_config, hidream_tensors, llama_tensors, llama_tokenizer_json, numbers
from safetensors.torch import save_file
from transformer_files import network_of

import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.cli_args import args
from comfy.dit import hidream
from comfy.dit.models.hidream import HiDream
from comfy.dit.registry import family_of, read_transformer_config
from comfy.ldm.hidream import model as network_of_hidream
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy.ops import disable_weight_init

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), model_options={"dtype": torch.float32})


def inputs(size=(4, 6)):
    given = {"x": numbers(1, 16, *size, seed=1), "t": torch.tensor([600.0]), "y": numbers(1, 48, seed=2)}
    return {**given, "context": numbers(1, 5, 32, seed=3), "encoder_hidden_states_llama3": numbers(1, 4, 6, 32, seed=4)}


@pytest.fixture(scope="module")
def network():
    return loaded(hidream_tensors()).model.diffusion_model


def test_it_is_told_by_its_projections():
    model = loaded({"model.diffusion_model." + name: value for name, value in hidream_tensors().items()}).model
    assert type(model) is comfy.model_base.HiDream is HiDream and isinstance(model.model_config, comfy.supported_models.HiDream)
    assert family_of(model.model_config.unet_config) is hidream.FAMILY and model.model_type.name == "FLOW"
    weight = "diffusion_model.single_stream_blocks.1.block.ff_i.experts.3.w2.weight"
    names = model_lora_keys_unet(model, {})
    assert names["transformer.single_stream_blocks.1.block.ff_i.experts.3.w2"] == weight
    assert names["lycoris_single_stream_blocks_1_block_ff_i_experts_3_w2"] == weight


def test_the_real_sizes_give_the_published_names():
    network = network_of(hidream_config(width=2560, double=16, single=32, text=4096, llama=4096, pooled=2048))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert sum(value.numel() for value in network.parameters()) > 16_000_000_000
    assert shapes["double_stream_blocks.15.block.ff_i.shared_experts.w1.weight"] == (3584, 2560)
    assert shapes["caption_projection.48.linear.weight"] == (2560, 4096)
    real = read_transformer_config(shapes)
    assert real["llama_layers"] == [*range(32), *[31] * 16] and real["num_attention_heads"] == 20 and real["num_routed_experts"] == 4


def test_it_computes_what_diffusers_computes(network):
    from diffusers import HiDreamImageTransformer2DModel

    twin = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=128,
        num_attention_heads=1,
        caption_channels=[32, 32],
        text_emb_dim=48,
        axes_dims_rope=(64, 32, 32),
        llama_layers=[0, 1, 2, 3],
        force_inference_output=True,
    ).eval()
    twin.load_state_dict(hidream_tensors())
    given = inputs((4, 4))
    llama = given["encoder_hidden_states_llama3"].movedim(1, 0)
    output = twin(given["x"], given["t"], given["context"], llama, given["y"], return_dict=False)[0]
    torch.testing.assert_close(network(**given), -output, rtol=1e-3, atol=2e-4)


def test_odd_sides_are_padded_and_a_picture_to_change_stands_beside(network):
    assert network(**inputs((5, 7))).shape == (1, 16, 5, 7)
    seen = network(**inputs(), image_cond=numbers(1, 16, 4, 6, seed=9))
    assert seen.shape == (1, 16, 4, 6) and not torch.allclose(seen, network(**inputs()))


def test_each_token_passes_its_own_experts():
    layer = network_of_hidream.MOEFeedForwardSwiGLU(8, 12, 3, 2, operations=disable_weight_init)
    for value in layer.parameters():
        torch.nn.init.normal_(value, std=0.3)
    x = numbers(1, 5, 8)
    weights, chosen = layer.gate(x[0])
    expected = layer.shared_experts(x[0])
    for token in range(5):
        for weight, number in zip(weights[token], chosen[token]):
            expected[token] += weight * layer.experts[int(number)](x[0, token])
    torch.testing.assert_close(layer(x)[0], expected)


def test_conditioning_is_that_of_its_own_text_encoders():
    model = loaded(hidream_tensors()).model
    latent = numbers(1, 16, 4, 4)
    given = {"noise": latent, "device": CPU, "cross_attn": numbers(1, 5, 32), "pooled_output": numbers(1, 48)}
    conds = model.extra_conds(**given, conditioning_llama3=numbers(1, 4, 6, 32), concat_latent_image=latent)
    assert conds.keys() == {"y", "c_crossattn", "encoder_hidden_states_llama3", "image_cond"}
    assert torch.equal(conds["image_cond"].cond, model.process_latent_in(latent))
    with pytest.raises(ValueError, match=r"type hidream, or four files"):
        model.extra_conds(**given)
    with pytest.raises(ValueError, match="encoded to 32 values"):
        model.extra_conds(**{**given, "cross_attn": numbers(1, 5, 40)}, conditioning_llama3=numbers(1, 4, 6, 32))


def test_four_files_make_one_text_encoder(tmp_path, monkeypatch):
    text_encoder_files.write_tokenizer(tmp_path / "t5")
    monkeypatch.setattr(args, "tokenizer_directory", [str(tmp_path)])
    carried = {"tokenizer_json": as_bytes(llama_tokenizer_json())}
    files = {name: text_encoder_files.text_model(name) for name in ("clip_g", "clip_l", "t5xxl")}
    files["llama"] = {**llama_tensors(layers=4, vocabulary=128010), **carried}
    paths = []
    for name, tensors in files.items():
        paths.append(str(tmp_path / f"{name}.safetensors"))
        save_file(tensors, paths[-1])
    clip = comfy.sd.load_clip(paths)
    tokens = clip.tokenize("us x")
    ids = [token for token, _ in tokens["llama"][0]]
    assert ids[:2] == [128000, 300] and len(ids) == 128 and ids[-1] == 128009
    states, values = clip.encode_from_tokens_scheduled(tokens)[0]
    assert states.shape == (1, 128, text_encoder_files.T5_WIDTH) and values["conditioning_llama3"].shape == (1, 4, 128, 32)
    alone = comfy.sd.load_clip(paths[-1:], clip_type=comfy.sd.CLIPType.HIDREAM)
    same = alone.encode_from_tokens_scheduled(alone.tokenize("us x"))[0][1]["conditioning_llama3"]
    torch.testing.assert_close(same, values["conditioning_llama3"])
