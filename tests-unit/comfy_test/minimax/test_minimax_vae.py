"""MiniMax H3's autoencoders, of videos and of sound: the same numbers as diffusers' give, lengths, tiles, and how nodes use them."""

import pytest
import torch
from minimax_vae_files import AUDIO_SIZES, VIDEO_SIZES, audio_vae_tensors, vae_tensors

import comfy.sd
from comfy.audio.minimax import MiniMaxAudioAutoencoder, read_minimax_audio_config
from comfy.families.model_errors import ModelFileError, UnknownModelError
from comfy.images import minimax_vae, seamed_tiles
from comfy.images.minimax_vae import MiniMaxAutoencoder, cells_of, frames_of, read_minimax_vae_config, whole_frames_of


def numbers(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shapes(tensors):
    return {name: tuple(value.shape) for name, value in tensors.items()}


def test_sizes_are_read_from_files():
    assert read_minimax_vae_config(shapes(vae_tensors())) == VIDEO_SIZES
    assert read_minimax_audio_config(shapes(audio_vae_tensors())) == AUDIO_SIZES and AUDIO_SIZES.ratio == 800
    with pytest.raises(ModelFileError, match="no multiple of 64"):
        read_minimax_vae_config(shapes(vae_tensors()) | {"decoder.x_embedder.weight": (65, 24)})
    with pytest.raises(UnknownModelError, match="kernels"):
        read_minimax_audio_config(shapes(audio_vae_tensors()) | {"decoder.ups.0.0.weight": (256, 128, 8)})


@pytest.mark.parametrize("frames, cells", [(5, 2), (22, 7), (39, 12)])
def test_whole_videos_have_whole_latents(frames, cells):
    assert frames_of(cells) == whole_frames_of(cells) == frames and cells_of(frames) == cells
    assert cells_of(1) == frames_of(1) == 1 and frames_of(3) == 9


def diffusers_vae(tensors):
    """diffusers' network with the same weights."""
    from diffusers.models.autoencoders.autoencoder_kl_minimax_h3 import AutoencoderKLMiniMaxH3

    built = AutoencoderKLMiniMaxH3(block_out_channels=(32,) * 6, decoder_num_layers=2, decoder_num_attention_heads=1).eval()
    state = {}
    for name, value in tensors.items():
        own = minimax_vae._own_name(name)
        for ours, theirs in (
            (".x_embedder.", ".proj_in."),
            (".to_out.", ".to_out.0."),
            (".ff.w1.", ".ff.net.0.proj."),
            (".ff.w2.", ".ff.net.2."),
        ):
            own = own.replace(ours, theirs)
        if ".to_qkv." in own:  # of one head, so that its parts are thirds
            state |= {own.replace("to_qkv", f"to_{letter}"): part for letter, part in zip("qkv", value.chunk(3))}
        elif ".ff.net.0." in own:
            state[own] = torch.cat(value.chunk(2)[::-1])
        elif not own.startswith("latents_") and own != "decoder.mask_token":
            state[own] = value
    missing, unexpected = built.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"decoder.mask_token"}
    return built


