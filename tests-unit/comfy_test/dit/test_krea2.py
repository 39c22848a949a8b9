"""Krea 2: what its files are told by, its network against diffusers', pictures to look at, its hooks, LoRA, its text encoder."""

import pytest
import torch
from diffusers import Krea2Transformer2DModel
from image_family_files import as_bytes, krea2_config, krea2_tensors, numbers
from qwen_tokenizer import USER, VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import network_of, qwen3_vl_tensors

import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import krea2
from comfy.dit.models.krea2 import Krea2
from comfy.dit.registry import family_of, read_transformer_config
from comfy.loading.lora_keys import model_lora_keys_unet

CONTEXT = 12 * 32


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), model_options={"dtype": torch.float32})


@pytest.fixture(scope="module")
def network():
    return loaded(krea2_tensors()).model.diffusion_model


def inputs(size=(7, 6)):
    x, context = numbers(2, 16, 1, *size, seed=1), numbers(2, 5, CONTEXT, seed=2)
    return {"x": x, "timesteps": torch.tensor([0.6, 0.3]), "context": context}


def in_diffusers_names():
    tensors = krea2_tensors()
    places = krea2.diffusers_places({"layers": 2})
    named = {name: tensors[place.key] for name, place in places.items() if place.key in tensors}
    return {name: value.unflatten(0, (6, -1)) if places[name].flat else value for name, value in named.items()}


def test_it_is_told_by_how_it_fuses_its_text():
    model = loaded({"model.diffusion_model." + name: value for name, value in krea2_tensors().items()}).model
    assert type(model) is comfy.model_base.Krea2 is Krea2 and isinstance(model.model_config, comfy.supported_models.Krea2)
    assert family_of(model.model_config.unet_config) is krea2.FAMILY and model.model_type.name == "FLUX"
    assert model.latent_format.latent_dimensions == 3 and model.model_sampling.shift == 1.15 and model.context_width() == CONTEXT
    config = krea2_config()
    assert (config["heads"], config["kvheads"], config["txtheads"], config["txtlayers"]) == (4, 2, 2, 12)


def test_the_real_sizes_give_the_published_names():
    sizes = {"heads": 48, "kvheads": 12, "txtheads": 20, "txtkvheads": 20}
    network = network_of(krea2_config(width=6144, depth=28, context=2560, text_head=128) | sizes)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert sum(value.numel() for value in network.parameters()) > 12_000_000_000
    assert shapes["blocks.27.mlp.gate.weight"] == (16384, 6144) and shapes["txtfusion.refiner_blocks.1.mlp.down.weight"] == (2560, 6912)
    assert shapes["blocks.0.mod.lin"] == (36864,) and shapes["blocks.0.attn.wk.weight"] == (1536, 6144)
    real = read_transformer_config(shapes)
    assert {name: real[name] for name in sizes} == sizes and real["layers"] == 28


def test_the_network_is_diffusers(network):
    twin = Krea2Transformer2DModel(
        num_layers=2,
        attention_head_dim=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=network.blocks[0].mlp.up.weight.shape[0],
        text_hidden_dim=32,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=network.txtfusion.refiner_blocks[0].mlp.up.weight.shape[0],
        axes_dims_rope=(16, 24, 24),
    ).eval()
    twin.load_state_dict(in_diffusers_names())
    given = inputs((6, 8))
    tokens, places, rows, columns = network.process_img(given["x"].squeeze(2))
    text = given["context"].unflatten(-1, (12, 32))
    where = torch.cat([torch.zeros(5, 3), places[0]])
    out = twin(tokens, text, given["timesteps"], where, return_dict=False)[0]
    expected = torch.nn.functional.pixel_shuffle(out.transpose(1, 2).unflatten(2, (rows, columns)), 2)
    torch.testing.assert_close(network(**given).squeeze(2), expected, rtol=1e-4, atol=1e-4)


def test_files_in_diffusers_names_are_the_same(network):
    other = loaded(in_diffusers_names()).model.diffusion_model
    assert torch.equal(other(**inputs()), network(**inputs()))


def test_pictures_to_look_at_need_a_way(network, caplog):
    plain, latents = network(**inputs()), [numbers(1, 16, 1, 4, 2, seed=4), numbers(2, 16, 1, 3, 6, seed=5)]
    assert torch.equal(network(**inputs(), ref_latents=latents), plain)
    seen = [network(**inputs(), ref_latents=latents, ref_latents_method=method) for method in ("index", "index_timestep_zero")]
    assert not torch.allclose(seen[0], plain) and not torch.allclose(seen[0], seen[1])
    model = loaded(krea2_tensors()).model
    model.extra_conds(cross_attn=None, reference_latents=latents)
    assert "they are not used" in caplog.text
    with pytest.raises(ValueError, match="2 frames"):
        network(**{**inputs(), "x": numbers(1, 16, 2, 4, 4)})


def test_texts_of_other_encoders_are_refused(network):
    with pytest.raises(ValueError, match="12 x 32 values per token.*type krea2"):
        network(**{**inputs(), "context": numbers(2, 5, 64)})


def test_hooks_reach_the_blocks(network):
    plain, seen = network(**inputs()), []

    def replaced(given, extra):
        seen.append(given["transformer_options"]["block_index"])
        return extra["original_block"](given)

    same = network(**inputs(), transformer_options={"patches_replace": {"dit": {("single_block", 1): replaced}}})
    assert seen == [1] and torch.equal(same, plain)
    patches = {
        "post_input": lambda given: {"txt": given["txt"] * 2},
        "attn1_patch": lambda q, k, v, **ignored: {"v": v * 2},
        "attn1_output_patch": lambda out, options: out * (2 if options["block_index"] else 1),
    }
    for name, patch in patches.items():
        assert not torch.allclose(network(**inputs(), transformer_options={"patches": {name: [patch]}}), plain), name


def test_lora_names_are_diffusers():
    names = model_lora_keys_unet(loaded(krea2_tensors()).model, {})
    weight = "diffusion_model.blocks.1.attn.wo.weight"
    assert names["transformer.transformer_blocks.1.attn.to_out.0"] == names["transformer_blocks.1.attn.to_out"] == weight
    assert names["diffusion_model.text_fusion.layerwise_blocks.0.ff.up"] == "diffusion_model.txtfusion.layerwise_blocks.0.mlp.up.weight"
    assert names["time_mod_proj"] == "diffusion_model.tproj.1.weight" and names["diffusion_model.blocks.1.attn.wo"] == weight


def test_the_text_encoder_gives_twelve_states_per_token(tmp_path):
    path = tmp_path / "qwen3vl.safetensors"
    tensors = qwen3_vl_tensors(vocabulary=VOCABULARY, width=32, layers=36)
    save_file(tensors | {"tokenizer_json": as_bytes(qwen_tokenizer_json())}, path)
    clip = comfy.sd.load_clip([str(path)], clip_type=comfy.sd.CLIPType.KREA2)
    ids = [token[0] for token in clip.tokenize("rain")["qwen3vl_4b"][0]]
    states, values = clip.encode_from_tokens_scheduled(clip.tokenize("rain"))[0]
    assert states.shape == (1, len(ids) - ids.index(USER) - 2, CONTEXT) and "attention_mask" not in values
