"""Flux's network against diffusers' own, its hooks, and where pictures to look at are laid."""

import pytest
import torch
from transformer_files import flux_config, flux_tensors, network_of

from comfy.dit.network import without_weights
from comfy.ldm.flux.layers import apply_mod
from comfy.ldm.flux.model import Flux, invert_slices, reference_places


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network():
    network = network_of(flux_config())
    network.load_weights(flux_tensors())
    return network


def inputs(batch=1, height=6, width=8):
    return {
        "x": numbers(batch, 16, height, width, seed=1),
        "timestep": torch.full((batch,), 0.6),
        "context": numbers(batch, 5, 64, seed=2),
        "y": numbers(batch, 32, seed=3),
        "guidance": torch.full((batch,), 3.5),
    }


def test_it_computes_what_diffusers_computes(network):
    from diffusers import FluxTransformer2DModel
    from test_flux_family import in_diffusers_names

    config = flux_config()
    sizes = {"num_layers": 2, "num_single_layers": 3, "num_attention_heads": 2, "joint_attention_dim": 64, "pooled_projection_dim": 32}
    twin = FluxTransformer2DModel(in_channels=64, guidance_embeds=True, axes_dims_rope=tuple(config["axes_dim"]), **sizes).eval()
    twin.load_state_dict(in_diffusers_names(flux_tensors()))
    given = inputs()
    tokens, ids = network.process_img(given["x"])
    with torch.no_grad():
        expected = twin(
            tokens, given["context"], given["y"], given["timestep"], ids[0], torch.zeros(5, 3), given["guidance"], return_dict=False
        )[0]
        found = network(**given)
    patched, _ = network.process_img(found)
    assert torch.allclose(patched, expected, atol=2e-4), (patched - expected).abs().max()


def test_odd_sides_are_padded_and_cut_again(network):
    with torch.no_grad():
        assert network(**inputs(height=7, width=5)).shape == (1, 16, 7, 5)


def test_a_replacement_of_a_block_sees_its_arguments_and_the_original(network):
    seen = []

    def replacement(args, extra):
        seen.append((sorted(args), args["transformer_options"]["block_type"], args["transformer_options"]["block_index"]))
        return extra["original_block"](args)

    blocks = {("double_block", 1): replacement, ("single_block", 2): replacement}
    with torch.no_grad():
        plain = network(**inputs())
        replaced = network(**inputs(), transformer_options={"patches_replace": {"dit": blocks}})
    assert torch.equal(plain, replaced)
    shared = ["attn_mask", "img", "pe", "transformer_options", "vec"]
    assert seen == [(sorted([*shared, "txt"]), "double", 1), (shared, "single", 2)]


def test_patches_of_the_attention_and_the_input_are_called(network):
    calls = []

    def attention(q, k, v, pe, attn_mask, extra_options):
        calls.append((extra_options["block_type"], extra_options["block_index"], extra_options["img_slice"], tuple(q.shape)))
        return {"q": q * 0.5}

    def output(out, extra_options):
        return out * 0

    def first(args):
        return {**args, "img": args["img"] * 2}

    patches = {"attn1_patch": [attention], "attn1_output_patch": [output], "post_input": [first]}
    with torch.no_grad():
        plain, patched = network(**inputs()), network(**inputs(), transformer_options={"patches": patches})
    assert len(calls) == 5 and calls[0] == ("double", 0, [5, 17], (1, 2, 17, 128)) and calls[-1][:2] == ("single", 2)
    assert not torch.allclose(plain, patched)


def test_residuals_of_a_control_net_are_added_to_the_pictures_tokens(network):
    control = {"input": [None, torch.ones(1, 12, 256)], "output": [torch.ones(1, 4, 256)]}
    with torch.no_grad():
        plain, controlled = network(**inputs()), network(**inputs(), control=control)
    assert not torch.allclose(plain, controlled)


def test_wrappers_are_around_the_network(network):
    def wrapper(executor, *arguments, **extra):
        return executor(*arguments, **extra) * 2

    options = {"wrappers": {"diffusion_model": {"key": [wrapper]}}}
    with torch.no_grad():
        assert torch.equal(network(**inputs(), transformer_options=options), network(**inputs()) * 2)


@pytest.mark.parametrize(
    ("method", "places"),
    [
        ("offset", [(1, 0, 0), (1, 0, 6), (1, 9, 0)]),
        ("index", [(1.5, 0, 0), (3.0, 0, 0), (4.5, 0, 0)]),
        ("uxo", [(0, 20, 30), (0, 28, 36), (0, 37, 42)]),
    ],
)
def test_pictures_are_laid_beside_the_latent(method, places):
    assert list(reference_places(method, [(8, 6), (9, 6), (4, 20)], (20, 30), 1.5)) == places


@pytest.mark.parametrize("method", ["offset", "index", "uxo", "index_timestep_zero"])
def test_pictures_to_look_at_change_the_result(network, method):
    references = [numbers(2, 16, 4, 6, seed=5), numbers(2, 16, 6, 4, seed=6)]
    with torch.no_grad():
        plain = network(**inputs(batch=2))
        guided = network(**inputs(batch=2), ref_latents=references, ref_latents_method=method)
    assert guided.shape == plain.shape and guided.isfinite().all() and not torch.allclose(plain, guided)


def test_ranges_and_modulation():
    assert invert_slices([(4, 6), (1, 2)], 8) == [(0, 1), (2, 4), (6, 8)] and invert_slices([], 3) == [(0, 3)]
    rows = torch.stack([torch.full((1, 4), 2.0), torch.full((1, 4), 3.0)], dim=1)
    changed = apply_mod(torch.ones(1, 3, 4), rows, rows, [(0, 2, 0), (2, 3, 1)])
    assert changed[0, :, 0].tolist() == [4.0, 4.0, 6.0]


def test_the_kinds_of_layers_that_relatives_have():
    config = flux_config(depth=1, single=1) | {
        "global_modulation": True,
        "mlp_silu_act": True,
        "ops_bias": False,
        "qkv_bias": False,
        "vec_in_dim": None,
        "txt_norm": True,
    }
    network = Flux(**config, dtype=torch.float32)
    assert network.vector_in is None and not hasattr(network.double_blocks[0], "img_mod")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(numbers(*parameter.shape) * 0.05)
        given = {key: value for key, value in inputs().items() if key != "y"}
        references = {"ref_latents": [numbers(1, 16, 4, 4)], "ref_latents_method": "index_timestep_zero"}
        assert network(**given).isfinite().all() and network(**given, **references).isfinite().all()


def test_yak_layers_are_gated():
    network = Flux(**flux_config(depth=1, single=1), yak_mlp=True, dtype=torch.float32)
    assert network.double_blocks[0].img_mlp.gate_proj.weight.shape == (1024, 256)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(numbers(*parameter.shape) * 0.05)
        assert network(**inputs()).isfinite().all()


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 heads of 128 values"):
        Flux(**{**flux_config(), "hidden_size": 250}, dtype=torch.float32)


def test_weights_come_later():
    network = without_weights(Flux)(**flux_config(), dtype=torch.float32, device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in network.parameters())
    network.load_weights(flux_tensors())
    assert not any(parameter.is_meta for parameter in network.parameters())
