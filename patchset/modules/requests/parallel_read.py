"""Reads a safetensors file by several threads, into one block of memory (an arena) of which the tensors are views.

``safe_open`` maps the file: its pages come in one after the other as the weights are copied out of them, and stay mapped meanwhile.
Here they are read in pieces side by side, which drives and network file systems with a queue answer sooner. All tensors of a file
share the block, so it goes when the last of them does. With dynamic VRAM weights stay in their file, and this does nothing.
"""

import concurrent.futures
import functools
import json
import math
import os
from collections.abc import Callable
from typing import Any

import torch

import comfy.memory_management
from comfy.cli_args import args

PIECE_BYTES = 8 * 1024**2
MOST_HEADER_BYTES = 100_000_000
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
WHOLE = {"U8": "uint8", "BOOL": "bool", **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}}
TYPES = {name: getattr(torch, kind) for name, kind in (FLOATS | WHOLE).items()}


def read_in_parallel(path: str, threads: int) -> tuple[dict[str, torch.Tensor], dict[str, str] | None] | None:
    """({name: tensor}, metadata) of *path*; None for a file that this cannot read: the usual reader says what is wrong with it."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(MOST_HEADER_BYTES, size - 8):
            return None
        try:
            header = json.loads(file.read(length))
            metadata = header.pop("__metadata__", None)
            rows = [(name, TYPES[row["dtype"]], row["shape"], *row["data_offsets"]) for name, row in header.items()]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        first = 8 + length
        if size == first or not all(_is_sound(kind, shape, begin, end, size - first) for _, kind, shape, begin, end in rows):
            return None
        arena = torch.empty(size - first, dtype=torch.uint8)
        view = memoryview(arena.numpy())

        def read(begin: int) -> None:
            done, end = begin, min(begin + PIECE_BYTES, size - first)
            while done < end:
                count = os.preadv(file.fileno(), [view[done:end]], first + done)
                if not count:
                    raise EOFError(f"{path} became shorter while it was read")
                done += count

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(read, range(0, size - first, PIECE_BYTES)):
                pass  # raises what a piece raised
    return {name: arena[begin:end].view(kind).reshape(shape) for name, kind, shape, begin, end in rows}, metadata


def _is_sound(kind: torch.dtype, shape: list[int], begin: int, end: int, size: int) -> bool:
    """Whether the tensor lies in the file, is aligned, and takes what its shape says."""
    return 0 <= begin <= end <= size and begin % kind.itemsize == 0 and end - begin == math.prod(shape) * kind.itemsize


def reads_in_parallel(load: Callable[..., Any]) -> Callable[..., Any]:
    """Of ``load_torch_file``: safetensors files that go to the CPU are read so, with --parallel-read N."""
    if not args.parallel_read or not hasattr(os, "preadv"):
        return load

    @functools.wraps(load)
    def load_file(ckpt: str, safe_load: bool = False, device: Any = None, return_metadata: bool = False) -> Any:
        on_cpu = device is None or torch.device(device).type == "cpu"
        if on_cpu and not comfy.memory_management.aimdo_enabled and str(ckpt).lower().endswith((".safetensors", ".sft")):
            found = read_in_parallel(ckpt, args.parallel_read)
            if found is not None:
                return found if return_metadata else found[0]
        return load(ckpt, safe_load, device, return_metadata)

    return load_file
