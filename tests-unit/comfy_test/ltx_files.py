"""Small models of LTX's kinds with random weights in the published names, and the metadata of their files."""

import json

import torch
from safetensors.torch import save_file
from transformer_files import network_of, random_weight

from comfy.dit.ltx import read_config, with_metadata

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
    "0.9.5": VIDEO,
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


def ltx_metadata(kind, **parts):
    """The metadata of a file of the *kind*, with what it says of other *parts*."""
    return {"config": json.dumps({"transformer": KINDS[kind], **parts})}


def ltx_config(kind):
    """The ``unet_config`` of a small network of the *kind*."""
    sizes = {
        "image_model": "ltxav" if kind.startswith("2") else "ltxv",
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
