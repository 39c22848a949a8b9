"""The head of a safetensors file: which tensors it holds, of which dtype and shape, and where. No tensor is read.

Format: https://github.com/huggingface/safetensors.
"""

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import torch

from comfy.families.model_errors import ModelFileError

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 100_000_000
MAX_SIDE = 1 << 48  # no tensor is longer; torch counts elements in 63 bits
MAX_SIDES = 64
SHARED_BYTES_FACTOR = 8  # tensors may share bytes, but a small file must not ask for any amount of memory

_DTYPES = {
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
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


class TensorEntry(NamedTuple):
    """One tensor of a file: its dtype, shape, and the half-open byte range it takes in the file."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return (self.stop - self.start) // self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class WeightFileHeader:
    """What the head of a safetensors file says: its tensors by name, and the free-form metadata."""

    path: str
    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]


def read_header(path: str) -> WeightFileHeader:
    """Parse and check the header of *path*; no tensor is read.

    Bytes that no tensor uses (between tensors, behind the last) and ``__metadata__`` that is not an object are said in the log and do
    no harm; tensors may lie in any order and share bytes. Raises ``FileNotFoundError``, or ``ModelFileError`` when the file is not a
    safetensors file, is cut short, or contradicts itself.
    """
    with open(path, "rb", buffering=0) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(MAX_HEADER_BYTES, file_bytes - 8):
            raise ModelFileError(
                f"{path} is not a safetensors file or is cut short: {file_bytes} bytes, "
                f"of which the header would take {length}; check what it is or download it again"
            )
        raw = file.read(length)
    described = _parsed(path, raw)
    metadata = _metadata(path, described.pop("__metadata__", None))
    entries = {key: _entry(path, key, value, 8 + length) for key, value in described.items()}
    _check_extent(path, entries.values(), 8 + length, file_bytes)
    return WeightFileHeader(path, entries, metadata)


def _parsed(path: str, raw: bytes) -> dict[str, object]:
    try:
        described = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, numbers of thousands of digits
        raise ModelFileError(f"{path} is not a safetensors file: its header is not JSON ({error})") from error
    if not isinstance(described, dict):
        raise ModelFileError(f"{path} is not a safetensors file: its header is a JSON {type(described).__name__}, not an object")
    return described


def _metadata(path: str, found: object) -> dict[str, str]:
    """The file's own notes as strings; none, and a line in the log, when they are not an object."""
    if found is None:
        return {}
    if not isinstance(found, dict):
        log.warning("%s: the header's __metadata__ is a %s instead of an object and is left out", path, type(found).__name__)
        return {}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}


def _entry(path: str, key: str, described: object, data_start: int) -> TensorEntry:
    try:
        dtype_name = described["dtype"]  # type: ignore[index]
        shape = tuple(described["shape"])  # type: ignore[index]
        start, stop = described["data_offsets"]  # type: ignore[index]
        dtype = _DTYPES.get(dtype_name)
        numbers = (start, stop, *shape)
        valid = set(map(type, numbers)) == {int} and min(numbers) >= 0 and start <= stop
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: the header's entry for {key!r} is not understood ({error!r})") from error
    if dtype is None:
        known = ", ".join(sorted(_DTYPES))
        raise ModelFileError(f"{path}: {key!r} has the type {dtype_name!r}, which is not understood; known: {known}")
    fits = valid and len(shape) <= MAX_SIDES and max(shape, default=0) <= MAX_SIDE and stop - start == math.prod(shape) * dtype.itemsize
    if not fits:
        said = f"shape {list(shape)[:MAX_SIDES]} of {dtype} in bytes {start} to {stop}"
        raise ModelFileError(f"{path}: {key!r} claims {said[:500]}; the file is damaged")
    return TensorEntry(key, dtype, shape, data_start + start, data_start + stop)


def _check_extent(path: str, entries: Iterable[TensorEntry], data_start: int, file_bytes: int) -> None:
    """Raise unless every tensor lies in the file; say how many bytes belong to none."""
    position, gap_bytes, tensor_bytes = data_start, 0, 0
    for entry in sorted(entries, key=attrgetter("start", "stop")):
        gap_bytes += max(0, entry.start - position)
        position = max(position, entry.stop)
        tensor_bytes += entry.stop - entry.start
    if position > file_bytes:
        raise ModelFileError(
            f"{path} is cut short: it is incomplete, its tensors need {position} bytes and it has {file_bytes}; copy or download it again"
        )
    if tensor_bytes > SHARED_BYTES_FACTOR * (file_bytes - data_start):
        raise ModelFileError(f"{path}: its tensors share bytes and would take {tensor_bytes} bytes, the file has {file_bytes}")
    unused_bytes = gap_bytes + file_bytes - position
    if unused_bytes:
        log.info("%s: %d of its bytes belong to no tensor", path, unused_bytes)
