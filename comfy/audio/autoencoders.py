"""What is to be known of each autoencoder of sound, from its file."""

from __future__ import annotations

import functools

import torch

from comfy.families.weight_source import WeightSource
from comfy.images.autoencoder import REPEATED, Autoencoder


def oobleck_autoencoder(source: WeightSource) -> Autoencoder:
    """Of Stable Audio and ACE-Step 1.5."""
    from comfy.audio import oobleck

    config = oobleck.read_oobleck_config(source.shapes())
    return Autoencoder(
        build=lambda: oobleck.OobleckAutoencoder(config),
        load=oobleck.load_oobleck,
        image_channels=config.channels,
        latent_channels=config.latent_channels,
        downscale_ratio=config.ratio,
        upscale_ratio=config.ratio,
        encode_bytes=lambda shape, dtype_bytes: 1000 * shape[2] * dtype_bytes,
        decode_bytes=lambda shape, dtype_bytes: 1000 * shape[2] * 2048 * dtype_bytes,
        latent_dim=1,
        pad_channel_value=REPEATED,
        working_dtypes=(torch.float16, torch.bfloat16, torch.float32),
        sample_rate_hz=config.rate_hz,
    )


def stable_audio3_autoencoder(source: WeightSource) -> Autoencoder:
    """Of Stable Audio 3."""
    from comfy.audio import stable_audio3

    sizes = stable_audio3.read_sizes(source.shapes())
    per_sample = stable_audio3.PER_SAMPLE[sizes.depth]
    return Autoencoder(
        build=lambda: stable_audio3.StableAudio3Autoencoder(sizes),
        load=stable_audio3.load_stable_audio3_vae,
        image_channels=stable_audio3.SIDES,
        latent_channels=stable_audio3.LATENT,
        downscale_ratio=stable_audio3.RATIO,
        upscale_ratio=stable_audio3.RATIO,
        encode_bytes=lambda shape, dtype_bytes: per_sample * shape[2] * dtype_bytes,
        decode_bytes=lambda shape, dtype_bytes: per_sample * shape[2] * stable_audio3.RATIO * dtype_bytes,
        latent_dim=1,
        pad_channel_value=REPEATED,
        working_dtypes=(torch.bfloat16, torch.float16, torch.float32),
        sample_rate_hz=stable_audio3.RATE_HZ,
    )


def ltx_autoencoder(source: WeightSource) -> Autoencoder:
    """Of LTX 2, with its vocoder."""
    from comfy.audio import ltx

    config = ltx.read_ltx_audio_config(source)
    found = ltx.LtxAudioAutoencoder(config)
    return Autoencoder(
        build=lambda: ltx.LtxAudioAutoencoder(config),
        load=ltx.load_ltx_audio,
        image_channels=2,
        latent_channels=found.latent_channels,
        downscale_ratio=ltx.SAMPLES_PER_LATENT,
        upscale_ratio=ltx.SAMPLES_PER_LATENT,
        encode_bytes=lambda shape, dtype_bytes: 330 * shape[2] * dtype_bytes,
        decode_bytes=lambda shape, dtype_bytes: 87000 * shape[2] * shape[3] * dtype_bytes,
        pad_channel_value=REPEATED,
        working_dtypes=(torch.float32,),
        sample_rate_hz=ltx.RATE_HZ,
        extra_1d_channel=found.latent_frequency_bins,
        output_rate_hz=found.output_sample_rate,
    )


def minimax_autoencoder(source: WeightSource) -> Autoencoder:
    """Of MiniMax H3."""
    from comfy.audio import minimax

    config = minimax.read_minimax_audio_config(source.shapes())
    return Autoencoder(
        build=lambda: minimax.MiniMaxAudioAutoencoder(config),
        load=minimax.load_minimax_audio,
        image_channels=minimax.SIDES,
        latent_channels=config.latent_channels,
        downscale_ratio=config.ratio,
        upscale_ratio=config.ratio,
        encode_bytes=minimax.encode_memory_bytes,
        decode_bytes=functools.partial(minimax.decode_memory_bytes, config.ratio),
        pad_channel_value=REPEATED,
        working_dtypes=(torch.float32,),
        sample_rate_hz=minimax.RATE_HZ,
    )


def music_autoencoder(source: WeightSource) -> Autoencoder:
    """Of ACE-Step 1, with its vocoder."""
    from comfy.audio import music_dcae

    config, ratio = music_dcae.read_music_vae_config(source.shapes()), music_dcae.HOP * music_dcae.SIDE
    return Autoencoder(
        build=lambda: music_dcae.MusicAutoencoder(config),
        load=music_dcae.load_music_vae,
        image_channels=config.channels,
        latent_channels=config.latent_channels,
        downscale_ratio=ratio,
        upscale_ratio=ratio,
        encode_bytes=lambda shape, dtype_bytes: 330 * shape[2] * dtype_bytes,
        decode_bytes=lambda shape, dtype_bytes: 87000 * shape[2] * shape[3] * dtype_bytes,
        pad_channel_value=REPEATED,
        working_dtypes=(torch.bfloat16, torch.float16, torch.float32),
        sample_rate_hz=music_dcae.RATE_HZ,
        extra_1d_channel=music_dcae.ROWS,
    )
