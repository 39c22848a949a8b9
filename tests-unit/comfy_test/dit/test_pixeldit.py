"""PixelDiT: what its files are told by, its places, its text encoder, and what stands for an autoencoder where models make pixels."""

import pytest
import torch
from image_family_files import numbers
from pixeldit_files import pixeldit_config, pixeldit_tensors
from safetensors.torch import save_file
from text_encoder_files import GEMMA_WIDTH, sentence_piece_model, text_model
from transformer_files import network_of

import comfy.latent_formats
import comfy.model_base
import comfy.pixel_space_convert
import comfy.sd
import comfy.supported_models
from comfy.dit import pixeldit
from comfy.dit.models.pixeldit import PixelDiTT2I
from comfy.dit.registry import family_of, read_transformer_config
from comfy.ldm.pixeldit.modules import waves_of_places
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy.text_encoders.pixeldit import BEGINS, instruction
from comfy_extras.core_loaders import VAELoader


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), model_options={"dtype": torch.float32})


@pytest.fixture(scope="module")
def network():
    return loaded(pixeldit_tensors()).model.diffusion_model


def inputs(height=8, width=12):
    return {"x": numbers(2, 3, height, width, seed=1), "timesteps": torch.tensor([600.0, 300.0]), "context": numbers(2, 7, 32, seed=2)}


@pytest.mark.parametrize("before", ["core.", "net."])
def test_it_is_told_by_its_names(before, network):
    tensors = {name.replace("core.", f"model.diffusion_model.{before}"): value for name, value in pixeldit_tensors().items()}
    model = loaded(tensors).model
    assert type(model) is comfy.model_base.PixelDiTT2I is PixelDiTT2I and isinstance(model.model_config, comfy.supported_models.PixelDiTT2I)
    assert family_of(model.model_config.unet_config) is pixeldit.FAMILY and model.model_type.name == "FLOW"
    assert (model.model_sampling.shift, model.model_sampling.multiplier, model.context_width()) == (4.0, 1000, 32)
    assert (model.latent_format.latent_channels, model.latent_format.spacial_downscale_ratio) == (3, 1)
    assert isinstance(model.latent_format, comfy.latent_formats.ChromaRadiance)
    assert torch.equal(model.diffusion_model(**inputs()), network(**inputs()))
    decoder = {name: tuple(value.shape) for name, value in pixeldit_tensors().items()} | {"lq_proj.latent_proj.0.weight": (8, 16, 3, 3)}
    assert pixeldit.read_config(decoder) is None


def test_the_real_sizes_give_the_published_names():
    sizes = {"width": 1536, "depth": 14, "context": 2304, "head": 64, "side": 16, "inner": 1152}
    network = network_of(pixeldit_config(**sizes) | {"pixel_hidden_size": 16, "pixel_num_groups": 16})
    shapes = {f"core.{name}": tuple(value.shape) for name, value in network.named_parameters()}
    assert 1_200_000_000 < sum(value.numel() for value in network.parameters()) < 1_400_000_000
    assert shapes["core.patch_blocks.13.mlp_x.w1.weight"] == (4096, 1536)
    assert shapes["core.pixel_blocks.1.adaLN_modulation.0.weight"] == (24576, 1536)
    read = read_transformer_config(shapes)
    assert (read["num_groups"], read["pixel_hidden_size"], read["patch_size"], read["txt_max_length"]) == (24, 16, 16, 300)


def test_pictures_need_no_whole_patches_and_texts_end_at_300_tokens(network):
    assert network(**inputs(7, 10)).shape == (2, 3, 7, 10)
    longer = numbers(2, 320, 32, seed=3)
    assert torch.equal(network(**{**inputs(), "context": longer}), network(**{**inputs(), "context": longer[:, :300]}))
    with pytest.raises(ValueError, match="32 values per token.*type pixeldit"):
        network(**{**inputs(), "context": numbers(2, 5, 64)})


def test_places_can_be_moved_and_stretched(network):
    plain = network(**inputs())
    for moved in ({"shift_x": 2.0}, {"scale_y": 2.0}):
        assert not torch.allclose(network(**inputs(), transformer_options={"rope_options": moved}), plain)
    assert torch.equal(network(**inputs(), transformer_options={"rope_options": {"scale_x": 1.0}}), plain)


def test_pixels_know_their_column_then_their_row():
    waves = waves_of_places(8, 3, 5, torch.device("cpu"), torch.float64)
    rates = torch.tensor([1.0, 0.01], dtype=torch.float64)
    assert torch.allclose(waves[2, 4], torch.cat([part(place * rates) for place in (4, 2) for part in (torch.sin, torch.cos)]))


def test_lora_names_are_the_published_ones():
    names = model_lora_keys_unet(loaded(pixeldit_tensors()).model, {})
    weight = "diffusion_model.patch_blocks.1.attn.qkv_x.weight"
    assert names["core.patch_blocks.1.attn.qkv_x"] == names["diffusion_model.core.patch_blocks.1.attn.qkv_x"] == weight
    assert names["transformer.patch_blocks.1.attn.qkv_x"] == weight


def test_the_text_encoder_gives_the_first_state_and_the_last_299(tmp_path):
    pytest.importorskip("sentencepiece")
    path = tmp_path / "gemma.safetensors"
    spiece = torch.frombuffer(bytearray(sentence_piece_model(begins=True)), dtype=torch.uint8)
    save_file(text_model("gemma2_2b", vocabulary=512) | {"spiece_model": spiece}, str(path))
    clip = comfy.sd.load_clip([str(path)], clip_type=comfy.sd.CLIPType.PIXELDIT, model_options={"dtype": torch.float32})
    tokens = clip.tokenize("a (red:1.3) apple")
    told = [token for token, _ in tokens["gemma2_2b"][0]]
    assert instruction().startswith(BEGINS) and told[0] == 2 and told[-1] == 0
    assert clip.tokenize(instruction() + "a (red:1.3) apple") == tokens and all(weight == 1.0 for _, weight in tokens["gemma2_2b"][0])
    states, values = clip.encode_from_tokens_scheduled(tokens)[0]
    assert states.shape == (1, 300, GEMMA_WIDTH) and values["attention_mask"].shape == (1, 300)
    whole = clip.cond_stage_model.gemma2_2b.encode([told])[0]
    assert torch.equal(states[:, 0], whole[:, 0].to(states)) and torch.equal(states[:, 1:], whole[:, -299:].to(states))
    assert len(told) > 400 and len(clip.tokenize("word " * 900)["gemma2_2b"][0]) == len(told)
    assert [token for token, _ in clip.tokenize(" ")["gemma2_2b"][0]] == [2] + [0] * 299


def test_pictures_are_their_own_latents():
    (vae,) = VAELoader().load_vae("pixel_space")
    picture = torch.rand(2, 7, 9, 3)
    latent = vae.encode(picture)
    assert latent.shape == (2, 3, 7, 9) and torch.allclose(latent, picture.movedim(-1, 1) * 2 - 1)
    assert torch.allclose(vae.decode(latent), picture, atol=1e-6) and vae.spacial_compression_decode() == 1
    assert isinstance(vae.first_stage_model, comfy.pixel_space_convert.PixelspaceConversionVAE)
    assert VAELoader.INPUT_TYPES()["required"]["vae_name"][0][-1] == "pixel_space"
