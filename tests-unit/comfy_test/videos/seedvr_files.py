"""A small SeedVR2 with random weights in the published names: networks of each kind, and the autoencoder."""

import torch
from safetensors.torch import save_file
from transformer_files import config_of, random_tensors, random_weight

from comfy.images.seedvr_vae import SeedVRAutoencoder, SeedVRVaeConfig

WIDTH, HEADS, TEXT = 256, 2, 5120
WIDTHS = (32, 32, 64, 64)
# Of each kind: blocks, how many of them have weights for text of their own, whether the last layer is gated and the end normalised.
KINDS = {"3b": (4, 2, True, True), "7b": (4, 4, False, False), "7b, shared": (4, 2, True, False)}


def seedvr_config(kind="3b"):
    """The ``unet_config`` of a small one."""
    count, own, gated, normed = KINDS[kind]
    shapes = {"positive_conditioning": (58, TEXT), "negative_conditioning": (64, TEXT), "emb_in.proj_hid.weight": (WIDTH, WIDTH)}
    shapes |= {"vid_in.proj.weight": (WIDTH, 132)} | ({"vid_out_norm.weight": (WIDTH,)} if normed else {})
    for number in range(count):
        part = "vid" if number < own else "all"
        shapes[f"blocks.{number}.attn.proj_qkv.{part}.weight"] = (3 * HEADS * 128, WIDTH)
        shapes[f"blocks.{number}.mlp.{part}.proj_{'in_gate' if gated else 'in'}.weight"] = (WIDTH, WIDTH)
    return config_of(shapes)


def seedvr_tensors(kind="3b", seed=0):
    """A network in the published names."""
    return random_tensors(seedvr_config(kind), seed)


def seedvr_file(path, kind="3b", seed=0):
    """*path*, after such a network was written there."""
    save_file(seedvr_tensors(kind, seed), str(path))
    return str(path)


def seedvr_vae_tensors(seed=0, widths=WIDTHS):
    """An autoencoder in the published names."""
    model = SeedVRAutoencoder(SeedVRVaeConfig(widths, (False, True, True), (True, True, False), 16))
    numbers = torch.Generator().manual_seed(seed)
    return {name: random_weight(name, tuple(value.shape), numbers) for name, value in model.named_parameters()}


def seedvr_vae_file(path, seed=0):
    """*path*, after such an autoencoder was written there."""
    save_file(seedvr_vae_tensors(seed), str(path))
    return str(path)
