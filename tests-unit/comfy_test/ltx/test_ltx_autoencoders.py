"""LTX's autoencoders of videos and of sound: what files say of them, sizes, rates, errors, and what loads them."""

import json
import math

import pytest
import torch
from ltx_files import (
    SMALL_SOUND,
    UPSAMPLERS,
    VAE_KINDS,
    VOCODERS,
    ltx_checkpoint,
    ltx_sound_metadata,
    ltx_sound_tensors,
    ltx_upsampler_file,
    ltx_vae_metadata,
    ltx_vae_tensors,
)

import comfy.sd
from comfy.audio import ltx_vocoder
from comfy.audio.ltx import LtxAudioAutoencoder, LtxAudioConfig, own_name, read_ltx_audio_config
from comfy.audio.resampling import resampled
from comfy.families.model_errors import ModelFileError, UnknownModelError
from comfy.families.weight_source import StateDictSource
from comfy.images import ltx_vae, ltx_vae_halves, ltx_vae_layers
from comfy.images.ltx_vae import ENCODERS, LtxVaeConfig, read_ltx_vae_config
from comfy.images.ltx_vae_layers import blocks_of, down_block, up_block
from comfy.loading import audio_vae, latent_upscaler


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def video_vae(kind):
    return comfy.sd.VAE(sd=ltx_vae_tensors(kind), metadata=ltx_vae_metadata(kind), dtype=torch.float32)


@pytest.mark.parametrize("kind", VAE_KINDS)
def test_videos_become_latents_of_an_eighth_of_their_frames(kind):
    vae = video_vae(kind)
    latent = vae.encode(torch.rand(12, 70, 100, 3))
    assert latent.shape == (1, 128, 2, 2, 3) and vae.decode(latent).shape == (1, 9, 64, 96, 3)
    assert vae.encode(torch.rand(1, 32, 32, 3)).shape == (1, 128, 1, 1, 1)
    assert vae.temporal_compression_decode() == 8 and vae.spacial_compression_decode() == 32
    assert vae.downscale_index_formula == (8, 32, 32) and vae.latent_channels == 128
    statistics = vae.first_stage_model.per_channel_statistics
    assert torch.allclose(statistics.normalize(statistics.un_normalize(latent)), latent, atol=1e-5)


@pytest.mark.parametrize("kind", VAE_KINDS)
@pytest.mark.parametrize(("piece_bytes", "frames_read"), [(1, 1), (300_000, 3)])
def test_pieces_give_what_the_whole_gives(kind, piece_bytes, frames_read, monkeypatch):
    network = video_vae(kind).first_stage_model
    for name, parameter in network.named_parameters():
        if "per_channel_scale" in name:
            parameter.zero_()
    video, latent = torch.rand(1, 3, 33, 64, 64), torch.randn(1, 128, 5, 2, 2)
    whole = []
    for bytes_, frames in ((2**40, 10**6), (piece_bytes, frames_read)):
        monkeypatch.setattr(ltx_vae_layers, "PIECE_BYTES", bytes_)
        monkeypatch.setattr(ltx_vae, "FRAMES_READ", frames)
        torch.manual_seed(3)
        whole.append((network.encode(video), network.decode(latent)))
    assert whole[0][0].shape == (1, 128, 5, 2, 2) and whole[0][1].shape == (1, 3, 33, 64, 64)
    for once, in_pieces in zip(*whole):
        assert torch.allclose(once, in_pieces, atol=1e-5 * float(once.abs().max()))


def test_layers_that_are_through_keep_no_memory():
    network, streams = video_vae(next(iter(VAE_KINDS))).first_stage_model, []

    class Watched(ltx_vae_layers.Stream):
        def __init__(self):
            super().__init__()
            streams.append(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ltx_vae_halves, "Stream", Watched)
        for _ in network.decoder(torch.randn(1, 128, 2, 2, 3)):
            pass
    kept = [tensor.untyped_storage().nbytes() for tensor in streams[0]._kept.values()]
    assert len(kept) > 10 and sum(kept) == 0


def test_decoders_begin_as_wide_as_their_blocks_ask():
    wide = [("res_x", {}, 8), ("res_x_y", {}, 16), ("res_x_y", {"in_channels": 24}, 24), ("compress_all", {"multiplier": 4}, 32)]
    for name, settings, width in wide:
        assert ltx_vae_halves.widest_before(name, settings, 8) == width


def test_a_decoder_that_is_told_of_noise_gets_a_little():
    vae = video_vae("0.9.1")
    latent = torch.randn(1, 128, 1, 2, 2)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(vae.decode(latent))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_files_without_metadata_are_told_by_their_shapes():
    shapes = {"decoder.up_blocks.0.res_blocks.0.conv1.conv.weight": (512, 1)}
    for width, more, kind in ((512, {}, "0.9"), (1024, {}, "0.9.1"), (1024, {"encoder.down_blocks.1.conv.conv.bias": (1,)}, "0.9.5")):
        held = {name: torch.empty(shape, device="meta") for name, shape in {**shapes, **more}.items()}
        held["decoder.up_blocks.0.res_blocks.0.conv1.conv.weight"] = torch.empty(width, 1, device="meta")
        config = read_ltx_vae_config(StateDictSource(held))
        assert config.blocks("encoder") == ENCODERS[kind] and config["timestep_conditioning"] == (kind != "0.9")


