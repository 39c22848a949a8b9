"""Write an adapter with seeded random weights in InstantID's layout, for a model of any size.

    python examples/face_adapter/write_random_weights.py OUT.safetensors [--family sdxl] [--shrink N] [--seed 0] [--dtype fp16]

``--family`` and ``--shrink`` are those of ``benchmarks/make_checkpoint.py``: the adapter fits the checkpoint that it writes.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from comfy.families.attention_blocks import cross_attention_blocks

FACE_CHANNELS, HEAD_CHANNELS, TOKENS, DEPTH = 512, 64, 16, 4
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def adapter_layout(unet_config: Mapping[str, Any], width: int = 1280, depth: int = DEPTH) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every tensor of an adapter for a UNet; *width* and *depth* of its resampler."""
    context = unet_config["context_dim"]
    yield "image_proj.latents", (1, TOKENS, width)
    yield from _linear("image_proj.proj_in", width, FACE_CHANNELS)
    yield from _linear("image_proj.proj_out", context, width)
    yield from _norm("image_proj.norm_out", context)
    inner = max(1, width // HEAD_CHANNELS) * HEAD_CHANNELS
    for layer in range(depth):
        place = f"image_proj.layers.{layer}"
        for norm in ("norm1", "norm2"):
            yield from _norm(f"{place}.0.{norm}", width)
        yield f"{place}.0.to_q.weight", (inner, width)
        yield f"{place}.0.to_kv.weight", (2 * inner, width)
        yield f"{place}.0.to_out.weight", (width, inner)
        yield from _norm(f"{place}.1.0", width)
        yield f"{place}.1.1.weight", (4 * width, width)
        yield f"{place}.1.3.weight", (width, 4 * width)
    for number, block in enumerate(cross_attention_blocks(unet_config)):
        for part in ("to_k_ip", "to_v_ip"):
            yield f"ip_adapter.{2 * number + 1}.{part}.weight", (block.width, context)


def random_adapter(
    unet_config: Mapping[str, Any], seed: int = 0, dtype: torch.dtype = torch.float32, width: int = 1280, depth: int = DEPTH
) -> dict[str, Tensor]:
    """The tensors: normal, scaled by fan-in, norms about 1."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in adapter_layout(unet_config, width, depth):
        values = torch.randn(shape, generator=generator)
        is_norm = len(shape) == 1 and name.endswith(".weight")
        scale = shape[-1] ** -0.5 if len(shape) == 2 else 0.02 if len(shape) == 1 else 1.0
        tensors[name] = (values * scale + (1.0 if is_norm else 0.0)).to(dtype)
    return tensors


def _linear(name: str, out: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, inner)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def main() -> None:
    """Write the file that the command line names."""
    from benchmarks.make_checkpoint import family

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--family", default="sdxl")
    parser.add_argument("--shrink", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    given = parser.parse_args()
    config = family(given.family, given.shrink).unet.as_dict()
    width = max(HEAD_CHANNELS, 1280 // given.shrink)
    save_file(random_adapter(config, given.seed, DTYPES[given.dtype], width), given.out)


if __name__ == "__main__":
    main()
