"""Stable Audio 3: its files, its network and hooks, what stands beside text and latent, saving, LoRA."""

import pytest
import torch
from safetensors.torch import save_file
from stable_audio3_files import CONDITIONERS, NETWORK, stable_audio3_config, stable_audio3_file, stable_audio3_tensors
from transformer_files import network_of

import comfy.latent_formats
import comfy.lora
import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import stable_audio
from comfy.dit.models.stable_audio import TEXT_TOKENS, StableAudio3
from comfy.dit.registry import family_of
from comfy.families.model_errors import IncompleteModelError
from comfy.ldm.audio.blocks import Attention, DynamicTanh, at_the_end
from comfy.ldm.audio.dit import AudioDiffusionTransformer, RMSNorm
from comfy.ldm.audio.embedders import ExpoFourierFeatures

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    path = stable_audio3_file(tmp_path_factory.mktemp("stable") / "stable.safetensors")
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(path, model_options={"dtype": torch.float32})
    return model, clip, vae


@pytest.fixture
def model(parts):
    return parts[0].model


@pytest.fixture
def network(model):
    return model.diffusion_model


def inputs():
    return {
        "x": numbers(1, 256, 9, seed=1),
        "timestep": torch.tensor([0.3]),
        "context": numbers(1, 4, 32, seed=2),
        "global_embed": numbers(1, 32, seed=3),
        "local_add_cond": numbers(1, 257, 9, seed=4),
    }


def test_checkpoints_are_told_by_their_tensors(parts):
    patcher, clip, vae = parts
    assert clip is None, "its text encoder is in another file"
    assert type(patcher.model) is comfy.model_base.StableAudio3 is StableAudio3
    assert type(patcher.model.model_config) is comfy.supported_models.StableAudio3
    assert family_of(patcher.model.model_config.unet_config) is stable_audio.FAMILY
    latent = patcher.model.latent_format
    assert isinstance(latent, comfy.latent_formats.StableAudio3)
    assert (latent.latent_channels, latent.temporal_downscale_ratio, vae.audio_sample_rate) == (256, 4096, 44100)
    sampling = patcher.model.model_sampling
    assert patcher.model.model_type is comfy.model_base.ModelType.FLOW and float(sampling.sigma_max) == 1.0
    assert float(sampling.timestep(torch.tensor(0.25))) == 0.25
    assert float(sampling.percent_to_sigma(0.5)) == pytest.approx(2 * 0.5 / (1 + 0.5)), "shifted by two"


def test_the_config_says_what_the_shapes_do():
    config = stable_audio3_config(width=192, memory=5, differential=False)
    assert {name: config[name] for name in ("num_heads", "num_memory_tokens", "local_add_cond_dim", "global_cond_dim")} == {
        "num_heads": 3,
        "num_memory_tokens": 5,
        "local_add_cond_dim": 257,
        "global_cond_dim": 32,
    }
    assert config["attn_kwargs"] == {"qk_norm": "rms", "differential": False} and config["timestep_features_type"] == "expo"
    block = network_of(config).transformer.layers[0]
    assert block.self_attn.to_qkv.weight.shape == (576, 192) and isinstance(block.self_attn.q_norm, RMSNorm)


def test_settings_of_no_published_network_are_refused():
    with pytest.raises(ValueError, match="adaLN"):
        AudioDiffusionTransformer(global_cond_type="adaLN")
    with pytest.raises(ValueError, match="prepend_cond_dim"):
        AudioDiffusionTransformer(prepend_cond_dim=8)


def test_the_network_without_its_time_is_refused():
    tensors = {name: value for name, value in stable_audio3_tensors().items() if "seconds_total" not in name}
    with pytest.raises(IncompleteModelError, match="seconds_total"):
        comfy.sd.load_diffusion_model_state_dict(tensors)


def given(**more):
    return {"noise": torch.zeros(1, 256, 216), "device": CPU, "cross_attn": numbers(1, 4, 32), **more}


def test_texts_are_filled_up_and_followed_by_the_time(model):
    made = {name: cond.cond for name, cond in model.extra_conds(**given()).items()}
    text, padding = made["c_crossattn"], stable_audio3_tensors()[f"{CONDITIONERS}prompt.padding_embedding"]
    assert text.shape == (1, TEXT_TOKENS + 1, 32) and torch.equal(text[:, :4], numbers(1, 4, 32))
    assert torch.equal(text[0, 4:TEXT_TOKENS], padding.expand(TEXT_TOKENS - 4, -1))
    assert torch.equal(text[:, -1], made["global_embed"])
    longer = model.extra_conds(**given(cross_attn=numbers(1, 300, 32)))["c_crossattn"].cond
    assert torch.equal(longer[:, :300], numbers(1, 300, 32)) and longer.shape[1] == 301


def test_without_a_word_the_sound_is_as_long_as_the_latent(model):
    vector = model.extra_conds(**given())["global_embed"].cond
    assert torch.equal(model.extra_conds(**given(seconds_total=20))["global_embed"].cond, vector), "216 places are 20 seconds"
    assert not torch.equal(model.extra_conds(**given(seconds_total=21))["global_embed"].cond, vector)
    ends = [model.extra_conds(**given(seconds_total=seconds))["global_embed"].cond for seconds in (384, 500)]
    assert torch.equal(*ends)