def test_videos_are_diffusers(monkeypatch):
    tensors = vae_tensors()
    vae, theirs = comfy.sd.VAE(sd=dict(tensors)), diffusers_vae(tensors)
    video = numbers(22, 48, 32, 3).sigmoid()
    means, deviations = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in minimax_vae.COLOURS)
    mean, deviation = (tensors[name].view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    with torch.inference_mode():
        colours = (video.movedim(-1, 0)[None] - means) / deviations
        expected = (theirs.encode(colours).latent_dist.mode() - mean) / deviation
        latent = vae.encode(video)
        torch.testing.assert_close(latent, expected, rtol=1e-3, atol=1e-4)
        shown = (theirs.decode(latent * deviation + mean).sample * deviations + means).clamp(0, 1)
        own = vae.decode(latent)
        torch.testing.assert_close(own, shown.movedim(1, -1), rtol=1e-3, atol=1e-4)
        assert own.shape == (1, 22, 48, 32, 3) and own.std() > 0.1
        assert torch.equal(vae.decode_tiled(latent, tile_x=4, tile_y=4), own) and torch.equal(vae.encode_tiled(video), latent)
        monkeypatch.setattr(seamed_tiles, "TILE", 2)
        monkeypatch.setattr(seamed_tiles, "TILE_SEAM", 1)
        in_tiles = vae.decode(latent)
    assert in_tiles.shape == own.shape and not torch.equal(in_tiles, own)


def test_tiles_cover_a_side_evenly():
    for cells in range(1, 70):
        tiles = seamed_tiles.tiles_along(cells)
        assert tiles[0][0] == 0 and tiles[-1][1] == 0
        for (start, seam), (after, _) in zip(tiles, tiles[1:]):
            assert seam >= seamed_tiles.TILE_SEAM and after == start + seamed_tiles.TILE - seam
        assert tiles[-1][0] + seamed_tiles.TILE == max(cells, seamed_tiles.TILE)


def test_a_single_picture_is_what_it_is_at_the_beginning_of_a_video():
    convolution = minimax_vae.CausalConvolution(2, 3, 3, spatial_padding=1, temporal_padding=2)
    picture = numbers(1, 2, 1, 6, 6)
    with torch.inference_mode():
        torch.testing.assert_close(convolution(picture), convolution(picture.expand(-1, -1, 2, -1, -1))[:, :, :1])


def test_files_without_the_latents_means_get_the_published_ones():
    tensors = {name: value for name, value in vae_tensors().items() if not name.startswith("latents_")}
    network = comfy.sd.VAE(sd=tensors).first_stage_model
    assert network.latents_mean[0] == pytest.approx(0.8580903) and len(network.latents_std) == 24


def test_sounds_are_diffusers():
    from diffusers.models.autoencoders.autoencoder_kl_minimax_h3_audio import AutoencoderKLMiniMaxH3Audio

    tensors = audio_vae_tensors()
    vae = comfy.sd.VAE(sd=dict(tensors))
    built = AutoencoderKLMiniMaxH3Audio(encoder_dim=2, latent_dim=256, decoder_dim=256).eval()
    for layer in built.modules():
        if hasattr(layer, "weight_g"):
            torch.nn.utils.remove_weight_norm(layer)
    built.load_state_dict({name: value for name, value in tensors.items() if not name.startswith("latents_")})
    sound = numbers(1, 1600, 2) * 0.2
    mean, deviation = (tensors[name][:, None] for name in ("latents_mean", "latents_std"))
    with torch.inference_mode():
        latent = vae.encode(sound)
        expected = (built.encode(sound.movedim(-1, 0)).latent_dist.mode() - mean) / deviation
        torch.testing.assert_close(latent, expected.transpose(0, 1)[None], rtol=1e-3, atol=1e-4)
        heard = vae.decode(latent)
        torch.testing.assert_close(
            heard, built.decode(latent[0].transpose(0, 1) * deviation + mean).sample[:, 0].T[None], rtol=1e-3, atol=1e-4
        )
    assert latent.shape == (1, 32, 2, 2) and heard.shape == (1, 1600, 2) and 0.001 < heard.std() < 0.9
    assert vae.audio_sample_rate == vae.first_stage_model.output_sample_rate == 32000


def test_memory_is_that_of_a_clip():
    short, long = (minimax_vae.decode_memory_bytes((1, 24, cells, 48, 84), 2) for cells in (12, 102))
    assert short == long
    assert minimax_vae.encode_memory_bytes((1, 3, 17, 64, 64), 2) == minimax_vae.encode_memory_bytes((1, 3, 170, 64, 64), 2)


def test_weights_have_the_published_names():
    tensors, audio = vae_tensors(), audio_vae_tensors()
    for given, kind in ((tensors, MiniMaxAutoencoder), (audio, MiniMaxAudioAutoencoder)):
        vae = comfy.sd.VAE(sd=dict(given))
        assert isinstance(vae.first_stage_model, kind) and vae.get_sd().keys() == given.keys()