def test_layouts_that_are_not_known_are_refused():
    with pytest.raises(UnknownModelError, match="norm_layer 'group_norm'"):
        LtxVaeConfig({"norm_layer": "group_norm"})
    for build, name in ((down_block, "res_z"), (lambda *given: up_block(*given, False), "compress_all_res_z")):
        with pytest.raises(UnknownModelError, match=f"block '{name}'"):
            build(name, {}, 8, "zeros")
    assert list(blocks_of([["res_x", 4], ["compress_all", {"multiplier": 2}]])) == [
        ("res_x", {"num_layers": 4}),
        ("compress_all", {"multiplier": 2}),
    ]


@pytest.mark.parametrize(("kind", "rate"), [("2", 24000), ("2.3", 48000), ("snake", 24000)])
def test_sound_becomes_latents_and_these_become_sound(kind, rate):
    vae = comfy.sd.VAE(sd=ltx_sound_tensors(kind), metadata=ltx_sound_metadata(kind))
    network = vae.first_stage_model
    latent = vae.encode(torch.randn(1, 30000, 2) * 0.2)
    assert latent.shape == (1, 8, 17, 16) and vae.latent_channels == 8 and network.latent_frequency_bins == 16
    sound = vae.decode(latent)
    assert sound.shape == (1, (17 * 4 - 3) * rate // 100, 2) and sound.abs().max() <= 1 and sound.std() > 0.01
    assert vae.audio_sample_rate_output == rate == network.output_sample_rate and vae.audio_sample_rate == 44100
    assert network.num_of_latents_from_frames(121, 25) == 121 and network.num_of_latents_from_frames(9, 8.0) == 28
    assert torch.equal(vae.encode(torch.ones(1, 9000, 1) * 0.1), vae.encode(torch.ones(1, 9000, 2) * 0.1))
    with pytest.raises(ValueError, match="2 channels, but was given one of 3"):
        network.encode(torch.zeros(1, 3, 9000))


def test_spectra_show_the_pitch_of_a_tone():
    network = LtxAudioAutoencoder(LtxAudioConfig(SMALL_SOUND, VOCODERS["2"]))
    loudest = []
    for hertz in (300, 1000, 4000):
        tone = torch.sin(torch.arange(16000) / 16000 * 2 * math.pi * hertz).repeat(1, 2, 1)
        spectrum = network.spectrum(tone)
        assert spectrum.shape == (1, 2, 101, 64)
        loudest.append(int(spectrum[0, 0, 50].argmax()))
    assert loudest[0] < loudest[1] < loudest[2] and network.spectrum(torch.zeros(1, 2, 1600)).max() == pytest.approx(math.log(1e-5))


def test_sound_needs_its_settings():
    with pytest.raises(UnknownModelError, match="nothing of vocoder"):
        read_ltx_audio_config(StateDictSource({}, metadata={"config": json.dumps({"audio_vae": SMALL_SOUND})}))
    with pytest.raises(UnknownModelError, match="residual blocks '2'"):
        ltx_vocoder.build_vocoder({"resblock": "2"})
    assert own_name("audio_vae.encoder.x") == own_name("autoencoder.encoder.x") == "autoencoder.encoder.x" and own_name("other") == "other"
    assert own_name("vocoder.conv_pre.weight") == own_name("vocoder.vocoder.conv_pre.weight") == "vocoder.vocoder.conv_in.weight"
    assert resampled(torch.zeros(1, 441), 44100, 16000).shape == (1, 160)


def test_a_checkpoints_sound_loads_alone(tmp_path):
    path = ltx_checkpoint(tmp_path / "whole.safetensors", "2")
    vae = audio_vae.load_audio_vae(path)
    assert isinstance(vae.first_stage_model, LtxAudioAutoencoder) and vae.patcher.cached_patcher_init[1] == (path,)
    assert audio_vae.load_audio_vae_patcher(path).model is not vae.first_stage_model
    with pytest.raises(ModelFileError, match="holds no audio VAE"):
        audio_vae.load_audio_vae(ltx_checkpoint(tmp_path / "silent.safetensors", "0.9.5"))


@pytest.mark.parametrize(("kind", "shape"), [("x2", (3, 8, 12)), ("x1.5", (3, 6, 9)), ("frames", (5, 4, 6)), ("pictures", (3, 8, 12))])
def test_upsamplers_enlarge(kind, shape, tmp_path):
    patcher = latent_upscaler.load_latent_upscaler(ltx_upsampler_file(tmp_path / "larger.safetensors", kind))
    assert kind in UPSAMPLERS and patcher.model_dtype() in (torch.float32, torch.bfloat16)
    made = patcher.model(torch.randn(1, 128, 3, 4, 6, dtype=patcher.model_dtype()))
    assert made.shape == (1, 128, *shape)
