"""The autoencoder of Stable Audio and ACE-Step 1.5: its files, against diffusers' network, and as the VAE that nodes use."""

import pytest
import torch
from diffusers import AutoencoderOobleck
from sound_files import oobleck_tensors

import comfy.sd
from comfy.audio import oobleck
from comfy.families.model_errors import IncompleteModelError, UnknownModelError
from comfy.images.tiled_sounds import TiledSounds

SMALL = {
    "rate_hz": 44100,
    "width": 8,
    "latent": 4,
}  # diffusers takes for granted that latents have half as many channels as the first layer


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def theirs():
    """diffusers' network with the weights of the small file."""
    made = AutoencoderOobleck(8, [2, 4, 4, 8, 8], [1, 2, 4, 8, 16], 8, 4)
    tensors = oobleck_tensors(**SMALL)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    named = {oobleck.diffusers_name(name, shapes): value for name, value in tensors.items()}
    made.load_state_dict({name: value.view(1, -1, 1) if name.endswith(("alpha", "beta")) else value for name, value in named.items()})
    return made


@pytest.mark.parametrize("old_names", [True, False])
def test_sounds_and_latents_are_diffusers(theirs, old_names):
    vae = comfy.sd.VAE(oobleck_tensors(old_names=old_names, **SMALL))
    sound, latent = 0.3 * numbers(1, 2, 4096 * 3), numbers(2, 4, 5)
    decoded = theirs.decode(latent).sample
    assert decoded.std() > 0.01 and torch.allclose(vae.decode(latent), decoded.movedim(1, -1), atol=1e-6)
    torch.manual_seed(3)
    encoded = vae.encode(sound.movedim(1, -1))
    torch.manual_seed(3)
    assert torch.allclose(encoded, theirs.encode(sound).latent_dist.sample(), atol=1e-6)


def test_the_rate_and_the_ratio_are_told_by_the_strides():
    made = {rate: comfy.sd.VAE(oobleck_tensors(rate_hz=rate, latent=4)) for rate in (44100, 48000)}
    assert {rate: (vae.audio_sample_rate, vae.downscale_ratio, vae.upscale_ratio) for rate, vae in made.items()} == {
        44100: (44100, 2048, 2048),
        48000: (48000, 1920, 1920),
    }
    vae = made[48000]
    assert (vae.latent_dim, vae.latent_channels, vae.output_channels, vae.disable_offload) == (1, 4, 2, True)
    assert isinstance(vae, TiledSounds) and vae.memory_used_decode((1, 4, 10), torch.float32) == 1000 * 10 * 2048 * 4
    assert vae.memory_used_encode((1, 2, 500), torch.float32) == 1000 * 500 * 4


def test_its_weights_have_the_published_names():
    for old_names in (True, False):
        tensors = oobleck_tensors(latent=4, old_names=old_names)
        saved = comfy.sd.VAE(dict(tensors)).get_sd()
        assert saved.keys() == tensors.keys() and all(torch.equal(saved[name], value) for name, value in tensors.items())


def test_one_channel_becomes_two_and_the_ends_are_cut():
    vae = comfy.sd.VAE(oobleck_tensors(latent=4))
    sound = 0.2 * numbers(1, 1920 * 4 + 101, 1)
    torch.manual_seed(1)
    alone = vae.encode(sound)
    torch.manual_seed(1)
    assert torch.equal(alone, vae.encode(sound[:, 50:-51].expand(-1, -1, 2))) and alone.shape == (1, 4, 4)


def test_pieces_make_what_the_whole_makes():
    vae = comfy.sd.VAE(oobleck_tensors(latent=4))
    latent = numbers(2, 4, 40)
    whole, pieces = vae.decode(latent), vae.decode_tiled(latent, tile_x=24, tile_y=24, overlap=12)
    assert whole.shape == pieces.shape == (2, 40 * 1920, 2) and not torch.equal(whole, pieces)
    assert (whole - pieces).norm() < 0.05 * whole.norm()
    encoded = vae.encode_tiled(0.2 * numbers(1, 40 * 1920, 2), tile_x=24 * 1920, overlap=12 * 1920)
    assert encoded.shape == (1, 4, 40) and encoded.isfinite().all()


def test_halves_that_do_not_mirror_each_other_are_refused():
    tensors = oobleck_tensors(latent=4)
    name = "decoder.layers.1.layers.1.weight_v"
    tensors[name] = tensors[name][..., :-2].clone()
    with pytest.raises(UnknownModelError, match="different strides"):
        comfy.sd.VAE(tensors)


def test_missing_tensors_are_named():
    tensors = oobleck_tensors(latent=4)
    del tensors["decoder.layers.2.layers.3.layers.1.weight_g"]
    with pytest.raises(IncompleteModelError, match=r"decoder\.block\.1\.res_unit2\.conv1\.weight_g"):
        comfy.sd.VAE(tensors)
