"""Flux.2: what its files are told by, diffusers' network and names, its autoencoder's cells, its text encoders."""

import dataclasses

import pytest
import torch
from image_family_files import FLUX2_VAE, as_bytes, flux2_config, flux2_tensors, llama_tensors, numbers, tekken_json, vae_tensors
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import network_of, qwen_text_tensors

import comfy.latent_formats
import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import flux2
from comfy.dit.registry import family_of, read_transformer_config
from comfy.families.weight_source import StateDictSource
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy.text.kinds import recognise
from comfy.text.te_models import TEModel
from comfy.text_encoders import flux2 as text_encoders

FP32 = {"dtype": torch.float32}


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), model_options=FP32)


def test_it_is_told_by_the_modulation_that_all_blocks_share():
    model = loaded({"model.diffusion_model." + name: value for name, value in flux2_tensors().items()}).model
    assert type(model) is comfy.model_base.Flux2 and isinstance(model.model_config, comfy.supported_models.Flux2)
    assert family_of(model.model_config.unet_config) is flux2.FAMILY and model.model_type.name == "FLUX"
    assert model.model_sampling.shift == 2.02 and model.latent_format.latent_channels == 128
    assert model.model_config.memory_usage_factor == pytest.approx(3.1 * 4 * 256 / 2604)
    assert not loaded(flux2_tensors(guidance=False)).model.diffusion_model.params.guidance_embed


def test_the_real_sizes_give_the_published_names():
    network = network_of(flux2_config(width=6144, depth=8, single=48, context=15360))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert sum(value.numel() for value in network.parameters()) > 30_000_000_000
    assert shapes["double_blocks.7.img_mlp.0.weight"] == (36864, 6144) and shapes["single_blocks.47.linear2.weight"] == (6144, 24576)
    real = read_transformer_config(shapes)
    assert real["num_heads"] == 48 and real["depth_single_blocks"] == 48


def test_it_computes_what_diffusers_computes_from_a_file_in_its_names():
    from diffusers import Flux2Transformer2DModel

    sizes = {"num_layers": 2, "num_single_layers": 2, "num_attention_heads": 2, "joint_attention_dim": 96, "in_channels": 128}
    twin = Flux2Transformer2DModel(**sizes, attention_head_dim=128).eval()
    model = loaded(twin.state_dict()).model
    x, context = numbers(1, 128, 4, 6, seed=1), numbers(1, 5, 96, seed=2)
    tokens, places = model.diffusion_model.process_img(x)
    words = torch.zeros(1, 5, 4)
    words[..., 3] = torch.arange(5)
    time, guidance = torch.tensor([0.6]), torch.tensor([4.0])
    output = twin(tokens, context, time, places, words, guidance=guidance, return_dict=False)[0]
    found = model.diffusion_model(x, time, context, guidance=guidance)
    torch.testing.assert_close(found.flatten(2).movedim(1, 2), output, rtol=1e-3, atol=2e-4)


def test_short_texts_are_preceded_by_zeros_and_references_are_numbered():
    model = loaded(flux2_tensors()).model
    text = numbers(1, 5, 96)
    latent = numbers(1, 128, 4, 4)
    given = {"noise": latent, "device": torch.device("cpu"), "cross_attn": text, "reference_latents": [latent]}
    conds = model.extra_conds(**given, guidance=2.0)
    assert conds["c_crossattn"].cond.shape == (1, 512, 96) and torch.equal(conds["c_crossattn"].cond[:, -5:], text)
    assert not conds["c_crossattn"].cond[:, :-5].any() and conds["guidance"].cond.item() == 2.0
    assert torch.equal(conds["ref_latents"].cond[0], latent)
    long = model.extra_conds(**{**given, "cross_attn": numbers(1, 600, 96)})
    assert long["c_crossattn"].cond.shape[1] == 600
    plain, seen = (model.diffusion_model(latent, torch.tensor([0.5]), text, **more) for more in ({}, {"ref_latents": [latent]}))
    assert plain.shape == seen.shape == latent.shape and not torch.allclose(plain, seen)


def test_lora_files_name_weights_in_the_usual_ways():
    names = model_lora_keys_unet(loaded(flux2_tensors()).model, {})
    shared = "diffusion_model.single_stream_modulation.lin.weight"
    assert names["transformer.single_stream_modulation.linear"] == names["lora_transformer_single_stream_modulation_linear"] == shared
    assert names["transformer.single_transformer_blocks.1.attn.to_qkv_mlp_proj"] == "diffusion_model.single_blocks.1.linear1.weight"
    key = ("diffusion_model.double_blocks.0.img_attn.qkv.weight", (0, 256, 256))
    assert names["transformer.transformer_blocks.0.attn.to_k"] == key
    assert names["lora_unet_double_blocks_1_txt_mlp_2"] == "diffusion_model.double_blocks.1.txt_mlp.2.weight"