def test_what_is_known_of_a_sound_stands_beside_the_latent(model):
    nothing = model.extra_conds(**given())["local_add_cond"].cond
    assert nothing.shape == (1, 257, 216) and nothing.abs().max() == 0
    known, mask = numbers(1, 256, 216, seed=5), torch.ones(1, 256, 216)
    mask[..., :100] = 0.0
    for name in ("concat_mask", "denoise_mask"):
        told = model.extra_conds(**given(concat_latent_image=known, **{name: mask}))["local_add_cond"].cond
        assert torch.equal(told[:, 1:], known) and told[0, 0].tolist() == [1.0] * 100 + [0.0] * 116
    several = model.extra_conds(**{**given(), "noise": torch.zeros(3, 256, 216)})["local_add_cond"].cond
    assert several.shape == (3, 257, 216)
    with pytest.raises(ValueError, match=r"\[50\] places"):
        model.extra_conds(**given(concat_latent_image=known[..., :50]))


def test_every_input_counts(network):
    plain = network(**inputs())
    assert plain.shape == (1, 256, 9)
    for name, value in inputs().items():
        changed = {**inputs(), name: value + 0.1 * numbers(*value.shape, seed=9)}
        assert not torch.allclose(network(**changed), plain), name
    assert not torch.allclose(network(**{**inputs(), "local_add_cond": None}), plain)


def test_replaced_blocks_get_what_is_known_as_well(network):
    seen = []

    def same(arguments, extra):
        seen.append((arguments["img"].shape, arguments["vec"].shape))
        return extra["original_block"](arguments)

    replaced = network(**inputs(), transformer_options={"patches_replace": {"dit": {("double_block", 1): same}}})
    assert seen == [((1, 12, 128), (1, 768))], "three tokens of its own, none of the time"
    assert torch.equal(replaced, network(**inputs()))


def test_equal_pairs_of_queries_and_keys_cancel_out():
    attention = Attention(128, dim_context=128, qk_norm="rms", differential=True, operations=comfy.ops.disable_weight_init)
    for parameter in attention.parameters():
        parameter.copy_(numbers(*parameter.shape))
    tokens, context = numbers(1, 5, 128), numbers(1, 3, 128, seed=1)
    assert attention(tokens, context).abs().max() > 1
    attention.to_q.weight[128:], attention.to_kv.weight[128:256] = attention.to_q.weight[:128], attention.to_kv.weight[:128]
    assert attention(tokens, context).abs().max() == 0


def test_norms_by_the_root_of_the_mean_square():
    norm = RMSNorm(8)
    norm.gamma.copy_(numbers(8, seed=1))
    values = numbers(3, 8)
    expected = values / values.square().mean(dim=-1, keepdim=True).sqrt() * numbers(8, seed=1)
    assert torch.allclose(norm(values), expected, atol=1e-5)


def test_dynamic_tanh():
    layer = DynamicTanh(8)
    for name, value in (("alpha", torch.tensor([2.0])), ("gamma", numbers(8, seed=1)), ("beta", numbers(8, seed=2))):
        getattr(layer, name).copy_(value)
    assert torch.allclose(layer(numbers(3, 8)), torch.tanh(2 * numbers(3, 8)) * numbers(8, seed=1) + numbers(8, seed=2), atol=1e-6)


def test_frequencies_go_up_by_the_same_factor():
    features = ExpoFourierFeatures(6, 0.5, 8.0)
    made = features(torch.tensor([0.0, 0.1]))
    angles = torch.tensor([0.5, 2.0, 8.0]) * 0.1 * 2 * torch.pi
    assert made[0].tolist() == [1.0] * 3 + [0.0] * 3 and torch.allclose(made[1], torch.cat((angles.cos(), angles.sin())), atol=1e-6)
    assert features(torch.tensor([[0.1]], dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_values_of_places_stand_at_the_end():
    values = numbers(1, 3, 2)
    assert torch.equal(at_the_end(values, 5), torch.cat((torch.zeros(1, 2, 2), values), dim=1))
    assert torch.equal(at_the_end(values, 2), values[:, 1:]) and torch.equal(at_the_end(values, 3), values)


def test_what_is_saved_is_what_was_read(parts, tmp_path):
    patcher, _, vae = parts
    saved = patcher.model.state_dict_for_saving(dict(patcher.model.diffusion_model.state_dict()), None, vae.get_sd(), None)
    read = stable_audio3_tensors()
    assert all(torch.equal(saved[name], value) for name, value in read.items())
    assert {name for name in saved if not name.startswith("pretransform.model.")} == read.keys()
    save_file({name: value.contiguous() for name, value in saved.items()}, str(tmp_path / "saved.safetensors"))
    again = comfy.sd.load_checkpoint_guess_config(str(tmp_path / "saved.safetensors"), model_options={"dtype": torch.float32})
    assert torch.equal(again[0].model.diffusion_model(**inputs()), patcher.model.diffusion_model(**inputs()))
    assert torch.equal(again[0].model.padding_embedding, patcher.model.padding_embedding) and again[2].audio_sample_rate == 44100


def test_files_without_a_token_to_fill_up_with_load():
    tensors = {name: value for name, value in stable_audio3_tensors().items() if "padding_embedding" not in name}
    model = comfy.sd.load_diffusion_model_state_dict(tensors).model
    assert model.extra_conds(**given())["c_crossattn"].cond.shape == (1, 5, 32) and model.padding_embedding is None
    assert not [name for name in model.state_dict_for_saving({}, None, None, None) if "padding_embedding" in name]


def test_loras_name_weights_as_files_do(parts):
    layer = "transformer.layers.1.cross_attn.to_kv"
    shape = stable_audio3_tensors()[f"{NETWORK}{layer}.weight"].shape
    keys = comfy.lora.model_lora_keys_unet(parts[0].model, {})
    for name in (f"diffusion_model.{layer}", f"lora_unet_{layer.replace('.', '_')}"):
        lora = {f"{name}.lora_up.weight": numbers(shape[0], 2), f"{name}.lora_down.weight": numbers(2, shape[1])}
        assert list(comfy.lora.load_lora(lora, keys)) == [f"diffusion_model.{layer}.weight"], name
