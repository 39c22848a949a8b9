"""SeedVR2's autoencoder: its files, frames in parts, tiles that fade into each other."""

import pytest
import torch
from seedvr_files import WIDTHS, seedvr_vae_tensors

import comfy.sd
from comfy.families.model_errors import UnknownModelError
from comfy.images.faded_tiles import in_faded_tiles
from comfy.images.seedvr_vae import SCALE, SeedVRVaeConfig, decode_memory_bytes, encode_memory_bytes, read_seedvr_vae_config
from comfy.progress_bar import hook_state


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def vae():
    return comfy.sd.VAE(sd=seedvr_vae_tensors())


def video(frames, height=32, width=48):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(frames))


def test_sizes_are_read_off_the_file():
    shapes = {name: tuple(value.shape) for name, value in seedvr_vae_tensors().items()}
    assert read_seedvr_vae_config(shapes) == SeedVRVaeConfig(WIDTHS, (False, True, True), (True, True, False), 16)
    shapes["encoder.down_blocks.1.downsamplers.0.conv.weight"] = (32, 32, 1, 3, 3)
    with pytest.raises(UnknownModelError, match="1 make frames fewer"):
        read_seedvr_vae_config(shapes)


def test_what_is_saved_is_what_was_read(vae):
    read, saved = seedvr_vae_tensors(), vae.get_sd()
    assert saved.keys() == read.keys() and all(torch.equal(value, read[name]) for name, value in saved.items())


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (9, 3), (13, 4)])
def test_four_frames_are_one_of_a_latent(vae, frames, latents):
    latent = vae.encode(video(frames))
    assert latent.shape == (1, 16, latents, 4, 6)
    assert vae.decode(latent).shape == (1, frames, 32, 48, 3)


def test_parts_make_the_same_as_the_whole(vae):
    network, pixels = vae.first_stage_model, video(13).movedim(-1, 0)[None] * 2 - 1
    whole = network.encoder(pixels).chunk(2, dim=1)[0] * SCALE
    latent = network.encode(pixels)
    assert torch.allclose(latent, whole, atol=1e-5)
    assert torch.allclose(network.decode(latent), network.decoder(latent / SCALE), atol=1e-4)
    assert all(layer.before is None for layer in network.modules() if hasattr(layer, "before")), "nothing is kept"


def test_later_frames_change_nothing_of_earlier_ones(vae):
    longer = video(13)
    changed = longer.clone()
    changed[9:] = 0.0
    first, second = vae.encode(longer), vae.encode(changed)
    assert torch.equal(first[:, :, :3], second[:, :, :3]) and not torch.allclose(first[:, :, 3:], second[:, :, 3:])


