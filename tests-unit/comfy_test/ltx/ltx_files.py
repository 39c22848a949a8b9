"""Small models of LTX's kinds with random weights in the published names, and the metadata of their files."""

import json
import re

import torch
from safetensors.torch import save_file
from transformer_files import network_of, random_weight

from comfy.audio.ltx import LtxAudioAutoencoder, LtxAudioConfig
from comfy.dit.ltx import read_config, with_metadata
from comfy.images.ltx_diffusion_vae import DiffusionAutoencoder, DiffusionVaeConfig
from comfy.images.ltx_vae import LtxAutoencoder, LtxVaeConfig
from comfy.ldm.lightricks.latent_upsampler import LatentUpsampler

TEXT, WIDTH, SOUND_WIDTH = 48, 64, 32
VIDEO = {
    "_class_name": "Transformer3DModel",
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "cross_attention_dim": WIDTH,
    "caption_channels": TEXT,
    "in_channels": 128,
    "num_layers": 2,
    "causal_temporal_positioning": True,
    "timestep_scale_multiplier": 1000,
}
SOUND = {
    **VIDEO,
    "_class_name": "AVTransformer3DModel",
    "audio_attention_head_dim": 16,
    "audio_num_attention_heads": 2,
    "audio_cross_attention_dim": SOUND_WIDTH,
    "audio_in_channels": 128,
    "av_ca_timestep_scale_multiplier": 1000.0,
    "use_middle_indices_grid": True,
    "rope_type": "split",
    "frequencies_precision": "float64",
    "connector_attention_head_dim": 16,
    "connector_num_attention_heads": 3,
    "connector_num_layers": 2,
}
KINDS = {
    "0.9": {**VIDEO, "causal_temporal_positioning": False},
    "0.9, by a small T5": {**VIDEO, "causal_temporal_positioning": False, "caption_channels": 32},
    "0.9.5": VIDEO,
    "0.9.5, by a small T5": {**VIDEO, "caption_channels": 32},
    "2": SOUND,
    "2.3": {
        **SOUND,
        "cross_attention_adaln": True,
        "apply_gated_attention": True,
        "connector_apply_gated_attention": True,
        "caption_proj_before_connector": True,
        "caption_projection_first_linear": False,
        "connector_attention_head_dim": 32,
        "connector_num_attention_heads": 2,
        "audio_connector_attention_head_dim": 16,
        "audio_connector_num_attention_heads": 2,
    },
}
KINDS["2.5"] = {**KINDS["2.3"], "ff_bias": False, "audio_ff_bias": False}


def ltx_metadata(kind, **parts):
    """The metadata of a file of the *kind*, with what it says of other *parts*."""
    return {"config": json.dumps({"transformer": KINDS[kind], **parts})}


def ltx_config(kind):
    """The ``unet_config`` of a small network of the *kind*."""
    sizes = {
        "image_model": "ltxav" if kind.startswith("2") else "ltxv",
        "use_keyframes_abs_pos_embedding": kind == "2.5",
        **{key: value for key, value in KINDS[kind].items() if key[0] != "_"},
    }
    shapes = {name: tuple(value.shape) for name, value in network_of(sizes).named_parameters()}
    return with_metadata(read_config(shapes), ltx_metadata(kind))


def ltx_tensors(kind, seed=0, dtype=torch.float32):
    """A small network of the *kind* in the published names."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: tuple(value.shape) for name, value in network_of(ltx_config(kind)).named_parameters()}
    tensors = {name: random_weight(name, shape, generator).to(dtype) for name, shape in shapes.items()}
    return {name: value * 8 if name.endswith("table") else value for name, value in tensors.items()}


def ltx_file(path, kind="0.9.5", seed=0, dtype=torch.float32):
    """*path*, after a small network of the *kind* was written there."""
    save_file(ltx_tensors(kind, seed, dtype), str(path), ltx_metadata(kind))
    return str(path)


def _res(layers, **more):
    return ["res_x", {"num_layers": layers, **more}]


def _half(factor, **more):
    return ["compress_all", {"residual": True, "multiplier": factor, **more}]


LATER_ENCODER = [
    *(_res(1), ["compress_space_res", {"multiplier": 2}], _res(1), ["compress_time_res", {"multiplier": 2}], _res(1)),
    *(["compress_all_res", {"multiplier": 2}], _res(1), ["compress_all_res", {"multiplier": 2}], _res(1)),
]
OLD = [_res(1), ["compress_all", 1], ["res_x_y", 1], _res(1), ["compress_all", 1], ["res_x_y", 1], ["compress_all", 1], _res(1)]
SMALL_VAE = {
    "_class_name": "CausalVideoAutoencoder",
    "dims": 3,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 128,
    "norm_layer": "pixel_norm",
    "patch_size": 4,
    "latent_log_var": "uniform",
    "causal_decoder": False,
    "encoder_base_channels": 8,
    "decoder_base_channels": 8,
}
VAE_KINDS = {
    "0.9": {**SMALL_VAE, "blocks": OLD},
    "0.9.1": {
        **SMALL_VAE,
        "encoder_blocks": OLD,
        "decoder_blocks": [_res(1, inject_noise=True), _half(2), _res(2, inject_noise=True), _half(2), _half(2), _res(1)],
        "timestep_conditioning": True,
    },
    "2": {
        **SMALL_VAE,
        "encoder_blocks": LATER_ENCODER,
        "decoder_blocks": [_res(1), _half(2), _res(1), _half(2), _res(1), _half(2), _res(1)],
        "timestep_conditioning": False,
        "spatial_padding_mode": "zeros",
    },
    "2.3": {
        **SMALL_VAE,
        "encoder_blocks": LATER_ENCODER,
        "decoder_blocks": [
            *(_res(1), ["compress_space", {"multiplier": 2}], _res(1), ["compress_time", {"multiplier": 2}], _res(1)),
            *(["compress_all", {"multiplier": 1}], _res(1), ["compress_all", {"multiplier": 2}], _res(1)),
        ],
        "causal_decoder": True,
    },
}


def _values(module, seed, scale=1.0):
    """Random values for all parameters of *module*, by their names; deviations of latents around one."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: tuple(value.shape) for name, value in module.named_parameters()}
    tensors = {name: random_weight(name, shape, generator) * scale for name, shape in shapes.items()}
    return {name: 1 + abs(value) if name.endswith("std-of-means") else value for name, value in tensors.items()}


