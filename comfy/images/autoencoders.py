"""Which autoencoder a file holds, and what its pictures and latents look like."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from comfy.families import kl_vae
from comfy.families.kl_vae_config import KlVaeConfig, read_vae_config
from comfy.families.model_errors import naming_file
from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]
Memory = Callable[[Shape, int], float]  # of a batch's shape and the bytes of one number

WORKING_DTYPES = (torch.bfloat16, torch.float32)
REPEATED = "replicate"
PICTURES, SOUND = "pictures", "sound"


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


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of autoencoder as files have it: of which models it is ("Wan 2.1 and 2.2"), of ``PICTURES`` (and videos) or ``SOUND``, the
    tensors that tell it (any of *marks*, or all), and what makes of a file of it what is known.
    """

    models: str
    of: str
    marks: tuple[str, ...]
    read: Callable[[WeightSource], Autoencoder]
    needs_all: bool = False

    def matches(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether the tensors of *shapes* are of this kind."""
        return (all if self.needs_all else any)(mark in shapes for mark in self.marks)


def find_autoencoder(source: WeightSource) -> Autoencoder | None:
    """The kind of autoencoder in *source* (no prefix; plain weights), None if there is none. Raises ``ModelFileError`` for damaged ones."""
    shapes = source.shapes()
    with naming_file(source.name, kl_vae.WHAT):
        if (kind := next((kind for kind in KINDS if kind.matches(shapes)), None)) is not None:
            return kind.read(source)
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


def _of_wan_or_relatives(source: WeightSource) -> Autoencoder:
    from comfy.images import qwen21_vae

    shapes = source.shapes()
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


def _mage(source: WeightSource) -> Autoencoder:
    from comfy.images import mage_vae

    sizes = mage_vae.read_mage_sizes(source.shapes())
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


def _hunyuan(source: WeightSource) -> Autoencoder:
    from comfy.images import hunyuan_vae

    config, side = hunyuan_vae.read_hunyuan_vae_config(source.shapes()), hunyuan_vae.SIDE
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


def _oobleck(source: WeightSource) -> Autoencoder:
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


def _minimax(source: WeightSource) -> Autoencoder:
    from comfy.images import minimax_vae

    config, side = minimax_vae.read_minimax_vae_config(source.shapes()), minimax_vae.SIDE
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


def _minimax_audio(source: WeightSource) -> Autoencoder:
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


def _music(source: WeightSource) -> Autoencoder:
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


def _latent_frames(frames: float) -> int:
    return max(0, int(frames + 3) // 4)


def _video_frames(latent_frames: float) -> int:
    return max(0, int(latent_frames) * 4 - 3)


# Every kind but that of Stable Diffusion and its relatives, which is what a file of none of these is tried as.
KINDS = (
    Kind(
        "Wan 2.1 and 2.2, Qwen-Image, Qwen-Image 2.1",
        PICTURES,
        ("decoder.middle.0.residual.0.gamma", "decoder.mid_block.resnets.0.norm1.gamma"),
        _of_wan_or_relatives,
    ),
    Kind("HunyuanVideo 1.5", PICTURES, ("decoder.mid.block_1.norm1.gamma",), _hunyuan),
    Kind("Stable Audio, ACE-Step 1.5", SOUND, ("decoder.layers.1.layers.0.beta", "decoder.block.0.snake1.beta"), _oobleck),
    Kind("LTX", PICTURES, ("decoder.up_blocks.0.res_blocks.0.conv1.conv.weight",), _ltx),
    Kind("LTX 2", SOUND, ("vocoder.resblocks.0.convs1.0.weight", "vocoder.vocoder.resblocks.0.convs1.0.weight"), _ltx_sound),
    Kind("MiniMax H3", PICTURES, ("decoder.transformer_blocks.0.scale1", "encoder.down.5.block.0.conv1.weight"), _minimax, needs_all=True),
    Kind("MiniMax H3", SOUND, ("pre_block.attn.zero_k_bias",), _minimax_audio),
    Kind("Mage-Flow", PICTURES, ("student.dconv_encoder.proj_out.weight",), _mage),
    Kind("ACE-Step 1", SOUND, ("vocoder.backbone.channel_layers.0.0.bias",), _music),
)
STABLE = "Stable Diffusion 1.x, SDXL, Stable Diffusion 3, Flux, Flux.2"


def _supported() -> str:
    pictures, sound = (", ".join(kind.models for kind in KINDS if kind.of == what) for what in (PICTURES, SOUND))
    return f"those of {STABLE}, {pictures}, and of sound those of {sound}"


SUPPORTED = _supported()
