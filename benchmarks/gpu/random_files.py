"""Checkpoints of real shapes with random weights, written as fast as the disk takes them."""

from __future__ import annotations

import json
import math
import os
import pathlib

import torch

from benchmarks.make_checkpoint import PARTS, Family, checkpoint_layout

BLOCK = 1 << 24  # random numbers that all weights are cut from


def write_quickly(path: pathlib.Path, sizes: Family, seed: int) -> None:
    """Write a checkpoint of *sizes* in half precision to *path*, which appears when it is complete.

    Matrices are cut from one block of random numbers at changing places and scaled by fan-in; scales of norms are 1, biases small.
    """
    layout = checkpoint_layout(sizes, PARTS)
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(seed)).half()
    header: dict[str, object] = {"__metadata__": sizes.metadata()}
    position = 0
    for key, shape in layout.items():
        size = 2 * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with open(partial, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, (key, shape) in enumerate(layout.items()):
            file.write(_values(block, key, shape, number).view(torch.uint8).numpy())
    os.replace(partial, path)


def _values(block: torch.Tensor, key: str, shape: tuple[int, ...], number: int) -> torch.Tensor:
    count = math.prod(shape)
    if len(shape) < 2 and key.endswith("weight"):
        return torch.ones(count, dtype=torch.half)
    scale = 0.02 if len(shape) < 2 or "embedding" in key else math.prod(shape[1:]) ** -0.5
    first = (number * 7919) % (BLOCK // 2)
    values = block[first : first + count]
    if len(values) < count:
        values = torch.cat([values, block.repeat(-(-(count - len(values)) // BLOCK))[: count - len(values)]])
    return values * scale