def ltx_vae_tensors(kind, seed=0):
    """A small video autoencoder of the *kind* in the published names."""
    tensors = _values(LtxAutoencoder(LtxVaeConfig(VAE_KINDS[kind])), seed, 1.5)
    times = {name: torch.tensor(1000.0) for name in tensors if name.endswith("timestep_scale_multiplier")}
    return tensors | times


def ltx_vae_metadata(kind):
    """The metadata of its file."""
    return {"config": json.dumps({"vae": VAE_KINDS[kind]})}


DIFFUSION_VAE = {
    "_class_name": "CausalDiffusionVAE",
    "dims": 3,
    "model_output_type": "x0",
    "encoder": {
        "in_channels": 3,
        "out_channels": 128,
        "blocks": [
            *(_res(1), ["compress_space_res", {"multiplier": 2}], _res(1), ["compress_time_res", {"multiplier": 2}], _res(1)),
            *(["compress_all_res", {"multiplier": 2}], _res(1), ["compress_all_res", {"multiplier": 1}], _res(1)),
        ],
        "patch_size": 4,
        "latent_log_var": "constant",
        "norm_layer": "pixel_norm",
        "base_channels": 8,
        "spatial_padding_mode": "zeros",
    },
    "decoder": {
        "in_channels": 128,
        "out_channels": 3,
        "patch_size": 4,
        "head_dim": 16,
        "stage_channels": [128, 64, 32, 32, 16],
        "stage_depths": [1, 1, 1, 1, 2],
        "stage_kernels": [[3, 3, 3], [3, 3, 3], [3, 5, 5], [3, 5, 5], [5, 5, 5]],
        "upsamples": [[[1, 2, 2], 2], [[2, 1, 1], 2], [[2, 2, 2], 1], [[2, 2, 2], 2]],
        "stage5_kernel": [5, 5, 5],
        "t_emb_dim": 24,
    },
}


def diffusion_vae_tensors(seed=0):
    """A small video autoencoder of LTX 2.5 in the published names."""
    config = DiffusionVaeConfig(DIFFUSION_VAE["encoder"], DIFFUSION_VAE["decoder"])
    found = {}
    for name, value in _values(DiffusionAutoencoder(config), seed, 1.5).items():
        for theirs, own in (("timestep_embedder.linear_1.", "mlp.0."), ("timestep_embedder.linear_2.", "mlp.2."), ("to_out.0", "proj")):
            name = name.replace(theirs, own)
        name = name.replace(".norm_q.", ".q_norm.").replace(".norm_k.", ".k_norm.")
        if ".attn.to_" in name:
            name = re.sub(r"\.to_[qkv]\.", ".qkv.", name)
            value = torch.cat((found[name], value)) if name in found else value
        found[name] = value
    return found


def diffusion_vae_metadata():
    """The metadata of its file."""
    return {"config": json.dumps({"vae": DIFFUSION_VAE})}


SMALL_SOUND = {
    "model": {
        "params": {
            "ddconfig": {
                "double_z": True,
                "mel_bins": 64,
                "z_channels": 8,
                "resolution": 256,
                "in_channels": 2,
                "out_ch": 2,
                "ch": 8,
                "ch_mult": [1, 2, 4],
                "num_res_blocks": 1,
                "attn_resolutions": [],
                "mid_block_add_attention": False,
                "norm_type": "pixel",
                "causality_axis": "height",
            },
            "sampling_rate": 16000,
        }
    },
    "preprocessing": {"stft": {"filter_length": 1024, "hop_length": 160}},
}
SMALL_VOCODER = {
    "upsample_initial_channel": 32,
    "upsample_rates": [5, 4, 3, 2, 2],
    "upsample_kernel_sizes": [15, 12, 7, 4, 4],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3, 5]],
    "stereo": True,
}
SMOOTH = {**SMALL_VOCODER, "resblock": "AMP1", "activation": "snakebeta", "use_bias_at_final": False}
VOCODERS = {
    "2": SMALL_VOCODER,
    "2.3": {
        "vocoder": {**SMOOTH, "upsample_rates": [5, 4, 2, 2, 2], "upsample_kernel_sizes": [15, 12, 4, 4, 4]},
        "bwe": {
            **SMOOTH,
            "upsample_rates": [5, 3, 4, 2, 2],
            "upsample_kernel_sizes": [15, 7, 12, 4, 4],
            "input_sampling_rate": 16000,
            "output_sampling_rate": 48000,
            "hop_length": 80,
            "n_fft": 512,
            "num_mels": 64,
        },
    },
    "snake": {**SMALL_VOCODER, "resblock": "AMP1", "activation": "snake", "use_tanh_at_final": False},
}


