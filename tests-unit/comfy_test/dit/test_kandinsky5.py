"""Kandinsky 5: what its files are told by, its network, its hooks, what it is conditioned by, LoRA."""

import pytest
import torch
from kandinsky_files import POOLED, kandinsky_config, kandinsky_tensors
from transformer_files import network_of

import comfy.latent_formats
import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import kandinsky5
from comfy.dit.models.kandinsky5 import Kandinsky5, Kandinsky5Image
from comfy.ldm.kandinsky5 import layers
from comfy.ldm.kandinsky5.model import Kandinsky5 as Network
from comfy.loading.lora_keys import model_lora_keys_unet

CONTEXT = 48


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def made(**sizes):
    network = network_of(kandinsky_config(**sizes))
    network.load_weights(kandinsky_tensors(**sizes))
    return network


@pytest.fixture(scope="module")
def network():
    return made()


def inputs(*size, channels=33):
    given = {"x": numbers(1, channels, *(size or (3, 4, 6)), seed=1), "timestep": torch.tensor([600.0])}
    return {**given, "context": numbers(1, 5, CONTEXT, seed=2), "y": numbers(1, POOLED, seed=3)}


def loaded(**sizes):
    return comfy.sd.load_diffusion_model_state_dict(kandinsky_tensors(**sizes), model_options={"dtype": torch.float32}).model


@pytest.mark.parametrize(
    ("picture", "kind", "shift", "latents"), [(False, "Kandinsky5", 10.0, "HunyuanVideo"), (True, "Kandinsky5Image", 3.0, "Flux")]
)
def test_networks_are_told_by_their_tensors(picture, kind, shift, latents):
    model = loaded(picture=picture)
    assert type(model) is getattr(comfy.model_base, kind) and type(model.model_config) is getattr(comfy.supported_models, kind)
    assert (
        type(model.diffusion_model) is Network
        and model.model_sampling.shift == shift
        and type(model.latent_format) is getattr(comfy.latent_formats, latents)
    )


def test_the_real_sizes_have_their_heads_and_places():
    def config(width, values):
        shapes = {name: tuple(value.shape) for name, value in kandinsky_tensors().items()}
        return kandinsky5.read_config({**shapes, kandinsky5.FIRST: (width, values)})

    lite, pro, picture = config(1792, 132), config(4096, 132), config(2560, 64)
    assert (lite["axes_dims"], pro["axes_dims"], picture["axes_dims"]) == ((16, 24, 24), (32, 48, 48), (32, 48, 48))
    assert "rope_scale_factor" not in lite and picture["rope_scale_factor"] == (1.0, 1.0, 1.0)
    assert kandinsky5.read_config({"x": (1,)}) is None


