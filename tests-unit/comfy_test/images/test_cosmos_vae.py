"""Cosmos 1's autoencoder: sizes, diffusers' network and names, Haar's transform, tiles, memory."""

import pytest
import torch
from cosmos_files import cosmos_vae_file, cosmos_vae_tensors

import comfy.sd
from comfy.families.model_errors import ModelFileError
from comfy.images.cosmos_vae import CosmosAutoencoder, HaarTransform, InverseHaarTransform, diffusers_name


@pytest.fixture(scope="module")
def vae():
    return comfy.sd.VAE(cosmos_vae_tensors())


@pytest.fixture(scope="module")
def twin():
    from diffusers import AutoencoderKLCosmos

    built = AutoencoderKLCosmos(encoder_block_out_channels=(8, 16, 32, 32), decode_block_out_channels=(16, 32, 32, 32)).eval()
    values = {
        diffusers_name(name): value for name, value in cosmos_vae_tensors().items() if "wavelets" not in name and "latent_" not in name
    }
    built.load_state_dict(values)
    return built


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def drawn(*shape, seed=3):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("frames", "latent_frames"), [(1, 1), (9, 2), (17, 3)])
def test_eight_frames_make_a_latent_one_but_for_the_first(vae, frames, latent_frames):
    latent = vae.encode(drawn(frames, 20, 32, 3))
    assert type(vae.first_stage_model) is CosmosAutoencoder and latent.shape == (1, 16, latent_frames, 2, 4)
    video = vae.decode(latent)
    assert video.shape == (1, 8 * latent_frames - 7, 16, 32, 3) and video.min() >= 0 and video.max() <= 1
    assert (vae.spacial_compression_decode(), vae.temporal_compression_decode()) == (8, 8)


def statistics(frames):
    values = cosmos_vae_tensors()
    return (values[name].view(1, 16, 16, 1, 1)[:, :, torch.arange(frames) % 16] for name in ("latent_mean", "latent_std"))


def test_videos_and_latents_are_diffusers(vae, twin):
    for frames in (1, 9, 12):
        video = drawn(frames, 32, 48, 3)
        expected = twin.encode(video.movedim(-1, 0)[None] * 2 - 1).latent_dist.mode()
        mean, deviation = statistics(expected.shape[2])
        torch.testing.assert_close(vae.encode(video), (expected - mean) / deviation * 0.5, rtol=1e-3, atol=1e-4)
    latent = torch.randn(1, 16, 17, 2, 3, generator=torch.Generator().manual_seed(1))
    mean, deviation = statistics(17)
    decoded = (twin.decode(latent * 2 * deviation + mean).sample.clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(vae.decode(latent), decoded.movedim(1, -1), rtol=1e-3, atol=1e-3)


def test_files_in_diffusers_names_are_scaled_as_diffusers_says(twin):
    again = comfy.sd.VAE(dict(twin.state_dict()))
    latent = torch.randn(1, 16, 2, 2, 3, generator=torch.Generator().manual_seed(1))
    mean, deviation = (
        torch.tensor(values).view(1, 16, 16, 1, 1)[:, :, :2] for values in (twin.config.latents_mean, twin.config.latents_std)
    )
    decoded = (twin.decode(latent * 2 * deviation + mean).sample.clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(again.decode(latent), decoded.movedim(1, -1), rtol=1e-3, atol=1e-3)
    assert again.get_sd().keys() == twin.state_dict().keys()


def test_haars_transform_is_diffusers_and_its_inverse_undoes_it():
    from diffusers.models.autoencoders.autoencoder_kl_cosmos import CosmosPatchEmbed3d, CosmosUnpatcher3d

    for frames, size in ((9, (8, 12)), (6, (8, 8)), (1, (4, 4))):
        x = torch.randn(2, 3, frames, *size, generator=torch.Generator().manual_seed(frames))
        made = HaarTransform()(x)
        torch.testing.assert_close(made, CosmosPatchEmbed3d(4)(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(InverseHaarTransform()(made), CosmosUnpatcher3d(4)(made), rtol=1e-4, atol=1e-5)
        if frames % 4 == 1:
            torch.testing.assert_close(InverseHaarTransform()(made), x, rtol=1e-4, atol=1e-5)


def test_tiles_of_space_and_time_cover_videos(vae):
    latent = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(vae.decode_tiled(latent, tile_x=64, tile_y=64, overlap=16), vae.decode(latent), rtol=1e-4, atol=1e-5)
    tiled = vae.decode_tiled(latent, tile_x=4, tile_y=4, overlap=1, tile_t=2, overlap_t=1)
    assert tiled.shape == (1, 17, 32, 48, 3) and tiled.isfinite().all()
    video = drawn(17, 32, 48, 3)
    assert vae.encode_tiled(video, tile_x=32, tile_y=32, overlap=8, tile_t=9, overlap_t=8).shape == (1, 16, 3, 4, 6)


def test_weights_go_by_their_published_names_and_memory_is_comfyuis(tmp_path, vae, caplog):
    original, saved = cosmos_vae_tensors(), vae.get_sd()
    assert saved.keys() == {name for name in original if "wavelets" not in name}
    assert all(torch.equal(original[name], value) for name, value in saved.items())
    assert vae.memory_used_decode((1, 16, 9, 8, 8), torch.float32) == 50 * 9 * 64 * 512 * 4
    assert vae.memory_used_encode((1, 3, 9, 64, 64), torch.float32) == 50 * 16 * 64 * 64 * 4
    assert vae.working_dtypes == [torch.bfloat16, torch.float32]
    comfy.sd.VAE(comfy.utils.load_torch_file(cosmos_vae_file(tmp_path / "vae.safetensors")))
    assert "not used" not in caplog.text


def test_a_damaged_file_or_another_of_the_kind_is_one_error():
    tensors = cosmos_vae_tensors()
    del tensors["decoder.up.1.upsample.conv1.conv3d.bias"]
    with pytest.raises(ModelFileError, match="the VAE"):
        comfy.sd.VAE(tensors)
    other = {**cosmos_vae_tensors(), "decoder.conv_in.0.conv3d.weight": torch.zeros(32, 4, 1, 3, 3)}
    with pytest.raises(ModelFileError, match="latents have 4 channels; supported: 16"):
        comfy.sd.VAE(other)
