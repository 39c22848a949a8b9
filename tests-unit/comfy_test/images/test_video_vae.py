"""Autoencoders of Wan's kind: pictures as videos of one frame, videos frame by frame, tiles, names, refusals."""

import pytest
import torch
from wan_vae_files import wan22_vae_layout, wan_vae_file, wan_vae_tensors

import comfy.sd
from comfy.families.model_errors import ModelFileError
from comfy.images.wan_vae import CausalConvolution
from comfy_extras.core_vae import VAEDecode, VAEDecodeTiled, VAEEncode


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return comfy.sd.load_vae(wan_vae_file(tmp_path_factory.mktemp("wan") / "vae.safetensors"))


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def drawn(*shape, seed=3):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_picture_is_a_video_of_one_frame(vae):
    latent = vae.encode(drawn(1, 48, 32, 3))
    assert latent.shape == (1, 16, 1, 6, 4)
    picture = vae.decode(latent)
    assert picture.shape == (1, 1, 48, 32, 3) and picture.min() >= 0 and picture.max() <= 1
    assert torch.equal(VAEDecode().decode(vae, {"samples": latent})[0], picture[0])


def test_a_latent_without_a_dimension_of_frames_is_one_frame(vae):
    latent = vae.encode(drawn(1, 48, 32, 3))
    assert torch.equal(vae.decode(latent[:, :, 0]), vae.decode(latent))


def test_a_batch_of_pictures_is_one_video_and_comes_back_as_long(vae):
    latent = VAEEncode().encode(vae, drawn(9, 32, 32, 3))[0]["samples"]
    assert latent.shape == (1, 16, 3, 4, 4)
    assert VAEDecode().decode(vae, {"samples": latent})[0].shape == (9, 32, 32, 3)


def test_the_first_frame_knows_nothing_of_the_later_ones(vae):
    frames = drawn(5, 32, 32, 3)
    torch.testing.assert_close(vae.encode(frames)[:, :, :1], vae.encode(frames[:1]), rtol=1e-4, atol=1e-5)
    latent = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(vae.decode(latent)[:, :1], vae.decode(latent[:, :, :1]), rtol=1e-4, atol=1e-5)


def test_frames_that_fill_no_latent_one_are_left_out(vae):
    frames = drawn(8, 32, 32, 3)
    assert torch.equal(vae.encode(frames), vae.encode(frames[:5]))


def test_the_short_way_for_one_frame_is_the_long_one(vae):
    layer = next(one for one in vae.first_stage_model.modules() if isinstance(one, CausalConvolution) and one.kernel_size[0] == 3)
    x = torch.randn(2, layer.in_channels, 1, 6, 5)
    long_way = super(CausalConvolution, layer).forward(x)
    torch.testing.assert_close(layer(x), long_way, rtol=1e-5, atol=1e-6)


def test_one_tile_is_the_whole(vae):
    latent = vae.encode(drawn(1, 64, 64, 3))
    tiled = vae.decode_tiled(latent, tile_x=64, tile_y=64, overlap=16, tile_t=16, overlap_t=4)
    torch.testing.assert_close(tiled, vae.decode(latent), rtol=1e-4, atol=1e-5)
    again = vae.encode_tiled(drawn(1, 64, 64, 3), tile_x=512, tile_y=512, overlap=64, tile_t=64, overlap_t=8)
    torch.testing.assert_close(again, latent, rtol=1e-4, atol=1e-5)


def test_many_tiles_cover_pictures_and_videos(vae):
    latent = torch.randn(1, 16, 1, 24, 16, generator=torch.Generator().manual_seed(2))
    assert VAEDecodeTiled().decode(vae, {"samples": latent}, 64, 16)[0].shape == (1, 192, 128, 3)
    video = vae.decode_tiled(torch.randn(1, 16, 5, 8, 8), tile_x=8, tile_y=8, overlap=2, tile_t=3, overlap_t=1)
    assert video.shape == (1, 17, 64, 64, 3) and video.isfinite().all()
    assert vae.encode_tiled(drawn(9, 64, 64, 3), tile_x=32, tile_y=32, overlap=8, tile_t=5, overlap_t=1).shape == (1, 16, 3, 8, 8)


def test_running_out_of_memory_falls_back_to_tiles(vae, monkeypatch, caplog):
    latent = vae.encode(drawn(1, 64, 64, 3))
    expected, original = vae.decode(latent), vae.first_stage_model.decode
    failures = iter([True])

    def short_of_memory(z):
        if next(failures, False):
            raise comfy.model_management.OOM_EXCEPTION("no memory")
        return original(z)

    monkeypatch.setattr(vae.first_stage_model, "decode", short_of_memory)
    torch.testing.assert_close(vae.decode(latent), expected, rtol=1e-3, atol=1e-3)
    assert "tiles" in caplog.text


