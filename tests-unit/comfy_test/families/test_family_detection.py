"""Family and sizes from names and shapes; settings from metadata; clear errors for the rest."""

import dataclasses
import json

import pytest
import torch

from benchmarks.make_checkpoint import UNETS, checkpoint_layout, family
from comfy import model_base, model_detection, supported_models
from comfy.families.family_settings import METADATA_KEY, family_settings
from comfy.families.kl_vae_config import read_vae_config
from comfy.families.model_errors import ModelFileError, UnknownModelError
from comfy.families.published_layout import unet_layout, vae_layout
from comfy.families.sd_unet_config import read_unet_config, unet_config_from_dict
from comfy.families.weight_source import StateDictSource
from comfy.loading.diffusion_model import DiffusionModel


def stand_ins(layout):
    return {key: torch.empty(shape, device="meta") for key, shape in layout.items()}


@pytest.mark.parametrize("name", sorted(UNETS))
def test_published_shapes_say_which_network_it_is(name):
    config = read_unet_config(unet_layout(UNETS[name]), "")
    assert config == UNETS[name]
    assert unet_config_from_dict(config.as_dict()) == config


@pytest.mark.parametrize(
    ("name", "kind", "model"),
    [
        ("sd15", supported_models.SD15, model_base.BaseModel),
        ("sdxl", supported_models.SDXL, model_base.SDXL),
        ("sdxl-refiner", supported_models.SDXLRefiner, model_base.SDXLRefiner),
    ],
)
@pytest.mark.parametrize("shrink", [1, 10])
def test_checkpoints_are_matched_with_their_family_at_any_width(name, kind, model, shrink):
    sizes = family(name, 12 if name == "sdxl-refiner" and shrink > 1 else shrink)
    tensors = stand_ins(checkpoint_layout(sizes))
    prefix = model_detection.unet_prefix_from_state_dict(tensors)
    config = model_detection.model_config_from_unet(tensors, prefix, metadata=sizes.metadata())
    assert prefix == "model.diffusion_model." and type(config) is kind and config.model_class() is model
    assert config.unet_config["num_heads"] == sizes.unet.num_heads


@pytest.mark.parametrize(
    ("name", "kind", "model"),
    [
        ("sd15", supported_models.SD15_instructpix2pix, model_base.SD15_instructpix2pix),
        ("sdxl", supported_models.SDXL_instructpix2pix, model_base.SDXL_instructpix2pix),
    ],
)
def test_eight_input_channels_are_a_latent_and_a_picture(name, kind, model):
    sizes = dataclasses.replace(UNETS[name], in_channels=8)
    config = model_detection.model_config_from_unet(stand_ins(unet_layout(sizes)), "")
    assert type(config) is kind and config.model_class() is model and not config.inpaint_model()


def test_other_numbers_of_input_channels_are_the_reason_that_is_given():
    tensors = stand_ins(unet_layout(dataclasses.replace(family("sd15", 10).unet, in_channels=5)))
    with pytest.raises(UnknownModelError, match="a UNet that takes 5 input channels. Supported: .*8 for InstructPix2Pix"):
        DiffusionModel(StateDictSource(tensors), None)
    assert model_detection.describe_channels(stand_ins(unet_layout(UNETS["sd15"])), "") == ""
    assert model_detection.describe_channels({}, "") == ""


def test_the_configuration_has_the_members_node_packs_read():
    config = model_detection.detect_unet_config(stand_ins(unet_layout(UNETS["sdxl"])), "")
    assert config["transformer_depth"] == [0, 0, 2, 2, 10, 10] and config["transformer_depth_output"] == [0, 0, 0, 2, 2, 2, 10, 10, 10]
    assert config["num_res_blocks"] == [2, 2, 2] and config["channel_mult"] == [1, 2, 4] and config["transformer_depth_middle"] == 10
    assert config["context_dim"] == 2048 and config["adm_in_channels"] == 2816 and config["num_classes"] == "sequential"


