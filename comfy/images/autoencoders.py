"""Which autoencoder a file holds, and what its pictures and latents look like."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from comfy import pixel_space_convert
from comfy.audio import autoencoders as sound
from comfy.families import kl_vae
from comfy.families.kl_vae_config import KlVaeConfig, read_vae_config
from comfy.families.model_errors import naming_file
from comfy.families.weight_source import WeightSource
from comfy.images.autoencoder import WORKING_DTYPES, Autoencoder, Shape

PICTURES, SOUND = "pictures", "sound"


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


def _frames(source: WeightSource) -> Autoencoder:
    from comfy.images import svd_vae

    config = svd_vae.read_svd_vae_config(source.shapes())
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


def _pixels(source: WeightSource) -> Autoencoder:
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


def _hunyuan_video(source: WeightSource) -> Autoencoder:
    from comfy.images import hunyuan_video_vae

    config, side = hunyuan_video_vae.read_hunyuan_video_vae_config(source.shapes()), hunyuan_video_vae.SIDE
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


def _seedvr(source: WeightSource) -> Autoencoder:
    from comfy.images import seedvr_vae

    config, side = seedvr_vae.read_seedvr_vae_config(source.shapes()), seedvr_vae.SIDE
    return Autoencoder(
        build=lambda: seedvr_vae.SeedVRAutoencoder(config),
        load=seedvr_vae.load_seedvr_vae,
        image_channels=seedvr_vae.COLOURS,
        latent_channels=config.latent_channels,
        downscale_ratio=(_latent_frames, side, side),
        upscale_ratio=(_video_frames, side, side),
        encode_bytes=seedvr_vae.encode_memory_bytes,
        decode_bytes=seedvr_vae.decode_memory_bytes,
        latent_dim=3,
        downscale_index_formula=(seedvr_vae.FRAMES, side, side),
        upscale_index_formula=(seedvr_vae.FRAMES, side, side),
        working_dtypes=(torch.float16, torch.bfloat16, torch.float32),
        fading=True,
        is_whole=True,
        crops=False,
    )


def _cosmos(source: WeightSource) -> Autoencoder:
    from comfy.images import cosmos_vae

    config = cosmos_vae.read_cosmos_vae_config(source.shapes())
    side, frames = cosmos_vae.SIDE, cosmos_vae.FRAMES_PER_LATENT
    return Autoencoder(
        build=lambda: cosmos_vae.CosmosAutoencoder(config),
        load=cosmos_vae.load_cosmos_vae,
        image_channels=3,
        latent_channels=config.latent_channels,
        downscale_ratio=(lambda length: max(0, int(length + frames - 1) // frames), side, side),
        upscale_ratio=(lambda length: max(0, int(length) * frames - frames + 1), side, side),
        encode_bytes=cosmos_vae.encode_memory_bytes,
        decode_bytes=cosmos_vae.decode_memory_bytes,
        latent_dim=3,
        downscale_index_formula=(frames, side, side),
        upscale_index_formula=(frames, side, side),
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
    Kind("Cosmos 1", PICTURES, ("decoder.unpatcher3d.wavelets", "decoder.conv_in.conv_s.weight"), _cosmos),
    Kind("HunyuanVideo 1.5", PICTURES, ("decoder.mid.block_1.norm1.gamma",), _hunyuan),
    Kind("Stable Video Diffusion", PICTURES, ("decoder.mid.block_1.mix_factor",), _frames),
    Kind("HunyuanVideo 1", PICTURES, ("decoder.conv_in.conv.weight", "post_quant_conv.weight"), _hunyuan_video, needs_all=True),
    Kind("Stable Audio, ACE-Step 1.5", SOUND, ("decoder.layers.1.layers.0.beta", "decoder.block.0.snake1.beta"), sound.oobleck_autoencoder),
    Kind("Stable Audio 3", SOUND, ("decoder.layers.3.transformers.0.pre_norm.alpha",), sound.stable_audio3_autoencoder),
    Kind("LTX", PICTURES, ("decoder.up_blocks.0.res_blocks.0.conv1.conv.weight",), _ltx),
    Kind("LTX 2.5", PICTURES, ("decoder.conv_in_x_t.weight",), _ltx_diffusion),
    Kind("LTX 2", SOUND, ("vocoder.resblocks.0.convs1.0.weight", "vocoder.vocoder.resblocks.0.convs1.0.weight"), sound.ltx_autoencoder),
    Kind("MiniMax H3", PICTURES, ("decoder.transformer_blocks.0.scale1", "encoder.down.5.block.0.conv1.weight"), _minimax, needs_all=True),
    Kind("MiniMax H3", SOUND, ("pre_block.attn.zero_k_bias",), sound.minimax_autoencoder),
    Kind("Mage-Flow", PICTURES, ("student.dconv_encoder.proj_out.weight",), _mage),
    Kind("models of pixels", PICTURES, (pixel_space_convert.MARK,), _pixels),
    Kind("SeedVR2", PICTURES, ("decoder.up_blocks.2.upsamplers.0.upscale_conv.weight",), _seedvr),
    Kind("ACE-Step 1", SOUND, ("vocoder.backbone.channel_layers.0.0.bias",), sound.music_autoencoder),
)
STABLE = "Stable Diffusion 1.x, SDXL, Stable Diffusion 3, Flux, Flux.2"


def _supported() -> str:
    shown, heard = (", ".join(kind.models for kind in KINDS if kind.of == what) for what in (PICTURES, SOUND))
    return f"those of {STABLE}, {shown}, and of sound those of {heard}"


SUPPORTED = _supported()
