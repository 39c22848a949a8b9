"""Mage-Flow's autoencoder: its sizes, read from a file, and its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from comfy.families.diffusers_unet import RenamedSource
from comfy.families.model_errors import naming_file
from comfy.families.published_weights import load_published
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_source import WeightSource
from comfy.ldm.mage_flow.vae import CELL, MageSizes, MageVAE

Shape = tuple[int, ...]

WHAT = "the VAE"
ENCODER, DECODER = "student.dconv_encoder.", "pipeline."
MARK = f"{ENCODER}proj_out.weight"
UNUSED = (f"{DECODER}y_embedder.encoder.", f"{DECODER}y_embedder.bottleneck.")  # of the autoencoder that it was taught by
SIDE = CELL
DECODED_BYTES, ENCODED_BYTES = 1000, 400  # of working memory per pixel and byte of a number; measured by ComfyUI


def read_mage_sizes(shapes: Mapping[str, Shape]) -> MageSizes:
    """The sizes that *shapes* (published names, no prefix) show. Raises ``KeyError`` for missing tensors."""
    pixel, values = shapes[f"{DECODER}x_embedder.embedder.0.weight"]
    return MageSizes(
        latent=shapes[MARK][0] // 2,
        head=shapes[f"{ENCODER}patch_cond_embed.weight"][0],
        width=shapes[MARK][1],
        pixel=pixel,
        colours=shapes[f"{DECODER}final_layer.linear.weight"][0],
        head_blocks=count_blocks(shapes, ENCODER + "head_blocks.{}."),
        encoder_blocks=count_blocks(shapes, ENCODER + "blocks.{}."),
        decoder_blocks=count_blocks(shapes, DECODER + "blocks.{}."),
        pixel_blocks=count_blocks(shapes, DECODER + "dec_net.res_blocks.{}."),
    )


def build_mage_vae(sizes: MageSizes) -> MageVAE:
    """The network, its parameters on the meta device."""
    with torch.device("meta"):
        return MageVAE(sizes).eval().requires_grad_(False)


def load_mage_vae(model: MageVAE, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        names = {_own_name(key): key for key in part.shapes() if not key.startswith(UNUSED)}
        renamed = RenamedSource(part, names, {name: part.shapes()[key] for name, key in names.items()})
        load_published(model, renamed, dtype, WHAT)


def _own_name(key: str) -> str:
    """The parameter for the tensor *key*."""
    if key.startswith(ENCODER):
        return f"dconv_encoder.{key.removeprefix(ENCODER)}"
    return f"decoder_model.{key.removeprefix(DECODER)}" if key.startswith(DECODER) else key


def decode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x C x height x width."""
    return DECODED_BYTES * shape[-2] * shape[-1] * SIDE**2 * dtype_bytes


def encode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode pictures of *shape*, B x channels x height x width."""
    return ENCODED_BYTES * shape[-2] * shape[-1] * dtype_bytes