def test_marks_in_a_file_change_what_is_predicted():
    tensors = stand_ins(checkpoint_layout(family("sdxl", 10)))
    config = model_detection.model_config_from_unet(tensors, "model.diffusion_model.")
    assert config.model_type(tensors) is model_base.ModelType.EPS
    assert config.model_type({**tensors, "v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}) is model_base.ModelType.V_PREDICTION
    assert config.sampling_settings["zsnr"] is True
    assert config.model_type({"edm_vpred.sigma_max": torch.tensor(90.0)}) is model_base.ModelType.V_PREDICTION_EDM
    assert config.sampling_settings["sigma_max"] == 90.0
    assert config.model_type({"edm_mean": 0, "edm_std": 0}) is model_base.ModelType.EDM
    assert config.sampling_settings["sigma_data"] == 0.5 and config.latent_format.scale_factor == 0.5


def test_settings_in_the_metadata_are_used():
    layout = unet_layout(UNETS["sd15"])
    metadata = {METADATA_KEY: json.dumps({"unet": {"num_heads": 4}, "latent": {"scale_factor": 1.0}, "prediction": "v_prediction"})}
    config = model_detection.model_config_from_unet(stand_ins(layout), "", metadata=metadata)
    assert config.unet_config["num_heads"] == 4 and config.latent_format.scale_factor == 1.0
    assert config.model_type({}) is model_base.ModelType.V_PREDICTION
    assert supported_models.SD15(config.unet_config).latent_format.scale_factor == 0.18215


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "9" * 9999, "[1]", '{"unet": {"heads": 3}}', '{"other": {}}', '{"prediction": "x0"}'])
def test_settings_that_are_not_understood_are_refused(text):
    with pytest.raises(ModelFileError, match=r"model\.safetensors: .*keepwarm\.config"):
        family_settings({METADATA_KEY: text}, "model.safetensors")
    assert family_settings(None, "model.safetensors") == {}


def test_head_counts_that_do_not_divide_are_refused():
    with pytest.raises(ModelFileError, match="cannot be divided into 7 heads"):
        read_unet_config(unet_layout(UNETS["sd15"]), "", {"num_heads": 7})


def test_unknown_networks_are_not_guessed():
    layout = unet_layout(UNETS["sd15"])
    assert read_unet_config({"double_blocks.0.img_attn.qkv.weight": (3, 1)}, "") is None
    assert read_unet_config({**layout, "input_blocks.1.1.time_stack.0.attn1.to_q.weight": (320, 320)}, "") is None
    five_channels = {**layout, "input_blocks.0.0.weight": (320, 5, 3, 3)}
    assert model_detection.model_config_from_unet(stand_ins(five_channels), "") is None


def test_uneven_networks_are_none_of_diffusers():
    pruned = dataclasses.replace(UNETS["sdxl"], depths=(0, 0, 2, 2, 4, 4), output_depths=(0, 0, 0, 1, 1, 2, 4, 4, 10))
    with pytest.raises(ModelFileError, match="SSD-1B"):
        pruned.diffusers_arguments()


def test_inpainting_networks_take_the_mask_and_the_picture():
    layout = {**unet_layout(family("sd15", 10).unet), "input_blocks.0.0.weight": (32, 9, 3, 3)}
    config = model_detection.model_config_from_unet(stand_ins(layout), "")
    assert config.get_model({}).concat_keys == ("mask", "masked_image")


def test_the_autoencoders_sizes_are_read():
    vae = family("sd15").vae
    assert read_vae_config(vae_layout(vae)) == vae and vae.ratio == 8
    two_levels = dataclasses.replace(vae, channels=(32, 64), num_res_blocks=1, quant_conv=False, latent_channels=16)
    assert read_vae_config(vae_layout(two_levels)) == two_levels and two_levels.ratio == 2
    assert read_vae_config({"decoder.conv_in.weight": (1, 2, 3, 3, 3), "encoder.conv_in.weight": (1, 2, 3, 3, 3)}) is None


def test_what_a_file_holds_is_described():
    assert model_detection.describe_tensors(["a.b.c", "a.b.d", "e.f"]) == "3 tensors: a.b.* (2), e.f.* (1)"
    assert model_detection.describe_tensors([]) == "no tensors"


def test_a_network_without_width_is_refused():
    shapes = {**unet_layout(UNETS["sd15"]), "input_blocks.0.0.weight": (0, 4, 3, 3)}
    assert read_unet_config(shapes, "") is None
