"""Ideogram 4: what its files are told by, its network against diffusers', padding, pictures alone, LoRA names, its text encoder."""

import pytest
import torch
from diffusers import Ideogram4Transformer2DModel
from ideogram_files import STATES, ideogram_config, ideogram_tensors
from image_family_files import as_bytes, numbers
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import network_of, qwen3_vl_tensors

import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import ideogram4
from comfy.dit.models.ideogram4 import Ideogram4
from comfy.dit.registry import family_of, read_transformer_config
from comfy.loading.lora_keys import model_lora_keys_unet

CONTEXT = STATES * 32


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), model_options={"dtype": torch.float32})


@pytest.fixture(scope="module")
def network():
    return loaded(ideogram_tensors()).model.diffusion_model


def inputs():
    x, context = numbers(2, 128, 3, 5, seed=1), numbers(2, 6, CONTEXT, seed=2)
    return {"x": x, "timesteps": torch.tensor([0.6, 0.3]), "context": context}


def in_diffusers_names():
    tensors, named = ideogram_tensors(), {}
    for name, place in ideogram4.diffusers_places(ideogram_config()).items():
        whole = tensors[place.key]
        named[name] = whole[place.start : place.start + place.length] if place.length else whole
    return named


def from_diffusers(x, timesteps, context, padding=0):
    """What diffusers' network makes of the same, with so many tokens of *padding* at the end of the text."""
    config = ideogram_config()
    names = ("num_layers", "attention_head_dim", "num_attention_heads", "intermediate_size", "adaln_dim", "llm_features_dim")
    twin = Ideogram4Transformer2DModel(**{name: config[name] for name in names}).eval()
    twin.load_state_dict(in_diffusers_names())
    rows, columns = x.shape[-2:]
    tokens = x.unflatten(1, (32, 2, 2)).permute(0, 4, 5, 2, 3, 1).flatten(3).flatten(1, 2)
    words, seen = context.shape[1], tokens.shape[1]
    places = torch.cat(
        [
            torch.arange(words)[:, None].expand(-1, 3),
            torch.cartesian_prod(torch.zeros(1).long(), *map(torch.arange, (rows, columns))) + 65536,
        ]
    )
    roles = torch.tensor([3] * (words - padding) + [0] * padding + [2] * seen).expand(len(x), -1)
    out = twin(
        torch.cat([torch.zeros(len(x), words, 128), tokens], dim=1),
        1 - timesteps,
        torch.cat([context, torch.zeros(len(x), seen, CONTEXT)], dim=1),
        places.expand(len(x), -1, -1),
        torch.where(roles == 0, -1, 1),
        roles,
        return_dict=False,
    )[0][:, words:]
    return -out.unflatten(1, (rows, columns)).unflatten(-1, (2, 2, 32)).permute(0, 5, 3, 4, 1, 2).flatten(1, 3)


def test_it_is_told_by_its_names():
    model = loaded({"model.diffusion_model." + name: value for name, value in ideogram_tensors().items()}).model
    assert type(model) is comfy.model_base.Ideogram4 is Ideogram4 and isinstance(model.model_config, comfy.supported_models.Ideogram4)
    assert family_of(model.model_config.unet_config) is ideogram4.FAMILY and model.model_type.name == "FLOW"
    assert (model.model_sampling.shift, model.context_width(), model.latent_format.latent_channels) == (1.0, CONTEXT, 128)
    assert ideogram4.read_config({"embed_image_indicator.weight": (2, 8)}) is None


def test_the_real_sizes_give_the_published_names():
    config = ideogram_config(width=18 * 256, head=256, depth=34, context=4096) | {"intermediate_size": 12288, "adaln_dim": 512}
    network = network_of(config)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert 9_000_000_000 < sum(value.numel() for value in network.parameters()) < 10_000_000_000
    assert shapes["layers.33.attention.qkv.weight"] == (13824, 4608) and shapes["llm_cond_proj.weight"] == (4608, 53248)
    assert shapes["final_layer.adaln_modulation.bias"] == (4608,) and shapes["t_embedding.mlp_in.weight"] == (4608, 4608)
    assert read_transformer_config(shapes) == config and network.mrope_section == (24, 20, 20)


def test_the_network_is_diffusers(network):
    torch.testing.assert_close(network(**inputs()), from_diffusers(**inputs()), rtol=1e-4, atol=1e-4)


def test_padding_is_not_looked_at(network):
    given = inputs()
    mask = torch.ones(2, 6)
    mask[:, 4:] = 0
    masked = network(**given, attention_mask=mask)
    torch.testing.assert_close(masked, from_diffusers(**given, padding=2), rtol=1e-4, atol=1e-4)
    shorter = network(**{**given, "context": given["context"][:, :4]})
    torch.testing.assert_close(masked, shorter, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(masked, network(**given), atol=1e-3)


def test_a_mask_goes_with_the_text_only_where_it_hides_some():
    model, text = loaded(ideogram_tensors()).model, numbers(1, 3, CONTEXT)
    assert "attention_mask" not in model.extra_conds(cross_attn=text, attention_mask=torch.ones(1, 3))
    conds = model.extra_conds(cross_attn=text, attention_mask=torch.tensor([[1, 1, 0]]))
    assert conds["attention_mask"].cond.tolist() == [[1, 1, 0]] and torch.equal(conds["c_crossattn"].cond, text)


def test_without_a_text_it_sees_the_picture_alone(network):
    given = inputs()
    alone = network(given["x"], given["timesteps"])
    expected = from_diffusers(given["x"], given["timesteps"], given["context"][:, :0])
    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-4)


def test_files_in_diffusers_names_are_the_same(network):
    assert torch.equal(loaded(in_diffusers_names()).model.diffusion_model(**inputs()), network(**inputs()))


def test_texts_of_other_encoders_are_refused(network):
    with pytest.raises(ValueError, match="416 values per token.*type ideogram4"):
        network(**{**inputs(), "context": numbers(2, 5, 64)})


def test_lora_names_are_the_published_ones_and_diffusers():
    names = model_lora_keys_unet(loaded(ideogram_tensors()).model, {})
    fused = "diffusion_model.layers.1.attention.qkv.weight"
    assert (
        names["transformer.layers.1.attention.to_k"] == (fused, (0, 256, 256)) and names["diffusion_model.layers.1.attention.qkv"] == fused
    )
    assert names["transformer.layers.0.attention.to_out.0"] == "diffusion_model.layers.0.attention.o.weight"
    assert names["lycoris_layers_0_feed_forward_w1"] == "diffusion_model.layers.0.feed_forward.w1.weight"


def test_the_text_encoder_gives_thirteen_states_per_token(tmp_path):
    path = tmp_path / "qwen3vl.safetensors"
    tensors = qwen3_vl_tensors(large=True, vocabulary=VOCABULARY, width=32, layers=36)
    save_file(tensors | {"tokenizer_json": as_bytes(qwen_tokenizer_json())}, path)
    clip = comfy.sd.load_clip([str(path)], clip_type=comfy.sd.CLIPType.IDEOGRAM4)
    tokens = clip.tokenize("rain")
    states, _ = clip.encode_from_tokens_scheduled(tokens)[0]
    assert states.shape == (1, len(tokens["qwen3vl_8b"][0]), CONTEXT)
    assert len(clip.tokenize("rain", thinking=False)["qwen3vl_8b"][0]) > len(tokens["qwen3vl_8b"][0])
