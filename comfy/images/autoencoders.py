"""Which autoencoder a file holds, and what its pictures and latents look like."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from comfy import pixel_space_convert
from comfy.families import kl_vae
from comfy.families.kl_vae_config import KlVaeConfig, read_vae_config
from comfy.families.model_errors import naming_file
from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]
Memory = Callable[[Shape, int], float]  # of a batch's shape and the bytes of one number

SUPPORTED = (
    "those of Stable Diffusion 1.x, SDXL, Stable Video Diffusion, Stable Diffusion 3, Flux, Flux.2, Wan 2.1 and 2.2, Qwen-Image, "
    "Qwen-Image 2.1, HunyuanVideo 1 and 1.5, LTX, MiniMax H3 and Mage-Flow, and of sound those of Stable Audio, ACE-Step 1 and 1.5, LTX 2 "
    "and MiniMax H3"
)
WORKING_DTYPES = (torch.bfloat16, torch.float32)
MAGE_MARK = "student.dconv_encoder.proj_out.weight"
HUNYUAN_MARK = "decoder.mid.block_1.norm1.gamma"
FRAMES_MARK = "decoder.mid.block_1.mix_factor"
HUNYUAN_VIDEO_MARKS = {"decoder.conv_in.conv.weight", "post_quant_conv.weight"}
WAN_MARKS = ("decoder.middle.0.residual.0.gamma", "decoder.mid_block.resnets.0.norm1.gamma")
MUSIC_MARK = "vocoder.backbone.channel_layers.0.0.bias"
OOBLECK_MARKS = ("decoder.layers.1.layers.0.beta", "decoder.block.0.snake1.beta")
LTX_MARK = "decoder.up_blocks.0.res_blocks.0.conv1.conv.weight"
LTX_DIFFUSION_MARK = "decoder.conv_in_x_t.weight"
LTX_SOUND_MARKS = ("vocoder.resblocks.0.convs1.0.weight", "vocoder.vocoder.resblocks.0.convs1.0.weight")
MINIMAX_MARKS = ("decoder.transformer_blocks.0.scale1", "encoder.down.5.block.0.conv1.weight")
MINIMAX_AUDIO_MARK = "pre_block.attn.zero_k_bias"
REPEATED = "replicate"


@dataclass(frozen=True, slots=True)
class Autoencoder:
    """One kind of autoencoder. ``build()`` makes its network without weights, ``load(network, source, dtype)`` gives it them.

    ``latent_dim`` is 2 for pictures and 3 for videos, whose ratios and positions are given per dimension (frames, height, width); lengths
    in time are functions. ``pad_channel_value`` fills channels that a picture lacks; None: it must have them; "replicate": with the last.
    ``sample_rate_hz`` is that of the sound for autoencoders of sound, whose latents have one dimension, or ``extra_1d_channel`` rows of it;
    ``output_rate_hz`` that of decoded sound where it is another one. ``in_parts``: its network goes through videos on the host part by
    part, in tiles, whatever their size, and gives colours from 0 to 1.
    """

    build: Callable[[], Any]
    load: Callable[[Any, WeightSource, torch.dtype], None]
    image_channels: int
    latent_channels: int
    downscale_ratio: Any
    upscale_ratio: Any
    encode_bytes: Memory
    decode_bytes: Memory
    latent_dim: int = 2
    downscale_index_formula: tuple[int, ...] | None = None
    upscale_index_formula: tuple[int, ...] | None = None
    pad_channel_value: float | str | None = None
    working_dtypes: tuple[torch.dtype, ...] = WORKING_DTYPES
    sample_rate_hz: int | None = None
    in_parts: bool = False
    extra_1d_channel: int | None = None
    output_rate_hz: int | None = None


def find_autoencoder(source: WeightSource) -> Autoencoder | None:
    """The kind of autoencoder in *source* (no prefix; plain weights), None if there is none. Raises ``ModelFileError`` for damaged ones."""
    shapes = source.shapes()
    with naming_file(source.name, kl_vae.WHAT):
        if any(mark in shapes for mark in WAN_MARKS):
            return _of_wan_or_relatives(shapes)
        if HUNYUAN_MARK in shapes:
            return _hunyuan(shapes)
        if FRAMES_MARK in shapes:
            return _frames(shapes)
        if shapes.keys() >= HUNYUAN_VIDEO_MARKS:
            return _hunyuan_video(shapes)
        if any(mark in shapes for mark in OOBLECK_MARKS):
            return _oobleck(shapes)
        if LTX_MARK in shapes:
            return _ltx(source)
        if LTX_DIFFUSION_MARK in shapes:
            return _ltx_diffusion(source)
        if any(mark in shapes for mark in LTX_SOUND_MARKS):
            return _ltx_sound(source)
        if all(mark in shapes for mark in MINIMAX_MARKS):
            return _minimax(shapes)
        if MINIMAX_AUDIO_MARK in shapes:
            return _minimax_audio(shapes)
        if MAGE_MARK in shapes:
            return _mage(shapes)
        if pixel_space_convert.MARK in shapes:
            return _pixels()
        if MUSIC_MARK in shapes:
            return _music(shapes)
        found = read_vae_config(shapes)
        return None if found is None else _pictures(found)


def working_dtypes(source: WeightSource) -> list[torch.dtype]:
    """The dtypes that the autoencoder in *source* may be kept in, best first."""
    found = find_autoencoder(source)
    return list(WORKING_DTYPES if found is None else found.working_dtypes)


def _pictures(config: KlVaeConfig) -> Autoencoder:
    return Autoencoder(
        build=lambda: kl_vae.KlAutoencoder(config),
        load=kl_vae.load_vae_weights,
        image_channels=config.image_channels,
        latent_channels=config.shown_channels,
        downscale_ratio=config.ratio,
        upscale_ratio=config.ratio,
        encode_bytes=kl_vae.encode_memory_bytes,
        decode_bytes=lambda shape, dtype_bytes: kl_vae.decode_memory_bytes(shape, dtype_bytes, config.ratio),
    )


def _frames(shapes: Mapping[str, Shape]) -> Autoencoder:
    from comfy.images import svd_vae

    config = svd_vae.read_svd_vae_config(shapes)
    return Autoencoder(
        build=lambda: svd_vae.FramesAutoencoder(config),
        load=svd_vae.load_svd_vae,
        image_channels=config.image_channels,
        latent_channels=config.latent_channels,
        downscale_ratio=config.ratio,
        upscale_ratio=config.ratio,
        encode_bytes=svd_vae.encode_memory_bytes,
        decode_bytes=lambda shape, dtype_bytes: svd_vae.decode_memory_bytes(shape, dtype_bytes, config.ratio),
    )


def _of_wan_or_relatives(shapes: Mapping[str, Shape]) -> Autoencoder:
    from comfy.images import qwen21_vae

    return _qwen21(shapes) if qwen21_vae.is_qwen21_vae(shapes) else _wan(shapes)


def _qwen21(shapes: Mapping[str, Shape]) -> Autoencoder:
    from comfy.images import qwen21_vae

    config = qwen21_vae.read_qwen21_vae_config(shapes)
    return Autoencoder(
        build=lambda: qwen21_vae.Qwen21Autoencoder(config),
        load=qwen21_vae.load_qwen21_vae,
        image_channels=config.image_channels,
        latent_channels=config.latent_channels,
        downscale_ratio=qwen21_vae.SIDE,
        upscale_ratio=qwen21_vae.SIDE,
        encode_bytes=functools.partial(qwen21_vae.encode_memory_bytes, config),
        decode_bytes=functools.partial(qwen21_vae.decode_memory_bytes, config),
        pad_channel_value=1.0,
    )


def _wan(shapes: Mapping[str, Shape]) -> Autoencoder:
    from comfy.images import wan_vae

    config = wan_vae.read_wan_vae_config(shapes)
    side = config.side
    return Autoencoder(
        build=lambda: wan_vae.WanAutoencoder(config),
        load=wan_vae.load_wan_vae,
        image_channels=config.image_channels,
        latent_channels=config.latent_channels,
        downscale_ratio=(_latent_frames, side, side),
        upscale_ratio=(_video_frames, side, side),
        encode_bytes=functools.partial(wan_vae.encode_memory_bytes, config),
        decode_bytes=functools.partial(wan_vae.decode_memory_bytes, config),
        latent_dim=3,
        downscale_index_formula=(4, side, side),
        upscale_index_formula=(4, side, side),
        pad_channel_value=None if config.is_residual else 1.0,
        working_dtypes=(torch.bfloat16, torch.float16, torch.float32),
    )


def _mage(shapes: Mapping[str, Shape]) -> Autoencoder:
    from comfy.images import mage_vae

    sizes = mage_vae.read_mage_sizes(shapes)
    return Autoencoder(
        build=lambda: mage_vae.build_mage_vae(sizes),
        load=mage_vae.load_mage_vae,
        image_channels=sizes.colours,
        latent_channels=sizes.latent,
        downscale_ratio=mage_vae.SIDE,
        upscale_ratio=mage_vae.SIDE,
        encode_bytes=mage_vae.encode_memory_bytes,
        decode_bytes=mage_vae.decode_memory_bytes,
    )


def _pixels() -> Autoencoder:
    return Autoencoder(
        build=pixel_space_convert.PixelspaceConversionVAE,
        load=pixel_space_convert.load_nothing,
        image_channels=3,
        latent_channels=3,
        downscale_ratio=1,
        upscale_ratio=1,
        encode_bytes=pixel_space_convert.bytes_of_pixels,
        decode_bytes=pixel_space_convert.bytes_of_pixels,
    )


def _hunyuan(shapes: Mapping[str, Shape]) -> Autoencoder:
    from comfy.images import hunyuan_vae

    config, side = hunyuan_vae.read_hunyuan_vae_config(shapes), hunyuan_vae.SIDE
    return Autoencoder(
        build=lambda: hunyuan_vae.HunyuanAutoencoder(config),
        load=hunyuan_vae.load_hunyuan_vae,
        image_channels=3,
        latent_channels=config.latent_channels,
        downscale_ratio=(_latent_frames, side, side),
        upscale_ratio=(_video_frames, side, side),
        encode_bytes=hunyuan_vae.encode_memory_bytes,
        decode_bytes=hunyuan_vae.decode_memory_bytes,
        latent_dim=3,
        downscale_index_formula=(4, side, side),
        upscale_index_formula=(4, side, side),
        working_dtypes=(torch.float16, torch.bfloat16, torch.float32),
    )


def _hunyuan_video(shapes: Mapping[str, Shape]) -> Autoencoder:
    from comfy.images import hunyuan_video_vae

    config, side = hunyuan_video_vae.read_hunyuan_video_vae_config(shapes), hunyuan_video_vae.SIDE
    return Autoencoder(
        build=lambda: hunyuan_video_vae.HunyuanVideoAutoencoder(config),
        load=hunyuan_video_vae.load_hunyuan_video_vae,
        image_channels=3,
        latent_channels=config.latent_channels,
        downscale_ratio=(_latent_frames, side, side),
        upscale_ratio=(_video_frames, side, side),
        encode_bytes=hunyuan_video_vae.encode_memory_bytes,
        decode_bytes=hunyuan_video_vae.decode_memory_bytes,
        latent_dim=3,
        downscale_index_formula=(4, side, side),
        upscale_index_formula=(4, side, side),
        working_dtypes=(torch.bfloat16, torch.float16, torch.float32),
    )


def _oobleck(shapes: Mapping[str, Shape]) -> Autoencoder:
    from comfy.audio import oobleck

    config = oobleck.read_oobleck_config(shapes)
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


def _ltx(source: WeightSource) -> Autoencoder:
    from comfy.images import ltx_vae

    config, side, frames = ltx_vae.read_ltx_vae_config(source), ltx_vae.SIDE, ltx_vae.FRAMES_PER_LATENT
    return Autoencoder(
        build=lambda: ltx_vae.LtxAutoencoder(config),
        load=ltx_vae.load_ltx_vae,
        image_channels=3,
        latent_channels=config.get("latent_channels", 128),
        downscale_ratio=(lambda length: max(0, int(length + frames - 1) // frames), side, side),
        upscale_ratio=(lambda length: max(0, int(length) * frames - frames + 1), side, side),
        encode_bytes=ltx_vae.encode_memory_bytes,
        decode_bytes=ltx_vae.decode_memory_bytes,
        latent_dim=3,
        downscale_index_formula=(frames, side, side),
        upscale_index_formula=(frames, side, side),
    )


def _ltx_diffusion(source: WeightSource) -> Autoencoder:
    from comfy.images import ltx_diffusion_vae as later
    from comfy.images import ltx_vae

    config, side, frames = later.read_diffusion_vae_config(source), ltx_vae.SIDE, ltx_vae.FRAMES_PER_LATENT
    return Autoencoder(
        build=lambda: later.DiffusionAutoencoder(config),
        load=later.load_diffusion_vae,
        image_channels=3,
        latent_channels=config.decoder.get("in_channels", 128),
        downscale_ratio=(lambda length: max(0, int(length + frames - 1) // frames), side, side),
        upscale_ratio=(lambda length: max(0, int(length) * frames - frames + 1), side, side),
        encode_bytes=ltx_vae.encode_memory_bytes,
        decode_bytes=later.decode_memory_bytes,
        latent_dim=3,
        downscale_index_formula=(frames, side, side),
        upscale_index_formula=(frames, side, side),
    )


def _ltx_sound(source: WeightSource) -> Autoencoder:
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


def _minimax(shapes: Mapping[str, Shape]) -> Autoencoder:
    from comfy.images import minimax_vae

    config, side = minimax_vae.read_minimax_vae_config(shapes), minimax_vae.SIDE
    return Autoencoder(
        build=lambda: minimax_vae.MiniMaxAutoencoder(config),
        load=minimax_vae.load_minimax_vae,
        image_channels=3,
        latent_channels=config.latent_channels,
        downscale_ratio=(minimax_vae.cells_of, side, side),
        upscale_ratio=(minimax_vae.whole_frames_of, side, side),
        encode_bytes=minimax_vae.encode_memory_bytes,
        decode_bytes=minimax_vae.decode_memory_bytes,
        latent_dim=3,
        downscale_index_formula=(4, side, side),
        upscale_index_formula=(4, side, side),
        working_dtypes=(torch.float16, torch.float32),
        in_parts=True,
    )


def _minimax_audio(shapes: Mapping[str, Shape]) -> Autoencoder:
    from comfy.audio import minimax

    config = minimax.read_minimax_audio_config(shapes)
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


def _music(shapes: Mapping[str, Shape]) -> Autoencoder:
    from comfy.audio import music_dcae

    config, ratio = music_dcae.read_music_vae_config(shapes), music_dcae.HOP * music_dcae.SIDE
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


def _latent_frames(frames: float) -> int:
    return max(0, int(frames + 3) // 4)


def _video_frames(latent_frames: float) -> int:
    return max(0, int(latent_frames) * 4 - 3)
