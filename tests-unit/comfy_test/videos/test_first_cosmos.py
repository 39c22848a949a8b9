"""Cosmos 1: what its files are told by, diffusers' network and names, its levels and given frames, hooks, positions."""

import pytest
import text_encoder_files
import torch
from cosmos_files import first_cosmos_config, first_cosmos_file, first_cosmos_tensors
from image_family_files import as_bytes, numbers

import comfy.conds
import comfy.model_base
import comfy.sample
import comfy.sd
import comfy.supported_models
from comfy import latent_formats
from comfy.dit import cosmos
from comfy.dit.models.cosmos import CosmosVideo
from comfy.dit.registry import family_of, read_transformer_config
from comfy.ldm.cosmos.blocks import DITBuildingBlock
from comfy.ldm.cosmos.embedders import joined_cells
from comfy.ldm.cosmos.latents import Cosmos1CV8x8x8
from comfy.ldm.cosmos.layers import modulation
from comfy.ldm.cosmos.model import DataType, GeneralDIT
from comfy.ldm.cosmos.position_embedding import normalize
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy.ops import disable_weight_init
from comfy.patcher_extension import WrappersMP

FP32 = {"dtype": torch.float32}


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), model_options=FP32)


def inputs(size=(6, 8), frames=2, channels=16):
    given = {"x": numbers(1, channels, frames, *size, seed=1), "timesteps": torch.tensor([0.6])}
    return {**given, "context": numbers(1, 5, 32, seed=2)}


@pytest.fixture(scope="module")
def network():
    return loaded(first_cosmos_tensors()).model.diffusion_model


@pytest.mark.parametrize(("channels", "kind"), [(16, "CosmosT2V"), (17, "CosmosI2V")])
def test_variants_are_told_by_their_tensors(tmp_path, caplog, channels, kind):
    model = comfy.sd.load_diffusion_model(first_cosmos_file(tmp_path / "cosmos.safetensors", channels=channels)).model
    assert type(model) is CosmosVideo is comfy.model_base.CosmosVideo and model.model_type.name == "EDM"
    assert type(model.model_config) is getattr(comfy.supported_models, kind)
    assert family_of(model.model_config.unet_config) is cosmos.FIRST and type(model.latent_format) is Cosmos1CV8x8x8
    assert latent_formats.Cosmos1CV8x8x8 is Cosmos1CV8x8x8
    assert model.model_config.memory_usage_factor == 1.6 and model.model_sampling.sigma_data == 0.5
    assert model.concat_keys == (("mask_inverted",) if channels == 17 else ())
    assert model.model_sampling.sigma_max.item() == pytest.approx(80.0) and "not used" not in caplog.text


