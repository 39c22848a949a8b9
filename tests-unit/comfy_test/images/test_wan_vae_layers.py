"""Wan's networks compute what diffusers' own do, with less memory: a few frames at a time, no copy that nothing needs."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanResidualBlock
from wan_vae_files import wan22_vae_layout, wan_vae_file

import comfy.sd
from comfy.images.wan_vae import FRAMES_AT_ONCE, CausalConvolution, Norm, ResidualBlock


@pytest.fixture(scope="module", params=["2.1", "2.2"])
def network(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("wan") / "vae.safetensors"
    return comfy.sd.load_vae(wan_vae_file(path, **({} if request.param == "2.1" else {"layout": wan22_vae_layout}))).first_stage_model


@pytest.fixture(scope="module")
def twin(network):
    """diffusers' own network with the same weights."""
    config = network.config
    patch = 2 if config.is_residual else 1
    built = AutoencoderKLWan(
        base_dim=config.width,
        decoder_base_dim=config.decoder_width,
        z_dim=config.latent_channels,
        in_channels=config.image_channels * patch**2,
        out_channels=config.output_channels * patch**2,
        patch_size=patch if config.is_residual else None,
        is_residual=config.is_residual,
        latents_mean=[0.0] * config.latent_channels,
        latents_std=[1.0] * config.latent_channels,
    ).eval()
    assert not built.load_state_dict(network.state_dict()).missing_keys
    return built


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_videos_are_those_of_diffusers(network, twin, frames):
    latent = torch.randn(1, network.config.latent_channels, frames, 4, 4, generator=torch.Generator().manual_seed(frames))
    with torch.inference_mode():
        video = network.decode(latent)
        torch.testing.assert_close(video.clamp(-1, 1), twin.decode(latent).sample, rtol=1e-4, atol=1e-5)
        video = torch.randn(1, network.config.image_channels, 4 * frames - 3, 32, 32, generator=torch.Generator().manual_seed(frames))
        torch.testing.assert_close(network.encode(video), twin.encode(video).latent_dist.mean, rtol=1e-4, atol=1e-5)


def test_few_frames_go_through_the_last_levels_together(network):
    seen = []
    handle = network.decoder.norm_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2]))
    with torch.inference_mode():
        network.decode(torch.randn(1, network.config.latent_channels, 3, 4, 4))
    handle.remove()
    assert seen == [1] + 4 * [FRAMES_AT_ONCE]


def test_all_blocks_are_of_the_kind_that_keeps_little(network):
    assert not [name for name, layer in network.named_modules() if type(layer) is WanResidualBlock]
    assert any(isinstance(layer, ResidualBlock) for layer in network.modules())


def test_a_convolution_remembers_the_last_frames_whatever_comes_at_once():
    generator = torch.Generator().manual_seed(1)
    layer = CausalConvolution(3, 5, 3, padding=1).eval().requires_grad_(False)
    x = torch.randn(1, 3, 7, 6, 5, generator=generator)
    whole = layer(x)
    for sizes in ([1, 1, 1, 4], [2, 2, 2, 1], [1, 2, 4], [4, 3], [7]):
        cache = [None, None]
        parts = []
        for part in x.split(sizes, dim=2):
            index = [1]
            parts.append(layer.remembering(part, cache, index))
            assert index == [2] and cache[0] is None
        torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.remembering(x, None, [0]), whole)


def test_what_needs_a_gradient_has_one(network):
    block = next(layer for layer in network.decoder.modules() if isinstance(layer, ResidualBlock))
    x = torch.randn(1, block.in_dim, 2, 4, 4, requires_grad=True)
    block(x).square().mean().backward()
    assert x.grad is not None and x.grad.abs().max() > 0


@pytest.mark.parametrize("bias", [False, True])
def test_a_norm_may_have_a_bias(bias):
    norm = Norm(4, images=True, bias=bias).requires_grad_(False)
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    expected = super(Norm, norm).forward(x)
    assert torch.equal(norm(x), expected)
