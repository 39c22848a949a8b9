"""LTX 2.5's video autoencoder: sizes, what it attends to, what files without metadata are."""

import pytest
import torch
from ltx_files import diffusion_vae_metadata, diffusion_vae_tensors

import comfy.sd
from comfy.families.model_errors import IncompleteModelError
from comfy.families.weight_source import StateDictSource
from comfy.images import ltx_diffusion_vae as later
from comfy.quantisation import kitchen


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def vae():
    return comfy.sd.VAE(sd=diffusion_vae_tensors(), metadata=diffusion_vae_metadata(), dtype=torch.float32)


def test_videos_become_latents_of_an_eighth_of_their_frames(vae):
    latent = vae.encode(torch.rand(12, 70, 100, 3))
    assert latent.shape == (1, 128, 2, 2, 3) and vae.decode(latent).shape == (1, 9, 64, 96, 3)
    assert vae.temporal_compression_decode() == 8 and vae.spacial_compression_decode() == 32
    assert torch.equal(vae.decode(latent), vae.decode(latent))
    parts = vae.first_stage_model.weight_names["decoder.det_stages.0.0.attn.qkv.weight"]
    assert [part.parameter.rpartition("attn.")[2] for part in parts] == ["to_q.weight", "to_k.weight", "to_v.weight"]


@pytest.mark.parametrize("kernel", [[3, 3, 3], [4, 2, 5], [5, 6, 7]])
def test_neighbourhoods_are_those_of_a_mask(kernel):
    query, key, value = (torch.randn(2, 5, 6, 7, 2, 8) for _ in range(3))
    first = [(torch.arange(length) - size // 2).clamp(0, length - size) for size, length in zip(kernel, (5, 6, 7))]
    near = [(torch.arange(len(at)) >= at[:, None]) & (torch.arange(len(at)) < at[:, None] + size) for at, size in zip(first, kernel)]
    mask = torch.kron(near[0].int(), torch.kron(near[1].int(), near[2].int())).bool()
    flat = (part.flatten(1, 3).transpose(1, 2) for part in (query, key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(*flat, attn_mask=mask, scale=0.5).transpose(1, 2).view_as(query)
    assert torch.allclose(later.neighbourhood_attention(query, key, value, kernel, 0.5), expected, atol=1e-5)
    if kitchen.is_installed():
        assert torch.allclose(kitchen.neighbourhood_attention()(query, key, value, kernel, scale=0.5), expected, atol=1e-5)


def test_a_video_smaller_than_a_neighbourhood_is_attended_to_whole(vae, monkeypatch):
    monkeypatch.setattr(kitchen, "neighbourhood_attention", lambda: None)
    latent = torch.randn(1, 128, 1, 1, 1)
    alone = vae.first_stage_model.decode(latent)
    monkeypatch.undo()
    assert alone.shape == (1, 3, 1, 32, 32) and torch.allclose(alone, vae.first_stage_model.decode(latent), atol=1e-4)


def test_published_sizes_are_those_of_files_without_metadata():
    config = later.read_diffusion_vae_config(StateDictSource({}))
    model = later.DiffusionAutoencoder(config)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert shapes["decoder.conv_in.weight"] == (2048, 128) and shapes["decoder.conv_out.weight"] == (48, 256)
    assert shapes["encoder.conv_out.conv.weight"][0] == 129


def test_a_missing_tensor_is_named():
    tensors = diffusion_vae_tensors()
    del tensors["decoder.det_stages.0.0.attn.qkv.bias"]
    with pytest.raises(IncompleteModelError, match=r"det_stages\.0\.0\.attn\.to_k\.bias"):
        comfy.sd.VAE(sd=tensors, metadata=diffusion_vae_metadata(), dtype=torch.float32)