@pytest.mark.parametrize(("width", "depth", "ratios"), [(4096, 28, (1.0, 1.0, 2.0)), (5120, 36, (2.0, 2.0, 2.0))])
def test_the_real_sizes_give_the_published_names(width, depth, ratios):
    config = first_cosmos_config(width=width, depth=depth, context=1024, lora=256, side=120) | {"max_frames": 128}
    network = GeneralDIT(**config, device="meta", operations=disable_weight_init)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert sum(value.numel() for value in network.parameters()) > {4096: 7e9, 5120: 14e9}[width]
    assert shapes[f"blocks.block{depth - 1}.blocks.2.block.layer2.weight"] == (width, 4 * width)
    assert shapes["blocks.block1.blocks.1.adaLN_modulation.2.weight"] == (3 * width, 256)
    assert shapes["extra_pos_embedder.pos_emb_t"] == (128, width) and shapes["affline_norm.weight"] == (width,)
    real = read_transformer_config(shapes)
    assert real == config and (real["max_img_h"], real["max_img_w"], real["num_heads"]) == (240, 240, width // 128)
    assert tuple(real[f"rope_{axis}_extrapolation_ratio"] for axis in "hwt") == ratios
    assert cosmos.read_first_config({cosmos.FIRST_MARK: (4, 4)}) is None


def test_it_computes_what_diffusers_computes_from_a_file_in_its_names():
    from diffusers import CosmosTransformer3DModel

    twin = CosmosTransformer3DModel(
        in_channels=17,  # the last marks padding; diffusers adds it by itself only with torchvision
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=128,
        num_layers=2,
        text_embed_dim=32,
        adaln_lora_dim=16,
        max_size=(8, 24, 24),
        patch_size=(1, 2, 2),
        rope_scale=(2.0, 1.0, 1.0),
        extra_pos_embed_type="learnable",
        concat_padding_mask=False,
    ).eval()
    for axis in ("t", "h", "w"):
        table = getattr(twin.learnable_pos_embed, f"pos_emb_{axis}")
        table.copy_(numbers(*table.shape, seed=len(table)))
    model = loaded(twin.state_dict()).model
    assert type(model) is CosmosVideo and model.model_config.unet_config["max_frames"] == 8
    for fps in (None, 12):
        given = inputs(frames=3)
        marked = torch.cat((given["x"], torch.zeros(1, 1, 3, 6, 8)), dim=1)
        expected = twin(marked, given["timesteps"], given["context"], fps=fps, return_dict=False)[0]
        torch.testing.assert_close(model.diffusion_model(**given, fps=fps), expected, rtol=1e-3, atol=2e-4)


def test_lora_files_name_weights_by_their_published_names_and_diffusers():
    names = model_lora_keys_unet(loaded(first_cosmos_tensors()).model, {})
    weight = "diffusion_model.blocks.block1.blocks.2.block.layer2.weight"
    assert names["lora_unet_blocks_block1_blocks_2_block_layer2"] == names["diffusion_model.blocks.block1.blocks.2.block.layer2"] == weight
    assert names["transformer.transformer_blocks.1.ff.net.2"] == weight


def test_odd_sides_are_padded_and_cut_and_a_mask_marks_padding(network):
    assert network(**inputs((7, 5))).shape == (1, 16, 2, 7, 5)
    assert not torch.allclose(network(**inputs(), padding_mask=torch.ones(1, 1, 3, 4)), network(**inputs()))
    assert joined_cells(torch.arange(8.0).reshape(1, 1, 1, 1, 8), 2, 1).flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


def test_wrappers_and_attention_see_the_call_and_what_is_told_of_frames_changes_nothing(network):
    seen = []

    def wrapper(executor, *arguments, **kwargs):
        seen.append((len(arguments), arguments[4], arguments[8]))
        return executor(*arguments, **kwargs)

    def attention(function, *arguments, **kwargs):
        seen.append(arguments[0].shape)
        return function(*arguments, **kwargs)

    options = {"wrappers": {WrappersMP.DIFFUSION_MODEL: {"test": [wrapper]}}, "optimized_attention_override": attention}
    told = {"latent_condition": torch.ones(1), "attention_mask": torch.zeros(1, 5), "image_size": torch.ones(1, 4)}
    result = network(**inputs(), fps=24, **told, transformer_options=options)
    assert seen[0] == (12, 24, DataType.VIDEO) and seen[1:] == [(1, 2, 24, 128)] * 4
    torch.testing.assert_close(result, network(**inputs(), fps=24))
    with pytest.raises(ValueError, match="scalar_feature"):
        network(**inputs(), scalar_feature=torch.ones(1))


def test_there_are_positions_for_so_many_cells(network):
    with pytest.raises(ValueError, match="1 frames of 3×13 cells.*at most 12 of 12×12"):
        network(**inputs((6, 26), frames=1))
    table = numbers(3, 8)
    torch.testing.assert_close(normalize(table, dim=-1).square().mean(dim=-1), torch.ones(3))
    torch.testing.assert_close(normalize(table, dim=-1), normalize(table))


def test_blocks_consist_of_steps_that_are_known():
    with pytest.raises(ValueError, match="FA, CA and MLP, not of conv"):
        DITBuildingBlock("conv", 64, 32, 1, operations=disable_weight_init)
    assert [type(layer).__name__ for layer in modulation(8, 3, False, 4, {}, disable_weight_init)] == ["SiLU", "Linear"]


def test_given_frames_are_marked_and_stay_without_noise():
    model = loaded(first_cosmos_tensors(channels=17)).model
    noise, latent = numbers(2, 16, 3, 6, 8), numbers(2, 16, 3, 6, 8, seed=4)
    mask = torch.ones(2, 1, 3, 6, 8)
    mask[:, :, 0] = 0.0
    text = numbers(2, 5, 32)
    given = {"noise": noise, "latent_image": latent, "denoise_mask": mask, "device": torch.device("cpu"), "cross_attn": text}
    conds = model.extra_conds(**given, attention_mask=torch.ones(2, 5), frame_rate=16)
    torch.testing.assert_close(conds["c_concat"].cond, 1.0 - mask)
    assert type(conds["c_crossattn"]) is comfy.conds.CONDRegular and conds["fps"].cond == 16 and "attention_mask" in conds
    sigma = torch.tensor([3.0, 0.5])
    kept = model.scale_latent_inpaint(sigma=sigma, noise=noise, latent_image=latent)
    torch.testing.assert_close(model.model_sampling.calculate_input(sigma, kept), latent / 0.5)


def test_frames_that_are_given_come_out_as_they_were():
    model = loaded(first_cosmos_tensors(channels=17))
    latent, mask = numbers(1, 16, 3, 6, 8, seed=4), torch.ones(1, 1, 3, 6, 8)
    mask[:, :, 0] = 0.0
    side = [[numbers(1, 5, 32), {}]]
    noise = numbers(1, 16, 3, 6, 8, seed=5)
    made = comfy.sample.sample(model, noise, 2, 1.0, "euler", "karras", side, side, latent, noise_mask=mask, disable_pbar=True, seed=1)
    torch.testing.assert_close(made[:, :, 0], latent[:, :, 0])
    assert not torch.allclose(made[:, :, 1:], latent[:, :, 1:], atol=0.1)


def test_the_first_t5_computes_in_scaled_fp8_what_its_wide_weights_give():
    scaled, wide = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, {}
    for name, value in text_encoder_files.text_model("t5xxl_old").items():
        if any(part in name for part in (".SelfAttention.q", ".SelfAttention.o", ".wi.", ".wo.")):
            scale = value.abs().max() / 448
            scaled[name], scaled[name.replace(".weight", ".scale_weight")] = (value / scale).to(torch.float8_e4m3fn), scale
            wide[name] = scaled[name].float() * scale
        else:
            scaled[name] = wide[name] = value
    tokenizer = {"tokenizer_json": as_bytes(text_encoder_files.tokenizer_json())}
    states = []
    for tensors in (scaled, wide):
        clip = comfy.sd.load_text_encoder_state_dicts([tensors | tokenizer], clip_type=comfy.sd.CLIPType.COSMOS, model_options=FP32)
        states.append(clip.encode_from_tokens_scheduled(clip.tokenize("a user walks"))[0])
    (found, told), (expected, _) = states
    assert len(scaled) > len(wide) + 1 and found.shape == (1, 512, text_encoder_files.T5_WIDTH)
    torch.testing.assert_close(found, expected)
    seen = told["attention_mask"][0].bool()
    assert found[0][seen].abs().amax(dim=-1).min() > 0 and not found[0][~seen].any()
