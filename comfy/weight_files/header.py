"""The head of a safetensors file: which tensors it holds, of which dtype and shape, and where. No tensor is read.

Format: https://github.com/huggingface/safetensors.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from comfy.families.model_errors import ModelFileError

MAX_HEADER_BYTES = 100_000_000

_DTYPES = {
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "I8": torch.int8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "U8": torch.uint8,
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: its dtype, shape, and the half-open byte range it takes in the file."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class WeightFileHeader:
    """What the head of a safetensors file says: its tensors by name, and the free-form metadata."""

    path: str
    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]


def read_header(path: str) -> WeightFileHeader:
    """Parse and check the header of *path*; no tensor is read.

    Raises ``FileNotFoundError``, or ``ModelFileError`` when the file is not a safetensors file, is truncated, or contradicts itself.
    """
    with open(path, "rb", buffering=0) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(MAX_HEADER_BYTES, file_bytes - 8):
            raise ModelFileError(
                f"{path} is not a safetensors file or is cut short: {file_bytes} bytes, "
                f"of which the header would take {length}; download it again"
            )
        raw = file.read(length)
    try:
        described = json.loads(raw)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelFileError(f"{path} is not a safetensors file: its header is not JSON ({error})") from error
    if not isinstance(described, dict):
        raise ModelFileError(f"{path} is not a safetensors file: its header is a JSON {type(described).__name__}, not an object")
    metadata = described.pop("__metadata__", {}) or {}
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{path}: the header's __metadata__ is not an object")
    entries = {key: _entry(path, key, value, 8 + length) for key, value in described.items()}
    _check_extent(path, entries, 8 + length, file_bytes)
    return WeightFileHeader(path, entries, {str(key): str(value) for key, value in metadata.items()})


def _entry(path: str, key: str, described: object, data_start: int) -> TensorEntry:
    try:
        dtype = _DTYPES[described["dtype"]]  # type: ignore[index]
        shape = tuple(described["shape"])  # type: ignore[index]
        start, stop = described["data_offsets"]  # type: ignore[index]
        valid = all(type(number) is int and number >= 0 for number in (*shape, start, stop)) and start <= stop
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: the header's entry for {key!r} is not understood ({error!r})") from error
    if not valid or stop - start != math.prod(shape) * dtype.itemsize:
        raise ModelFileError(f"{path}: {key!r} claims shape {list(shape)} of {dtype} in bytes {start} to {stop}; the file is damaged")
    return TensorEntry(key, dtype, shape, data_start + start, data_start + stop)


def _check_extent(path: str, entries: Mapping[str, TensorEntry], data_start: int, file_bytes: int) -> None:
    position = data_start
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
        if entry.start != position:
            raise ModelFileError(f"{path}: {entry.key!r} starts at byte {entry.start} instead of {position}; the file is damaged")
        position = entry.stop
    if position > file_bytes:
        raise ModelFileError(f"{path} is cut short: its tensors need {position} bytes, it has {file_bytes}; download it again")
    if position < file_bytes:
        raise ModelFileError(f"{path} has {file_bytes - position} bytes after its last tensor; the file is damaged")