@pytest.mark.parametrize("small_decoder", [False, True])
def test_the_autoencoder_puts_places_into_normalised_cells(small_decoder):
    config = FLUX2_VAE if small_decoder else dataclasses.replace(FLUX2_VAE, decoder_channels=None)
    tensors = vae_tensors(config)
    vae = comfy.sd.VAE(sd=dict(tensors), dtype=torch.float32)
    assert (vae.latent_channels, vae.downscale_ratio, vae.upscale_ratio) == (128, 16, 16)
    picture = torch.rand(1, 64, 32, 3, generator=torch.Generator().manual_seed(1))
    latent = vae.encode(picture)
    assert latent.shape == (1, 128, 4, 2) and vae.decode(latent).shape == (1, 64, 32, 3)
    network = vae.first_stage_model
    cells = network.bn(numbers(1, 32, 4, 4))
    expected = numbers(1, 32, 4, 4)[0, 3, 1::2, 0::2]  # channel 3, odd rows, even columns: value 2 of its cell
    number = 3 * 4 + 2
    expected = (expected - tensors["bn.running_mean"][number]) / (tensors["bn.running_var"][number] + 1e-4).sqrt()
    torch.testing.assert_close(cells[0, number], expected)
    torch.testing.assert_close(network.bn.undone(cells), numbers(1, 32, 4, 4))
    assert vae.get_sd().keys() == tensors.keys()
    assert vae.decode_tiled(latent, tile_x=4, tile_y=4, overlap=1).shape == (1, 64, 32, 3)


def test_previews_show_the_places_of_a_cell():
    latent = torch.arange(128.0).reshape(1, 128, 1, 1)
    shown = comfy.latent_formats.Flux2().latent_rgb_factors_reshape(latent)
    assert shown.shape == (1, 32, 2, 2) and shown[0, 1].tolist() == [[4.0, 5.0], [6.0, 7.0]]


def text_encoder(path, tensors, **carried):
    save_file({**tensors, **{name: as_bytes(text) for name, text in carried.items()}}, str(path))
    return comfy.sd.load_clip([str(path)], clip_type=comfy.sd.CLIPType.FLUX2)


def test_mistral_gives_three_states_and_reads_its_own_tokenizer(tmp_path):
    clip = text_encoder(tmp_path / "m.safetensors", llama_tensors(layers=40), tekken_model=tekken_json())
    tokens = clip.tokenize("(red:1.2)")
    (chunk,) = tokens["mistral3_24b"]
    ids = [token for token, _ in chunk]
    assert ids[:2] == [1, 5] and ids[-1] == 4 and 20 + 257 in ids and all(weight == 1.0 for _, weight in chunk)
    assert clip.tokenizer.decode(ids[-10:], skip_special_tokens=True) == "(red:1.2)"
    states, values = clip.encode_from_tokens_scheduled(tokens)[0]
    assert states.shape == (1, len(ids), 96) and values["attention_mask"].shape == (1, len(ids))
    assert clip.get_sd()["tekken_model"].numel() == len(tekken_json())
    pruned = text_encoder(tmp_path / "pruned.safetensors", llama_tensors(layers=30), tekken_model=tekken_json())
    assert pruned.encode_from_tokens(tokens).shape == states.shape
    assert not list(pruned.cond_stage_model.mistral3_24b.transformer.model.norm.parameters())


def test_qwen3_gives_three_states_of_512_tokens(tmp_path):
    tensors = qwen_text_tensors(eyes=False, normalised=True, vocabulary=VOCABULARY, width=32, layers=28)
    clip = text_encoder(tmp_path / "q.safetensors", tensors, tokenizer_json=qwen_tokenizer_json())
    tokens = clip.tokenize("user")
    states, values = clip.encode_from_tokens_scheduled(tokens)[0]
    assert states.shape == (1, 512, 96) and len(tokens["qwen3_4b"][0]) == 512
    used = int(values["attention_mask"].sum())
    assert 10 < used < 100
    inner = clip.cond_stage_model.qwen3_4b
    raw, *_ = inner.encode([[token for token, _ in tokens["qwen3_4b"][0]]])
    assert torch.equal(states[0, 5], raw[0, :, 5].flatten())


@pytest.mark.parametrize(("width", "model"), [(4096, TEModel.QWEN3_8B), (2560, TEModel.QWEN3_4B)])
def test_sizes_of_qwen3_are_told_by_the_width(width, model):
    with torch.device("meta"):
        tensors = {name: torch.empty(value.shape) for name, value in qwen_text_tensors(eyes=False, normalised=True, layers=1).items()}
        tensors["model.embed_tokens.weight"] = torch.empty(400, width)
    assert recognise(StateDictSource(tensors)).kind.model is model


def test_a_checkpoint_says_which_text_encoder_it_holds():
    config = comfy.supported_models.Flux2({"hidden_size": 256})
    assert config.clip_target({}).tokenizer is text_encoders.Flux2Tokenizer
    for part, tokenizer in (("mistral3_24b", "Flux2Tokenizer"), ("qwen3_4b", "KleinTokenizer"), ("qwen3_8b", "KleinTokenizer8B")):
        assert config.clip_target({f"text_encoders.{part}.transformer.model.norm.weight": None}).tokenizer.__name__ == tokenizer
