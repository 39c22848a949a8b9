"""Stable Audio 3's autoencoders: which of both a file is, windows, chunks, noise, sounds of one side."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from stable_audio3_files import DEPTHS, LATENT, stable_audio3_vae_layout, stable_audio3_vae_tensors

import comfy.ops
import comfy.sd
from comfy.audio.stable_audio3 import Sizes, read_sizes
from comfy.families.model_errors import UnknownModelError
from comfy.ldm.audio.vae_sa3 import Attention, PatchedPretransform, SA3AudioVAE

PLACE = 4096  # samples


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=DEPTHS)
def vae(request):
    return comfy.sd.VAE(sd=stable_audio3_vae_tensors(request.param)), request.param


def decoded(vae, latent):
    torch.manual_seed(3)
    return vae.decode(latent)


def test_files_tell_which_they_are():
    assert read_sizes(stable_audio3_vae_layout("large", 16)) == Sizes(16, 12, 1)
    assert read_sizes(stable_audio3_vae_layout("small", 8)) == Sizes(8, 6, 3)
    shorter = {name: shape for name, shape in stable_audio3_vae_layout("small").items() if ".5." not in name}
    with pytest.raises(UnknownModelError, match="5 blocks"):
        read_sizes(shorter)


def test_sounds_become_places_of_4096_samples(vae):
    vae, kind = vae
    assert (vae.audio_sample_rate, vae.latent_channels, vae.upscale_ratio, vae.downscale_ratio) == (44100, LATENT, PLACE, PLACE)
    latent = vae.encode(0.2 * numbers(1, 4 * PLACE, 2))
    assert latent.shape == (1, LATENT, 4)
    assert decoded(vae, latent).shape == (1, 4 * PLACE, 2)
    assert decoded(vae, latent[..., :3]).shape == (1, (3 if kind == "large" else 4) * PLACE, 2), "chunks are of two places"


def test_what_is_saved_is_what_was_read(vae):
    vae, kind = vae
    read, saved = stable_audio3_vae_tensors(kind), vae.get_sd()
    assert saved.keys() == {name for name, value in read.items() if value.numel()}
    assert all(torch.equal(value, read[name]) for name, value in saved.items())


def test_sounds_of_one_side_are_heard_on_both(vae):
    vae, _ = vae
    sound = 0.2 * numbers(1, 2 * PLACE, 1)
    assert torch.equal(vae.encode(sound), vae.encode(sound.expand(-1, -1, 2)))


def test_decoding_adds_a_little_noise(vae):
    vae, _ = vae
    latent = numbers(1, LATENT, 4)
    first, again = decoded(vae, latent), decoded(vae, latent)
    assert torch.equal(first, again), "by torch's own generator"
    other = vae.decode(latent)
    assert 0 < (other - first).norm() < 0.02 * first.norm()


def test_pieces_are_put_together(vae):
    vae, _ = vae
    latent = numbers(1, LATENT, 12)
    pieces = vae.decode_tiled(latent, tile_x=8, tile_y=8, overlap=2)
    assert pieces.shape == (1, 12 * PLACE, 2) and pieces.std() > 0.1


def test_small_ones_hear_no_farther_than_their_chunks():
    vae = comfy.sd.VAE(sd=stable_audio3_vae_tensors("small"))
    latent = numbers(1, LATENT, 12)
    other = latent.clone()
    other[..., 8:] += 1.0
    same = (decoded(vae, latent) - decoded(vae, other)).abs().amax(dim=(0, 2)) == 0
    changed = (~same).nonzero().min().item()
    assert 6 * PLACE <= changed < 8 * PLACE, "chunks of two places, and later ones that begin in the middle"


@pytest.mark.parametrize("count", [1, 7, 18, 30, 61])
def test_windows_are_a_mask_over_all(count):
    windowed = Attention(128, window=3, operations=comfy.ops.disable_weight_init)
    queries, keys, values = (numbers(2, 2, count, 64, seed=seed) for seed in range(3))
    places = torch.arange(count)
    mask = (places[:, None] - places).abs() <= 3
    expected = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(1, 2).flatten(2)
    found = windowed.compute(queries, keys, values, {})
    assert found.shape == expected.shape and torch.allclose(found, expected, atol=1e-5)


def test_samples_are_channels_of_places():
    pretransform, sound = PatchedPretransform(), numbers(2, 2, 600)
    places = pretransform.encode(sound)
    assert places.shape == (2, 512, 3) and torch.equal(places[1, 256 + 5, 1], sound[1, 1, 256 + 5])
    back = pretransform.decode(places)
    assert torch.equal(back[..., :600], sound) and back[..., 600:].abs().max() == 0


def test_it_works_in_fewer_bits(vae):
    _, kind = vae
    half = comfy.sd.VAE(sd=stable_audio3_vae_tensors(kind), dtype=torch.bfloat16)
    latent = numbers(1, LATENT, 4)
    found, expected = decoded(half, latent), decoded(vae[0], latent)
    assert found.dtype == torch.float32 and (found - expected).norm() < 0.1 * expected.norm()


def test_other_windows_are_refused():
    with pytest.raises(ValueError, match="windows of"):
        SA3AudioVAE(channels=32, sliding_window=[2, 2], operations=comfy.ops.disable_weight_init)