def test_tiles_have_all_frames(vae):
    latent = vae.encode(video(9))
    tiled = vae.encode_tiled(video(9), tile_x=24, tile_y=32, overlap=8, tile_t=4, overlap_t=1)
    assert tiled.shape == latent.shape
    for first, end, own in ((0, 24, slice(0, 2)), (16, 40, slice(3, 4)), (32, 48, slice(5, 6))):  # what only one tile has
        alone = vae.encode(video(9)[:, :, first:end])
        assert torch.allclose(tiled[..., own], alone[..., own.start - first // 8 : own.stop - first // 8], atol=1e-5), first
    assert torch.allclose(vae.encode_tiled(video(9), tile_x=512, tile_y=512, overlap=64), latent)
    decoded = vae.decode_tiled(latent, tile_x=4, tile_y=3, overlap=1, tile_t=1)
    assert decoded.shape == (1, 9, 32, 48, 3) and decoded.min() >= 0.0 and decoded.max() <= 1.0
    assert torch.allclose(decoded[:, :, :16, :24], vae.decode(latent[..., :3, :4])[:, :, :16, :24], atol=1e-5)
    assert torch.allclose(decoded[:, :, 24:, 32:], vae.decode(latent[..., 2:, 3:])[:, :, 8:, 8:], atol=1e-5)
    assert torch.allclose(vae.decode_tiled(latent, tile_x=64, tile_y=64, overlap=16), vae.decode(latent))


@pytest.mark.parametrize("out_of", [(2, 1), (1, 1)])
def test_tiles_fade_into_each_other(out_of):
    pixels, calls = torch.rand(1, 2, 3, 20, 30, generator=torch.Generator().manual_seed(1)), []

    def run(tile):
        calls.append(tile.shape[3:])
        return tile.repeat_interleave(out_of[0], dim=3).repeat_interleave(out_of[0], dim=4)

    made = in_faded_tiles(pixels, run, (12, 14), (4, 6), out_of, torch.device("cpu"))
    assert torch.allclose(made, run(pixels), atol=1e-5)
    assert calls[:-1] == [(12, 14), (12, 14), (12, 14)] * 2 and made.shape == (1, 2, 3, 20 * out_of[0], 30 * out_of[0])


def test_tiles_tell_their_progress_and_can_be_cancelled(vae, monkeypatch):
    told, latent = [], vae.encode(video(1))

    def hook(value, total, preview, node_id=None):
        told.append((value, total))
        if value == 2:
            raise InterruptedError("cancelled")

    monkeypatch.setattr(hook_state, "hook", hook)
    monkeypatch.setattr("comfy.progress_bar.MIN_INTERVAL_S", 0.0)
    with pytest.raises(InterruptedError, match="cancelled"):
        vae.decode_tiled(latent, tile_x=4, tile_y=3, overlap=1)
    assert told == [(1, 4), (2, 4)]
    vae.decode_tiled(latent, tile_x=64, tile_y=64, overlap=1)
    assert told[2:] == [(1, 1)]


@pytest.mark.parametrize(
    ("shape", "megabytes"),  # measured: the published sizes, float32, on a CPU
    [
        ((1, 3, 1, 256, 256), 383),
        ((1, 3, 1, 384, 384), 848),
        ((1, 3, 5, 128, 128), 339),
        ((1, 3, 13, 128, 128), 338),
        ((1, 16, 1, 32, 32), 708),
        ((1, 16, 1, 48, 48), 1494),
        ((1, 16, 2, 32, 32), 2235),
        ((1, 16, 3, 16, 16), 577),
        ((1, 16, 5, 16, 16), 577),
    ],
)
def test_estimates_of_memory_cover_what_was_measured(shape, megabytes):
    estimate = encode_memory_bytes if shape[1] == 3 else decode_memory_bytes
    assert 1.05 * megabytes < estimate(shape, 4) / 1e6 < 1.25 * megabytes
    assert estimate(shape, 2) == estimate(shape, 4) / 2


def test_long_videos_take_little_more_memory_than_one_part():
    assert decode_memory_bytes((1, 16, 26, 16, 16), 2) < 1.1 * decode_memory_bytes((1, 16, 2, 16, 16), 2)
    assert encode_memory_bytes((1, 3, 101, 128, 128), 2) < 1.2 * encode_memory_bytes((1, 3, 5, 128, 128), 2)
    longer = encode_memory_bytes((1, 3, 8, 128, 128), 2) / encode_memory_bytes((1, 3, 5, 128, 128), 2)
    assert longer > 1.4, "where frames are left over, a part is longer"


def test_what_is_asked_for_tiles_is_the_memory_of_one(vae, monkeypatch):
    asked, latent = [], torch.zeros(1, 16, 2, 8, 12)
    monkeypatch.setattr(vae, "_load", asked.append)
    vae.decode_tiled(latent, tile_x=4, tile_y=3, overlap=1, tile_t=1)
    vae.encode_tiled(video(5, 64, 96), tile_x=48, tile_y=32, overlap=8)
    tiles = vae.memory_used_decode((1, 16, 2, 3, 4), torch.float32), vae.memory_used_encode((1, 3, 5, 32, 48), torch.float32)
    assert asked == list(tiles)


def test_it_is_loaded_whole_and_takes_any_sides(vae):
    pixels = video(1, 35, 51)
    assert vae.disable_offload and vae.encode(pixels).shape == (1, 16, 1, 4, 6)
    tiled = vae.encode_tiled(pixels, tile_x=32, tile_y=48, overlap=8)
    assert tiled.shape == (1, 16, 1, 4, 6)
    assert torch.allclose(tiled[..., :3], vae.encode(pixels[:, :, :32])[..., :3], atol=1e-5)
    assert torch.allclose(tiled[..., 4:], vae.encode(pixels[:, :, 24:])[..., 1:], atol=1e-5)


def test_of_two_tiles_each_counts_less_towards_the_other():
    pixels, number = torch.zeros(1, 1, 1, 4, 14), iter((0.0, 1.0))
    made = in_faded_tiles(pixels, lambda tile: tile + next(number), (4, 9), (0, 4), (1, 1), torch.device("cpu"))
    row = made[0, 0, 0, 0]
    assert row[:6].tolist() == [0.0] * 6 and row[8:].tolist() == [1.0] * 6
    assert row[6] == pytest.approx(0.25) and row[7] == pytest.approx(0.75)