def published_sound_name(name):
    """What files call the parameter *name* of the audio autoencoder."""
    for own, theirs in (
        ("autoencoder.", "audio_vae."),
        (".conv_in.", ".conv_pre."),
        (".upsamplers.", ".ups."),
        (".resnets.", ".resblocks."),
        (".act_out.", ".act_post."),
        (".conv_out.", ".conv_post."),
    ):
        if not name.startswith(("audio_vae", "autoencoder")) or own == "autoencoder.":
            name = name.replace(own, theirs)
    return name.replace(".downsample.filter", ".downsample.lowpass.filter")


def ltx_sound_tensors(kind, seed=0):
    """A small audio autoencoder with its vocoder in the published names."""
    module = LtxAudioAutoencoder(LtxAudioConfig(SMALL_SOUND, VOCODERS[kind]))
    tensors = {published_sound_name(name): value for name, value in _values(module, seed).items()}
    if kind != "2.3":
        tensors = {name.replace("vocoder.vocoder.", "vocoder."): value for name, value in tensors.items()}
    else:
        tensors["vocoder.mel_stft.stft_fn.inverse_basis"] = torch.zeros_like(tensors["vocoder.mel_stft.stft_fn.forward_basis"])
        tensors["vocoder.mel_stft.mel_basis"] = tensors["vocoder.mel_stft.mel_basis"].abs()
    return {name: value.abs() / value.abs().sum() if name.endswith("filter") else value for name, value in tensors.items()}


def ltx_sound_metadata(kind):
    """The metadata of its file."""
    return {"config": json.dumps({"audio_vae": SMALL_SOUND, "vocoder": VOCODERS[kind]})}


def projection_tensors(kind, states=49 * 64, seed=5):
    """What a checkpoint of the *kind* has for the states of its text model, of so many values per token."""
    generator = torch.Generator().manual_seed(seed)
    parts = {"video_aggregate_embed": WIDTH, "audio_aggregate_embed": SOUND_WIDTH} if kind == "2.3" else {"aggregate_embed": TEXT}
    shapes = {f"text_embedding_projection.{name}.weight": (width, states) for name, width in parts.items()}
    if kind == "2.3":
        shapes |= {f"text_embedding_projection.{name}.bias": (width,) for name, width in parts.items()}
    return {name: random_weight(name, shape, generator) for name, shape in shapes.items()}


def ltx_checkpoint(path, kind, vae="2", seed=0):
    """*path*, after a whole checkpoint of the *kind* was written there: with sound for LTX 2's."""
    tensors = {f"model.diffusion_model.{name}": value for name, value in ltx_tensors(kind, seed).items()}
    tensors |= {f"vae.{name}": value for name, value in ltx_vae_tensors(vae, seed).items()}
    parts = {"vae": VAE_KINDS[vae]}
    if kind.startswith("2"):
        tensors |= ltx_sound_tensors(kind, seed) | projection_tensors(kind)
        parts |= {"audio_vae": SMALL_SOUND, "vocoder": VOCODERS[kind]}
    save_file({name: value.contiguous() for name, value in tensors.items()}, str(path), ltx_metadata(kind, **parts))
    return str(path)


SMALL_UPSAMPLER = {"in_channels": 128, "mid_channels": 32, "num_blocks_per_stage": 1, "dims": 3}
UPSAMPLERS = {
    "x2": SMALL_UPSAMPLER,
    "x1.5": {**SMALL_UPSAMPLER, "rational_resampler": True, "spatial_scale": 1.5},
    "frames": {**SMALL_UPSAMPLER, "spatial_upsample": False, "temporal_upsample": True},
    "pictures": {**SMALL_UPSAMPLER, "dims": 2},
}


def ltx_upsampler_file(path, kind="x2", seed=0):
    """*path*, after a small network of the *kind* that enlarges latents was written there."""
    tensors = _values(LatentUpsampler.from_config(UPSAMPLERS[kind]), seed)
    if "upsampler.blur_down.kernel" in tensors:
        row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        tensors["upsampler.blur_down.kernel"] = torch.outer(row, row)[None, None]
    save_file(tensors, str(path), {"config": json.dumps({"_class_name": "LatentUpsampler", **UPSAMPLERS[kind]})})
    return str(path)