def test_pictures_with_transparency_are_completed_as_opaque(tmp_path):
    layered = comfy.sd.load_vae(wan_vae_file(tmp_path / "layered.safetensors", channels=4))
    picture = drawn(1, 32, 32, 3)
    opaque = torch.cat([picture, torch.ones(1, 32, 32, 1)], dim=-1)
    latent = layered.encode(picture)
    assert torch.equal(latent, layered.encode(opaque))
    assert layered.decode(latent).shape == (1, 1, 32, 32, 4)


def test_weights_go_by_their_published_names_and_are_not_copied(vae):
    original, saved = wan_vae_tensors(), vae.get_sd()
    assert original.keys() == saved.keys() == set(vae.patcher.model_state_dict())
    assert all(torch.equal(original[name], tensor) for name, tensor in saved.items())


def test_a_file_in_diffusers_names_is_the_same_model(vae):
    named = {name: value.clone() for name, value in vae.first_stage_model.named_parameters()}
    other = comfy.sd.VAE(named)
    latent = vae.encode(drawn(1, 32, 32, 3))
    assert torch.equal(other.decode(latent), vae.decode(latent))


def test_lengths_are_reported_per_dimension(vae):
    assert (vae.spacial_compression_decode(), vae.spacial_compression_encode(), vae.temporal_compression_decode()) == (8, 8, 4)
    assert vae.memory_used_decode((1, 16, 9, 8, 8), torch.float32) > vae.memory_used_decode((1, 16, 1, 8, 8), torch.float32) > 0


@pytest.mark.parametrize(
    "change", [lambda tensors: tensors.pop("decoder.head.2.bias"), lambda tensors: tensors.pop("decoder.head.0.gamma")]
)
def test_a_damaged_file_is_one_error(change):
    tensors = wan_vae_tensors()
    change(tensors)
    with pytest.raises(ModelFileError, match="the VAE"):
        comfy.sd.VAE(tensors)


@pytest.fixture(scope="module")
def vae22():
    return comfy.sd.VAE(wan_vae_tensors(layout=wan22_vae_layout))


def test_wan_2_2_divides_sides_by_sixteen(vae22):
    latent = vae22.encode(drawn(9, 68, 96, 4))
    assert latent.shape == (1, 48, 3, 4, 6) and vae22.latent_channels == 48
    video = vae22.decode(latent)
    assert video.shape == (1, 9, 64, 96, 3) and video.min() >= 0 and video.max() <= 1
    assert (vae22.spacial_compression_decode(), vae22.spacial_compression_encode(), vae22.temporal_compression_decode()) == (16, 16, 4)
    assert vae22.memory_used_decode((1, 48, 9, 8, 8), torch.float32) > vae22.memory_used_encode((1, 3, 9, 128, 128), torch.float32) > 0


def test_wan_2_2_first_frame_knows_nothing_of_the_later_ones(vae22):
    frames = drawn(5, 32, 32, 3)
    torch.testing.assert_close(vae22.encode(frames)[:, :, :1], vae22.encode(frames[:1]), rtol=1e-4, atol=1e-5)
    latent = torch.randn(1, 48, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(vae22.decode(latent)[:, :1], vae22.decode(latent[:, :, :1]), rtol=1e-4, atol=1e-5)


def test_wan_2_2_in_tiles_of_space_and_time(vae22):
    latent = torch.randn(1, 48, 5, 4, 6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(vae22.decode_tiled(latent, tile_x=64, tile_y=64, overlap=16), vae22.decode(latent), rtol=1e-4, atol=1e-5)
    tiled = vae22.decode_tiled(latent, tile_x=4, tile_y=4, overlap=1, tile_t=3, overlap_t=1)
    assert tiled.shape == (1, 17, 64, 96, 3) and tiled.isfinite().all()
    assert vae22.encode_tiled(drawn(9, 64, 96, 3), tile_x=64, tile_y=64, overlap=16, tile_t=5, overlap_t=1).shape == (1, 48, 3, 4, 6)


def test_wan_2_2_goes_by_its_published_names_and_diffusers(vae22):
    original, saved = wan_vae_tensors(layout=wan22_vae_layout), vae22.get_sd()
    assert original.keys() == saved.keys() and all(torch.equal(original[name], tensor) for name, tensor in saved.items())
    other = comfy.sd.VAE({name: value.clone() for name, value in vae22.first_stage_model.named_parameters()})
    latent = vae22.encode(drawn(1, 32, 32, 3))
    assert torch.equal(other.decode(latent), vae22.decode(latent))


@pytest.mark.parametrize("name", ["decoder.upsamples.1.upsamples.3.time_conv.bias", "encoder.downsamples.0.downsamples.0.residual.0.gamma"])
def test_a_damaged_file_of_wan_2_2_is_one_error(name):
    tensors = wan_vae_tensors(layout=wan22_vae_layout)
    del tensors[name]
    with pytest.raises(ModelFileError, match="the VAE"):
        comfy.sd.VAE(tensors)
