"""HunyuanVideo 1's autoencoder: a few frames at a time, names, tiles, refusals."""

import pytest
import torch
from hunyuan_files import first_vae_tensors

import comfy.sd
from comfy.families.model_errors import ModelFileError
from comfy.images.hunyuan_vae import Carried
from comfy.images.hunyuan_video_vae import HunyuanVideoAutoencoder, _diffusers_name


@pytest.fixture(scope="module")
def vae():
    return comfy.sd.VAE(first_vae_tensors())


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def drawn(*shape, seed=3):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("frames", "latent_frames"), [(1, 1), (4, 1), (9, 3)])
def test_four_frames_make_a_latent_one_but_for_the_first(vae, frames, latent_frames):
    latent = vae.encode(drawn(frames, 20, 32, 3))
    assert type(vae.first_stage_model) is HunyuanVideoAutoencoder and latent.shape == (1, 16, latent_frames, 2, 4)
    video = vae.decode(latent)
    assert video.shape == (1, 4 * latent_frames - 3, 16, 32, 3) and video.min() >= 0 and video.max() <= 1
    assert (vae.spacial_compression_decode(), vae.temporal_compression_decode()) == (8, 4)


def test_a_picture_is_what_diffusers_makes_of_it(vae):
    from diffusers import AutoencoderKLHunyuanVideo

    twin = AutoencoderKLHunyuanVideo(block_out_channels=(32, 32, 64, 64)).eval()
    values = {_diffusers_name(name): value for name, value in first_vae_tensors().items()}
    twin.load_state_dict({name: value.flatten(1) if ".attentions." in name and value.ndim > 2 else value for name, value in values.items()})
    picture, latent = drawn(1, 32, 48, 3), torch.randn(1, 16, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    expected = twin.encode(picture.movedim(-1, 1)[:, :, None] * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(vae.encode(picture), expected, rtol=1e-3, atol=1e-4)
    decoded = (twin.decode(latent).sample.clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(vae.decode(latent), decoded.movedim(1, -1), rtol=1e-3, atol=1e-3)


def test_files_in_diffusers_names_are_the_same_model(vae):
    renamed = {_diffusers_name(name): value for name, value in first_vae_tensors().items()}
    again = comfy.sd.VAE(renamed)
    own = dict(vae.first_stage_model.named_parameters())
    assert all(torch.equal(value, own[name]) for name, value in again.first_stage_model.named_parameters())


def test_nothing_of_a_video_is_kept_afterwards(vae):
    carried = [layer for layer in vae.first_stage_model.modules() if isinstance(layer, Carried)]
    vae.decode(torch.randn(1, 16, 3, 2, 3))
    assert carried and all(layer.before is None and not layer.carries for layer in carried)


def test_tiles_of_space_and_time_cover_videos(vae):
    latent = torch.randn(1, 16, 3, 2, 3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(vae.decode_tiled(latent, tile_x=64, tile_y=64, overlap=16), vae.decode(latent), rtol=1e-4, atol=1e-5)
    tiled = vae.decode_tiled(latent, tile_x=2, tile_y=2, overlap=0, tile_t=2, overlap_t=1)
    assert tiled.shape == (1, 9, 16, 24, 3) and tiled.isfinite().all()


def test_weights_go_by_their_published_names_and_are_not_copied(vae):
    original, saved = first_vae_tensors(), vae.get_sd()
    assert original.keys() == saved.keys() and all(torch.equal(original[name].flatten(), saved[name].flatten()) for name in saved)
    assert vae.memory_used_decode((1, 16, 9, 8, 8), torch.float32) > vae.memory_used_encode((1, 3, 9, 64, 64), torch.float32) > 0


def test_a_damaged_file_or_another_of_the_kind_is_one_error():
    tensors = first_vae_tensors()
    del tensors["decoder.up.1.upsample.conv.conv.bias"]
    with pytest.raises(ModelFileError, match="the VAE"):
        comfy.sd.VAE(tensors)
    with pytest.raises(ModelFileError, match="supported: 4 levels"):
        comfy.sd.VAE({name: value for name, value in first_vae_tensors().items() if not name.startswith("encoder.down.3.")})
