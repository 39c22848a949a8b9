"""Flux.1: what its files are told by, how its weights are named, and that files in both namings give the same network."""

import pytest
import safetensors.torch
import torch
from transformer_files import flux_config, flux_file, flux_tensors, network_of

import comfy.model_base
import comfy.model_detection
import comfy.sd
import comfy.supported_models
from comfy.dit.diffusers_files import as_published_transformer
from comfy.dit.family import Family
from comfy.dit.flux import diffusers_places, swap_halves
from comfy.dit.registry import FAMILIES, family_of, read_transformer_config
from comfy.families.model_errors import IncompleteModelError, UnknownModelError
from comfy.families.weight_source import StateDictSource


def in_diffusers_names(tensors: dict) -> dict:
    """A small Flux.1 as diffusers saves it; aliases are left out."""
    config = read_transformer_config({key: tuple(value.shape) for key, value in tensors.items()})
    published = {key.replace("_norm.scale", "_norm.weight"): value for key, value in tensors.items()}
    found = {}
    for name, place in diffusers_places(config).items():
        if place.key in published and ".linear_in." not in name and ".linear_out." not in name and name.count("to_qkv_mlp") == 0:
            if name.endswith(("attn.to_out.weight", "attn.to_out.bias")):
                continue
            value = published[place.key]
            value = value[place.start : place.start + place.length] if place.length else value
            found[name] = (swap_halves(value) if place.swapped else value).clone()
    return found


@pytest.mark.parametrize(
    ("sizes", "config", "model_type"),
    [
        ({}, "Flux", "FLUX"),
        ({"in_channels": 96}, "FluxInpaint", "FLUX"),
        ({"in_channels": 32}, "Flux", "FLUX"),
        ({"guidance": False}, "FluxSchnell", "FLOW"),
    ],
)
def test_a_file_is_told_by_its_keys_and_shapes(sizes, config, model_type):
    tensors = {"model.diffusion_model." + key: value for key, value in flux_tensors(**sizes).items()}
    found = comfy.model_detection.model_config_from_unet(tensors, "model.diffusion_model.")
    assert type(found).__name__ == config and type(found) is getattr(comfy.supported_models, config)
    assert found.model_type(tensors).name == model_type and found.latent_format.latent_channels == 16
    assert (found.unet_config["depth"], found.unet_config["depth_single_blocks"], found.unet_config["num_heads"]) == (2, 3, 2)
    assert family_of(found.unet_config).name == "Flux.1"


def test_the_real_sizes_give_the_published_names():
    network = network_of(flux_config(width=3072, depth=19, single=38, context=4096, vector=768))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert len(shapes) == 780 and sum(value.numel() for value in network.parameters()) == 11_901_408_320
    assert shapes["double_blocks.18.txt_attn.qkv.weight"] == (9216, 3072)
    assert shapes["single_blocks.37.linear1.weight"] == (21504, 3072) and shapes["final_layer.linear.weight"] == (64, 3072)
    assert list(network.patch_blocks())[-1] == ("single_block", 37)


@pytest.mark.parametrize("key", ["distilled_guidance_layer.norms.0.scale", "double_stream_modulation_img.lin.weight"])
def test_relatives_are_no_flux(key):
    shapes = {name: tuple(value.shape) for name, value in flux_tensors().items()}
    assert FAMILIES[0].read_config(shapes) is not None and FAMILIES[0].read_config({**shapes, key: (1,)}) is None


def test_published_weights_are_not_copied():
    tensors = flux_tensors()
    kept = dict(tensors)
    model = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32}).model
    assert type(model) is comfy.model_base.Flux and not tensors
    for name, parameter in model.diffusion_model.named_parameters():
        assert parameter.data_ptr() == kept[name.replace("_norm.weight", "_norm.scale")].data_ptr()


def test_a_file_in_diffusers_names_gives_the_same_network():
    tensors = flux_tensors()
    renamed = in_diffusers_names(tensors)
    assert "transformer_blocks.1.attn.add_k_proj.bias" in renamed and len(renamed) > len(tensors)
    source = as_published_transformer(StateDictSource(renamed))
    taken = source.take(source.shapes(), None)
    assert taken.keys() == {key.replace("_norm.scale", "_norm.weight") for key in tensors}
    assert all(torch.equal(taken[key.replace("_norm.scale", "_norm.weight")], value) for key, value in tensors.items())


def test_parts_that_lie_one_behind_the_other_are_joined_without_a_copy():
    renamed = in_diffusers_names(flux_tensors())
    block = torch.empty(sum(value.numel() for value in renamed.values()))
    start, placed = 0, {}
    for name, value in renamed.items():
        placed[name] = block[start : start + value.numel()].view(value.shape).copy_(value)
        start += value.numel()
    source = as_published_transformer(StateDictSource(placed))
    taken = source.take(source.shapes(), None)
    copied = {key for key, value in taken.items() if value.untyped_storage().data_ptr() != block.untyped_storage().data_ptr()}
    fused = {key for key in taken if ".qkv." in key or ".linear1." in key}
    assert copied <= fused | {f"final_layer.adaLN_modulation.1.{leaf}" for leaf in ("weight", "bias")}
    assert "double_blocks.0.img_attn.qkv.weight" not in copied  # its parts lie in the order of diffusers' names here


def test_parts_that_do_not_fit_are_an_error_that_names_the_file():
    renamed = in_diffusers_names(flux_tensors())
    del renamed["transformer_blocks.0.attn.to_k.weight"]
    with pytest.raises(IncompleteModelError, match=r"the diffusion model in broken: transformer_blocks.0.attn.to_v.weight"):
        as_published_transformer(StateDictSource(renamed, "broken"))


def test_a_missing_tensor_is_an_error_that_names_the_file(tmp_path):
    tensors = flux_tensors()
    del tensors["double_blocks.1.img_mlp.2.weight"]
    with pytest.raises(IncompleteModelError, match=r"the diffusion model in the state dict: 1 of .* double_blocks.1.img_mlp.2.weight"):
        comfy.sd.load_diffusion_model_state_dict(tensors)


def test_an_unknown_transformer_is_refused_with_the_families_that_are_known(tmp_path):
    tensors = {key.replace("double_blocks", "triple_blocks"): value for key, value in flux_tensors().items()}
    file = tmp_path / "unknown.safetensors"
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(UnknownModelError, match=r"unknown.safetensors holds no model of a supported family.*Flux\.1"):
        comfy.sd.load_diffusion_model(str(file))


def test_a_second_load_is_a_hit_of_the_same_weights(tmp_path):
    path = flux_file(tmp_path / "flux.safetensors")
    first, second = (comfy.sd.load_diffusion_model(path, model_options={"dtype": torch.float32}) for _ in range(2))
    for name, value in first.model.named_parameters():
        assert torch.equal(value, dict(second.model.named_parameters())[name])


def test_a_family_says_which_networks_it_has():
    assert FAMILIES[0].image_models() == {"flux"} and family_of({"image_model": "none"}) is None and family_of(None) is None
    with pytest.raises(ValueError, match="other: .*SD15.* says no image_model"):
        Family("other", (comfy.supported_models.SD15,), lambda shapes: None)
