"""ERNIE-Image: what its files are told by, their sizes, what moves its rotations."""

import pytest
import torch
from image_family_files import ernie_config, numbers
from transformer_files import network_of, random_tensors

import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import ernie
from comfy.dit.models.ernie import ErnieImage
from comfy.dit.registry import family_of, read_transformer_config
from comfy.families.model_errors import ModelFileError


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def test_it_is_told_by_its_names():
    tensors = {"model.diffusion_model." + name: value for name, value in random_tensors(ernie_config()).items()}
    model = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32}).model
    assert type(model) is comfy.model_base.ErnieImage is ErnieImage
    assert type(model.model_config) is comfy.supported_models.ErnieImage and family_of(model.model_config.unet_config) is ernie.FAMILY
    assert (model.model_sampling.shift, model.model_sampling.multiplier, model.context_width()) == (3.0, 1000.0, 48)
    assert model.latent_format.latent_channels == 128 and not model.model_config.inpaint_model()


def test_the_real_sizes_give_the_published_names():
    config = ernie_config(width=4096, depth=36, context=3072) | {"num_attention_heads": 32, "ffn_hidden_size": 12288}
    shapes = {name: tuple(value.shape) for name, value in network_of(config | {"rope_axes_dim": [32, 48, 48]}).named_parameters()}
    assert shapes["layers.35.mlp.linear_fc2.weight"] == (4096, 12288) and shapes["text_proj.weight"] == (4096, 3072)
    assert shapes["final_norm.linear.weight"] == (8192, 4096) and shapes["layers.0.self_attention.to_out.0.weight"] == (4096, 4096)
    read = read_transformer_config(shapes)
    assert (read["num_attention_heads"], read["rope_axes_dim"], read["num_layers"]) == (32, [32, 48, 48], 36)
    assert ernie.read_config({"x_embedder.proj.weight": (64, 128, 1, 1)}) is None
    with pytest.raises(ModelFileError, match="heads of 24 values"):
        read_transformer_config(shapes | {"layers.0.self_attention.norm_q.weight": (24,)})
    del shapes["text_proj.weight"]
    assert read_transformer_config(shapes)["text_in_dim"] == 4096  # a text of the network's width is taken as it is


def test_places_can_be_moved_and_stretched():
    network = network_of(ernie_config())
    network.load_weights(random_tensors(ernie_config()))
    given = {"x": numbers(2, 128, 5, 4, seed=1), "timesteps": torch.tensor([600.0, 600.0]), "context": numbers(2, 5, 48, seed=2)}
    plain = network(**given)
    assert plain.shape == given["x"].shape
    for moved in ({"shift_t": 2.0}, {"scale_y": 2.0}, {"scale_x": 0.5}):
        assert not torch.allclose(network(**given, transformer_options={"rope_options": moved}), plain)
    turned = network(**given, transformer_options={"rope_options": {"shift_y": 0.0, "scale_x": 1.0}})
    assert torch.equal(turned, plain)


def test_its_text_is_not_repeated():
    model = comfy.sd.load_diffusion_model_state_dict(random_tensors(ernie_config()), model_options={"dtype": torch.float32}).model
    text = numbers(1, 3, 48)
    conds = model.extra_conds(cross_attn=text, noise=numbers(1, 128, 2, 2), device=torch.device("cpu"))
    assert torch.equal(conds["c_crossattn"].cond, text) and not conds["c_crossattn"].can_concat(type(conds["c_crossattn"])(text[:, :2]))
