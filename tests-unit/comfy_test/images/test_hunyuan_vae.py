"""HunyuanVideo 1.5's autoencoder: a few frames at a time, names, tiles, refusals."""

import pytest
import torch
from hunyuan_files import hunyuan_vae_tensors

import comfy.sd
from comfy.families.model_errors import ModelFileError
from comfy.images.hunyuan_vae import Carried


@pytest.fixture(scope="module")
def vae():
    return comfy.sd.VAE(hunyuan_vae_tensors())


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def drawn(*shape, seed=3):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("frames", "latent_frames"), [(1, 1), (4, 1), (5, 2), (13, 4)])
def test_four_frames_make_a_latent_one_but_for_the_first(vae, frames, latent_frames):
    latent = vae.encode(drawn(frames, 68, 96, 3))
    assert latent.shape == (1, 32, latent_frames, 4, 6)
    video = vae.decode(latent)
    assert video.shape == (1, 4 * latent_frames - 3, 64, 96, 3) and video.min() >= 0 and video.max() <= 1
    assert (vae.spacial_compression_decode(), vae.spacial_compression_encode(), vae.temporal_compression_decode()) == (16, 16, 4)


def test_how_many_frames_at_a_time_changes_nothing(vae, monkeypatch):
    frames, latent = drawn(17, 32, 48, 3), torch.randn(1, 32, 5, 2, 3, generator=torch.Generator().manual_seed(1))
    expected = vae.encode(frames), vae.decode(latent)
    monkeypatch.setattr("comfy.images.hunyuan_vae.FRAMES_READ", 64)
    monkeypatch.setattr("comfy.images.hunyuan_vae.FRAMES_WRITTEN", 64)
    torch.testing.assert_close(vae.encode(frames), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vae.decode(latent), expected[1], rtol=1e-4, atol=1e-5)


def test_nothing_of_a_video_is_kept_afterwards_even_if_it_fails(vae, monkeypatch):
    carried = [layer for layer in vae.first_stage_model.modules() if isinstance(layer, Carried)]
    vae.decode(torch.randn(1, 32, 3, 2, 3))
    assert carried and all(layer.before is None and not layer.carries for layer in carried)

    def fails(x):
        raise RuntimeError("no memory")

    block = vae.first_stage_model.decoder.up_blocks[-1]
    monkeypatch.setattr(block, "forward", fails)
    with pytest.raises(RuntimeError, match="no memory"):
        vae.first_stage_model.decode(torch.randn(1, 32, 3, 2, 3))
    assert all(layer.before is None for layer in carried)


def test_tiles_of_space_and_time_cover_videos(vae):
    latent = torch.randn(1, 32, 5, 4, 6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(vae.decode_tiled(latent, tile_x=64, tile_y=64, overlap=16), vae.decode(latent), rtol=1e-4, atol=1e-5)
    tiled = vae.decode_tiled(latent, tile_x=4, tile_y=4, overlap=1, tile_t=3, overlap_t=1)
    assert tiled.shape == (1, 17, 64, 96, 3) and tiled.isfinite().all()
    assert vae.encode_tiled(drawn(9, 64, 96, 3), tile_x=64, tile_y=64, overlap=16, tile_t=5, overlap_t=1).shape == (1, 32, 3, 4, 6)


def test_weights_go_by_their_published_names_and_are_not_copied(vae):
    original, saved = hunyuan_vae_tensors(), vae.get_sd()
    assert original.keys() == saved.keys() and all(torch.equal(original[name], tensor) for name, tensor in saved.items())
    assert vae.memory_used_decode((1, 32, 9, 8, 8), torch.float32) > vae.memory_used_encode((1, 3, 9, 128, 128), torch.float32) > 0


@pytest.mark.parametrize("name", ["decoder.up.1.upsample.conv.conv.bias", "encoder.down.0.block.0.norm1.gamma"])
def test_a_damaged_file_is_one_error(name):
    tensors = hunyuan_vae_tensors()
    del tensors[name]
    with pytest.raises(ModelFileError, match="the VAE"):
        comfy.sd.VAE(tensors)


def test_others_of_the_kind_are_refused_by_their_sizes():
    tensors = hunyuan_vae_tensors()
    tensors["decoder.conv_in.conv.weight"] = torch.zeros(64, 64, 3, 3, 3)
    with pytest.raises(ModelFileError, match="latents of 64 channels"):
        comfy.sd.VAE(tensors)
