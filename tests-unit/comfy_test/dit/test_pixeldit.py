"""PixelDiT and PiD: what their files are told by, places, latents, the text encoder, and what stands for an autoencoder."""

import pytest
import torch
from image_family_files import numbers
from pixeldit_files import pid_shapes, pid_tensors, pixeldit_config, pixeldit_tensors
from safetensors.torch import save_file
from text_encoder_files import GEMMA_WIDTH, sentence_piece_model, text_model
from transformer_files import network_of

import comfy.latent_formats
import comfy.model_base
import comfy.pixel_space_convert
import comfy.sd
import comfy.supported_models
from comfy.dit import pixeldit
from comfy.dit.models.pixeldit import PiD, PixelDiTT2I
from comfy.dit.registry import family_of, read_transformer_config
from comfy.families.model_errors import ModelFileError
from comfy.ldm.pixeldit.modules import waves_of_places
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy.text_encoders.pixeldit import BEGINS, instruction
from comfy_extras.core_loaders import VAELoader
from comfy_extras.nodes_pid import PiDConditioning


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


def test_pid_is_told_by_what_reads_its_latent():
    model = loaded(pid_tensors()).model
    config = model.model_config.unet_config
    assert type(model) is comfy.model_base.PiD is PiD and isinstance(model.model_config, comfy.supported_models.PiD)
    assert family_of(config) is pixeldit.FAMILY and model.model_sampling.shift == 1.5
    assert (config["lq_interval"], config["lq_num_res_blocks"], config["latent_spatial_down_factor"]) == (2, 1, 8)
    assert read_transformer_config(pid_shapes(channels=128))["latent_spatial_down_factor"] == 16
    later = read_transformer_config(pid_shapes(channels=32, later=True))
    assert (later["lq_latent_channels"], later["lq_latent_unpatchify_factor"], later["rope_ref_h"]) == (128, 2, 2048)
    assert later["lq_gate_per_token"] and later["pit_lq_inject"]
    with pytest.raises(ModelFileError, match="takes 24 channels; PiD 1.5 is known for 16, 32"):
        read_transformer_config(pid_shapes(channels=24, later=True))
    body = {name: shape for name, shape in pid_shapes().items() if not name.startswith("lq_proj")}
    assert read_transformer_config(body) is None


@pytest.mark.parametrize("later", [False, True])
def test_pid_makes_pixels_of_a_latent(later):
    network = loaded(pid_tensors(later=later)).model.diffusion_model
    latents = numbers(1, 16, 2, 3, seed=4), numbers(1, 16, 4, 4, seed=5)
    first, second = (network(**inputs(), lq_latent=latent) for latent in latents)
    assert first.shape == (2, 3, 8, 12) and not torch.allclose(first, second)
    noisy = network(**inputs(), lq_latent=latents[0], degrade_sigma=torch.tensor([1.0]))
    clean = network(**inputs(), lq_latent=latents[0], degrade_sigma=torch.tensor([0.0, 0.0]))
    assert torch.equal(clean, first) and not torch.allclose(noisy, first)
    for given, said in (({}, "there is none"), ({"lq_latent": numbers(1, 4, 2, 2)}, "this one has 4")):
        with pytest.raises(ValueError, match=f"latent of 16 channels, but {said}.*PiDConditioning"):
            network(**inputs(), **given)


def test_pid_gets_its_latent_from_a_node():
    latent = {"samples": numbers(1, 16, 2, 2)}
    (((_, values),),) = PiDConditioning.execute([["text", {}]], latent, "flux", 0.25).args
    assert torch.equal(values["lq_latent"], comfy.latent_formats.Flux().process_in(latent["samples"]))
    conds = loaded(pid_tensors()).model.extra_conds(cross_attn=numbers(1, 3, 32), **values)
    assert torch.equal(conds["lq_latent"].cond, values["lq_latent"]) and conds["degrade_sigma"].cond.tolist() == [0.25]
    (((_, wide),),) = PiDConditioning.execute([["text", {}]], {"samples": numbers(1, 128, 2, 2)}, "flux", 0.0).args
    assert torch.equal(wide["lq_latent"], comfy.latent_formats.Flux2().process_in(numbers(1, 128, 2, 2)))
    (((_, first),),) = PiDConditioning.execute([["text", {}]], {"samples": numbers(1, 16, 3, 2, 2)}, "qwenimage", 0.0).args
    assert first["lq_latent"].shape == (1, 16, 2, 2)


def test_pictures_are_their_own_latents():
    (vae,) = VAELoader().load_vae("pixel_space")
    picture = torch.rand(2, 7, 9, 3)
    latent = vae.encode(picture)
    assert latent.shape == (2, 3, 7, 9) and torch.allclose(latent, picture.movedim(-1, 1) * 2 - 1)
    assert torch.allclose(vae.decode(latent), picture, atol=1e-6) and vae.spacial_compression_decode() == 1
    assert isinstance(vae.first_stage_model, comfy.pixel_space_convert.PixelspaceConversionVAE)
    assert VAELoader.INPUT_TYPES()["required"]["vae_name"][0][-1] == "pixel_space"
