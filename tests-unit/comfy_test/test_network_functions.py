"""Small functions that packs import from the modules of networks."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import comfy.latent_formats
import comfy.model_detection
import comfy.ops
import comfy.utils
from comfy.ldm import common_dit, util
from comfy.ldm.flux import layers, math
from comfy.ldm.modules.diffusionmodules import util as diffusion_util
from comfy.ldm.modules.distributions import distributions
from comfy.ldm.modules.sub_quadratic_attention import efficient_dot_product_attention
from comfy.rmsnorm import rms_norm
from comfy.taesd.taesd import Block, Clamp, conv


def test_padding_rounds_lengths_up_and_goes_round():
    picture = torch.arange(15.0).view(1, 1, 3, 5)
    padded = common_dit.pad_to_patch_size(picture, (2, 4))
    assert padded.shape == (1, 1, 4, 8)
    assert padded[0, 0, 3].tolist() == padded[0, 0, 0].tolist()
    assert padded[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert common_dit.pad_to_patch_size(picture, (3, 5)).equal(picture)


def test_rms_norm_scales_by_the_weight_in_the_inputs_dtype():
    values = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    expected = values / (12.5**0.5)
    assert torch.allclose(rms_norm(values, eps=0.0), expected)
    assert torch.allclose(common_dit.rms_norm(values, torch.tensor([2.0, 0.5]), eps=0.0), expected * torch.tensor([2.0, 0.5]))


def test_rope_turns_pairs_of_values():
    turned = math.rope(torch.tensor([[0.0, 1.0]]), 4, 100)
    assert turned.shape == (1, 2, 2, 2, 2) and turned.dtype == torch.float32
    angles = torch.tensor([1.0, 0.1])
    query = torch.tensor([[[[1.0, 0.0, 0.0, 2.0], [0.0, 1.0, 1.0, 0.0]]]], dtype=torch.float16)
    first, second = math.apply_rope(query, 2 * query, turned.unsqueeze(1))
    assert first.dtype == torch.float16 and second.equal(2 * first)
    assert first.shape == query.shape
    expected = torch.tensor([angles[0].cos(), angles[0].sin(), -2 * angles[1].sin(), 2 * angles[1].cos()])
    assert torch.allclose(math.apply_rope1(torch.tensor([[[1.0, 0.0, 0.0, 2.0]] * 2]), turned)[0, 1], expected, atol=1e-6)
    with pytest.raises(ValueError, match="3 is odd"):
        math.rope(torch.zeros(1, 1), 3, 100)


def test_flux_times_are_scaled_by_a_thousand():
    times = torch.tensor([0.0, 0.25])
    assert layers.timestep_embedding(times, 8).equal(diffusion_util.timestep_embedding(1000 * times, 8))
    assert layers.timestep_embedding(times.half(), 8).dtype == torch.float16


def test_memory_saving_attention_is_attention():
    query, key, value = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(1)).unbind()
    mask = torch.zeros(4, 5, 5).masked_fill(torch.ones(5, 5).tril() == 0, float("-inf"))
    expected = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.allclose(efficient_dot_product_attention(query, key.mT, value, mask=mask), expected, atol=1e-6)
    half = efficient_dot_product_attention(query.half(), key.half().mT, value.half(), mask=mask, upcast_attention=True)
    assert half.dtype == torch.float16 and torch.allclose(half.float(), expected, atol=5e-3)


def test_gaussian_latents():
    parameters = torch.cat([torch.full((1, 2, 1, 1), 3.0), torch.full((1, 2, 1, 1), 4.0)], dim=1)
    gaussian = distributions.DiagonalGaussianDistribution(parameters)
    torch.manual_seed(7)
    drawn = gaussian.sample()
    torch.manual_seed(7)
    assert drawn.equal(3 + torch.randn(1, 2, 1, 1) * torch.tensor(2.0).exp())
    assert gaussian.mode().eq(3).all() and gaussian.kl(gaussian).eq(0).all()
    assert gaussian.kl().item() == pytest.approx(9 + torch.tensor(4.0).exp().item() - 5)
    assert gaussian.nll(gaussian.mean).item() == pytest.approx(4 + 1.8378770664)
    assert distributions.DiagonalGaussianDistribution(parameters, deterministic=True).sample().eq(3).all()
    assert distributions.normal_kl(torch.tensor(1.0), 0.0, 0.0, 0.0).item() == 0.5
    assert distributions.DiracDistribution(5).sample() == distributions.DiracDistribution(5).mode() == 5


def test_functions_of_the_original_networks():
    linear = diffusion_util.zero_module(torch.nn.Linear(2, 2))
    assert not any(parameter.any() for parameter in linear.parameters())
    assert diffusion_util.mean_flat(torch.arange(8.0).view(2, 2, 2)).tolist() == [1.5, 5.5]
    assert diffusion_util.avg_pool_nd(1, 2)(torch.tensor([[1.0, 3.0]])).tolist() == [[2.0]]
    assert diffusion_util.checkpoint(lambda left, right: left + right, (1, 2), (), False) == 3
    assert diffusion_util.extract_into_tensor(torch.tensor([5.0, 6.0]), torch.tensor([1, 0]), (2, 4, 8, 8)).shape == (2, 1, 1, 1)
    noise = diffusion_util.noise_like((3, 2), "cpu", repeat=True)
    assert noise.shape == (3, 2) and noise[0].equal(noise[2])
    assert util.exists(0) and util.default(None, 4) == 4 and util.count_params(torch.nn.Linear(2, 3)) == 9
    assert util.isimage(torch.zeros(1, 3, 2, 2)) and util.ismap(torch.zeros(1, 4, 2, 2)) and not util.ismap("no")
    made = util.instantiate_from_config({"target": "torch.nn.Linear", "params": {"in_features": 1, "out_features": 1}})
    assert isinstance(made, torch.nn.Linear)


def test_tiny_autoencoder_blocks_hold_published_names():
    assert set(Block(4, 8).state_dict()) == {f"conv.{index}.{leaf}" for index in (0, 2, 4) for leaf in ("weight", "bias")} | {"skip.weight"}
    assert {"pool.0.weight", "pool.1.weight", "pool.3.weight"} <= set(Block(8, 8, use_midblock_gn=True).state_dict())
    assert conv(3, 5, stride=2, bias=False)(torch.zeros(1, 3, 8, 8)).shape == (1, 5, 4, 4)
    block = Block(4, 4, use_midblock_gn=True)
    for parameter in block.parameters():
        torch.nn.init.ones_(parameter)
    assert block(torch.ones(1, 4, 3, 3)).shape == (1, 4, 3, 3)
    assert Clamp()(torch.tensor([0.0, 300.0])).tolist() == [0.0, 3.0]


def test_older_network_configurations_get_their_present_form():
    old = {"num_res_blocks": 2, "channel_mult": (1, 2, 4, 4), "attention_resolutions": [4, 2, 1], "transformer_depth": 1, "in_channels": 4}
    assert comfy.model_detection.convert_config(old) == {
        "in_channels": 4,
        "channel_mult": (1, 2, 4, 4),
        "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
    }
    assert old["num_res_blocks"] == 2, "the caller's own is left as it was"


@pytest.mark.parametrize("kind", ["SD3", "Flux", "SC_B", "SC_Prior", "SD_X4", "Wan21"])
def test_latents_come_back_from_the_samplers_scale(kind):
    latents = getattr(comfy.latent_formats, kind)()
    shape = (1, latents.latent_channels, *(2,) * latents.latent_dimensions)
    latent = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(latents.process_out(latents.process_in(latent)), latent, atol=1e-5)


def test_latents_of_flux_and_wan_are_moved_before_they_are_scaled():
    assert comfy.latent_formats.Flux().process_in(torch.tensor([1.1159])).item() == pytest.approx(0.3611)
    wan = comfy.latent_formats.Wan21().process_in(torch.zeros(1, 16, 1, 1, 1))
    assert wan.flatten()[0].item() == pytest.approx(0.7571 / 2.8184) and wan.flatten()[-1].item() == pytest.approx(0.2921 / 1.916)


def test_tables_of_weight_names():
    assert comfy.utils.UNET_MAP_RESNET["in_layers.2.weight"] == "conv1.weight" and len(comfy.utils.UNET_MAP_RESNET) == 12
    assert "proj_in.bias" in comfy.utils.UNET_MAP_ATTENTIONS and len(comfy.utils.UNET_MAP_ATTENTIONS) == 6
    assert "attn2.to_k.weight" in comfy.utils.TRANSFORMER_BLOCKS and len(comfy.utils.TRANSFORMER_BLOCKS) == 20
    assert ("label_emb.0.2.bias", "add_embedding.linear_2.bias") in comfy.utils.UNET_MAP_BASIC and len(comfy.utils.UNET_MAP_BASIC) == 18


def test_an_activation_can_be_fused_before_a_layer():
    layer = torch.nn.Linear(2, 2)
    x = torch.tensor([[1.0, -1.0, 2.0, 3.0]])
    expected = layer(torch.nn.functional.silu(x[:, :2]) * x[:, 2:])
    assert comfy.ops.linear_input_act(layer, x, "swiglu").equal(expected)


def test_prepared_weights_that_are_given_back():
    layer = comfy.ops.manual_cast.Linear(1, 1, dtype=torch.float16)
    weight, bias, handle = comfy.ops.cast_bias_weight(layer, torch.zeros(1), offloadable=True)
    assert weight.dtype == bias.dtype == torch.float32
    assert comfy.ops.uncast_bias_weight(layer, weight, bias, handle) is None
