"""Stable Audio Open: its files, its network and hooks, the two times, saving."""

import pytest
import torch
from sound_files import stable_audio_config, stable_audio_file, stable_audio_tensors
from transformer_files import network_of

import comfy.latent_formats
import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import stable_audio
from comfy.dit.models.stable_audio import StableAudio1
from comfy.dit.registry import family_of
from comfy.families.model_errors import IncompleteModelError
from comfy.ldm.audio.dit import apply_rotary_pos_emb
from comfy.ldm.audio.embedders import NumberConditioner

SIZES = {"width": 128, "text": 32, "inner": 128}


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    path = stable_audio_file(tmp_path_factory.mktemp("stable") / "stable.safetensors", **SIZES)
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(path, model_options={"dtype": torch.float32})
    return model, clip, vae


@pytest.fixture
def network(parts):
    return parts[0].model.diffusion_model


def inputs():
    return {"x": numbers(1, 64, 9, seed=1), "timestep": torch.tensor([0.3]), "context": numbers(1, 4, 32, seed=2)}


def test_checkpoints_are_told_by_their_tensors(parts):
    model, clip, vae = parts
    assert clip is None, "its text encoder is in another file"
    assert type(model.model) is comfy.model_base.StableAudio1 is StableAudio1
    assert type(model.model.model_config) is comfy.supported_models.StableAudio
    assert family_of(model.model.model_config.unet_config) is stable_audio.FAMILY
    assert isinstance(model.model.latent_format, comfy.latent_formats.StableAudio1) and vae.audio_sample_rate == 44100
    sampling = model.model.model_sampling
    assert (round(float(sampling.sigma_min), 4), round(float(sampling.sigma_max), 2)) == (0.03, 500.0)


def test_the_networks_without_the_times_are_refused():
    tensors = {name: value for name, value in stable_audio_tensors(**SIZES).items() if "seconds_total" not in name}
    with pytest.raises(IncompleteModelError, match="seconds_total"):
        comfy.sd.load_diffusion_model_state_dict(tensors)


def test_times_are_tokens_and_a_vector(parts):
    model = parts[0].model
    given = {"noise": torch.zeros(1, 64, 431), "device": torch.device("cpu"), "cross_attn": numbers(1, 4, 32)}
    made = {name: cond.cond for name, cond in model.extra_conds(**given).items()}
    assert made["c_crossattn"].shape == (1, 6, 32) and made["global_embed"].shape == (1, 64)
    assert torch.equal(made["c_crossattn"][0, 4:].flatten(), made["global_embed"][0]), "the beginning, then the length"
    told = model.extra_conds(**given, seconds_start=0, seconds_total=20)["global_embed"].cond
    assert torch.equal(told, made["global_embed"]), "a latent of 431 places is of 20 seconds"
    assert not torch.equal(model.extra_conds(**given, seconds_total=21)["global_embed"].cond, told)


def test_numbers_beyond_the_range_count_as_its_end(parts):
    conditioner = parts[0].model.seconds_total_embedder
    assert isinstance(conditioner, NumberConditioner)
    tokens, mask = conditioner([512, 600, -3, 0])
    assert torch.equal(tokens[0], tokens[1]) and torch.equal(tokens[2], tokens[3]) and not torch.equal(tokens[0], tokens[3])
    assert tokens.shape == (4, 1, 32) and mask.tolist() == [[1.0]] * 4


def test_every_input_counts(network):
    plain = network(**inputs(), global_embed=numbers(1, 64))
    assert plain.shape == (1, 64, 9)
    for name, value in (("timestep", torch.tensor([0.31])), ("context", numbers(1, 4, 32, seed=5))):
        assert not torch.allclose(network(**{**inputs(), name: value}, global_embed=numbers(1, 64)), plain)
    assert not torch.allclose(network(**inputs(), global_embed=numbers(1, 64, seed=9)), plain)


def test_blocks_can_be_replaced(network):
    seen = []

    def replacement(given, extra):
        seen.append(given["img"].shape)
        return {"img": extra["original_block"](given)["img"] * 0}

    replaced = network(**inputs(), transformer_options={"patches_replace": {"dit": {("double_block", 1): replacement}}})
    assert seen == [(1, 10, 128)], "the latent's places after a token of the time"
    assert replaced.abs().max() == 0 and list(network.patch_blocks()) == [("double_block", 0), ("double_block", 1)]


def test_memory_tokens_and_norms_are_read_off_the_file():
    config = stable_audio_config(**SIZES, memory=5, normed=True)
    network = network_of(config)
    assert network.transformer.memory_tokens.shape == (5, 128) and network.transformer.layers[0].self_attn.q_norm.weight.shape == (64,)
    assert network.transformer.layers[0].cross_attn.feat_scale and config["num_heads"] == 2


def test_only_the_first_values_of_a_head_turn():
    tokens = numbers(1, 1, 3, 8)
    turned = apply_rotary_pos_emb(tokens, torch.tensor([[0.0] * 4, [torch.pi] * 4, [0.5] * 4]))
    assert torch.equal(turned[..., 4:], tokens[..., 4:]) and torch.allclose(turned[0, 0, 0], tokens[0, 0, 0])
    assert torch.allclose(turned[0, 0, 1, :4], -tokens[0, 0, 1, :4], atol=1e-6)


def test_what_is_saved_is_what_was_read(parts):
    model, _, vae = parts
    saved = model.model.state_dict_for_saving(dict(model.model.diffusion_model.state_dict()), None, vae.get_sd(), None)
    read = stable_audio_tensors(**SIZES)
    assert all(torch.equal(saved[name], value) for name, value in read.items())
    assert {name for name in saved if not name.startswith("pretransform.model.")} == read.keys()