def test_it_computes_what_diffusers_computes(network):
    from diffusers import Kandinsky5Transformer3DModel

    sizes = {"in_text_dim": CONTEXT, "in_text_dim2": POOLED, "time_dim": 64, "model_dim": 128, "ff_dim": 96}
    blocks = {"num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (16, 24, 24), "visual_cond": True, "patch_size": (1, 2, 2)}
    twin = Kandinsky5Transformer3DModel(in_visual_dim=16, out_visual_dim=16, **sizes, **blocks).eval()
    twin.load_state_dict(kandinsky_tensors())
    given = inputs()
    places, texts = [torch.arange(count) for count in (3, 2, 3)], (given["context"], given["timestep"], given["y"])
    stretched = {"scale_factor": (1.0, 2.0, 2.0), "return_dict": False}
    expected = twin(given["x"].permute(0, 2, 3, 4, 1), *texts, places, torch.arange(5), **stretched)
    expected = expected.permute(0, 4, 1, 2, 3)
    assert (network(**given) - expected).norm() <= 5e-3 * expected.norm()  # diffusers turns queries and keys in bfloat16, whatever comes


def test_given_frames_stand_in_place_of_the_first_ones(network):
    given, frames = inputs(), numbers(1, 16, 1, 4, 6, seed=5)
    replaced = given["x"].clone()
    replaced[:, :16, :1] = frames
    before = given["x"].clone()
    made_of_it = network(**given, time_dim_replace=frames)
    torch.testing.assert_close(made_of_it, network(**{**given, "x": replaced}))
    assert torch.equal(given["x"], before) and not torch.allclose(made_of_it, network(**given), rtol=1e-3)


def test_pictures_and_odd_sides(network):
    picture = made(picture=True)
    given = inputs(4, 6, channels=16)
    flat = picture(**given)
    assert flat.shape == (1, 16, 4, 6)
    torch.testing.assert_close(flat, picture(**{**given, "x": given["x"][:, :, None]})[:, :, 0])
    odd = network(**inputs(2, 5, 7))
    assert odd.shape == (1, 16, 2, 5, 7) and odd.isfinite().all()


def test_many_tokens_in_parts_are_the_same(network, monkeypatch):
    whole = network(**inputs())
    monkeypatch.setattr(layers, "MANY_TOKENS", 4)
    torch.testing.assert_close(network(**inputs()), whole, rtol=1e-4, atol=1e-5)


def test_places_are_stretched_as_asked(network, monkeypatch):
    plain = network(**inputs())
    same = {"rope_options": {"scale_y": 0.5, "scale_x": 0.5}}  # as it was trained
    torch.testing.assert_close(network(**inputs(), transformer_options=same), plain, rtol=1e-4, atol=1e-5)
    moved = network(**inputs(), transformer_options={"rope_options": {"scale_y": 0.5, "scale_x": 0.5, "scale_t": 2.0}})
    assert not torch.allclose(moved, plain, rtol=1e-3)
    monkeypatch.setattr("comfy.ldm.kandinsky5.model.PRO_WIDTH", 128)
    assert torch.equal(network(**inputs()), plain)
    monkeypatch.setattr("comfy.ldm.kandinsky5.model.PRO_AREA", 24)
    assert not torch.allclose(network(**inputs()), plain, rtol=1e-3)


def test_a_replacement_of_a_block_sees_its_arguments_and_the_original(network):
    seen = []

    def replacement(args, extra):
        seen.append((sorted(args), args["transformer_options"]["block_index"]))
        return extra["original_block"](args)

    replaced = network(**inputs(), transformer_options={"patches_replace": {"dit": {("double_block", 1): replacement}}})
    assert torch.equal(network(**inputs()), replaced) and seen == [(["context", "freqs", "time_embed", "transformer_options", "x"], 1)]


def test_conditioning_is_what_the_network_takes():
    model, pooled, latent = loaded(), numbers(1, POOLED), numbers(1, 16, 1, 4, 6)
    given = {"noise": numbers(1, 16, 3, 4, 6), "device": torch.device("cpu"), "cross_attn": numbers(1, 5, CONTEXT), "pooled_output": pooled}
    plain = model.extra_conds(**given)
    assert plain.keys() == {"c_concat", "c_crossattn", "y"} and plain["c_concat"].cond.count_nonzero() == 0
    free = torch.ones(1, 1, 2, 8, 12)
    free[:, :, 0] = 0.0
    begun = model.extra_conds(**given, time_dim_replace=latent, concat_mask=free, attention_mask=torch.ones(1, 5))
    assert begun["c_concat"].cond.shape == (1, 17, 3, 4, 6) and begun["c_concat"].cond[:, 16].mean(dim=(0, 2, 3)).tolist() == [
        1.0,
        0.0,
        0.0,
    ]
    torch.testing.assert_close(begun["time_dim_replace"].cond, latent * 0.476986)
    assert begun["attention_mask"].cond.shape == (1, 5)
    kept = model.extra_conds(**given, denoise_mask=free.expand(-1, 16, -1, -1, -1))
    assert torch.equal(kept["c_concat"].cond, begun["c_concat"].cond)
    flat = loaded(picture=True)
    assert type(flat) is Kandinsky5Image and isinstance(flat, Kandinsky5)
    assert "c_concat" not in flat.extra_conds(**{**given, "noise": numbers(1, 16, 4, 6)})


def test_lora_files_name_weights_in_the_usual_ways():
    names = model_lora_keys_unet(loaded(), {})
    bare = "visual_transformer_blocks.1.self_attention.to_query"
    assert {names[bare], names[f"transformer.{bare}"], names[f"diffusion_model.{bare}"]} == {f"diffusion_model.{bare}.weight"}
