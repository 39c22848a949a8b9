"""Reads chosen tensors of a safetensors file by position, into memory of its own or of the caller.

Nothing is mapped: a reader issues large positional reads, several at a time, straight into the destination when the dtype is the
file's, else through a small buffer that is cast on the way. Format: https://github.com/huggingface/safetensors.
"""

import json
import math
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import torch

from comfy.families.model_errors import ModelFileError

MAX_HEADER_BYTES = 100_000_000
CHUNK_BYTES = 8 << 20
ALIGNMENT_BYTES = 64
READ_THREADS = 2
SMALL_BYTES = 8 << 20
HUGE_PAGE_BYTES = 2 << 20

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu, "U16": torch.uint16,
    "U32": torch.uint32, "U64": torch.uint64, "C64": torch.complex64,
}

Allocator = Callable[[int], torch.Tensor]


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

    Raises ``FileNotFoundError``, or ``ModelFileError`` when the file is no safetensors file, is truncated, or contradicts itself.
    """
    with open(path, "rb", buffering=0) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(MAX_HEADER_BYTES, file_bytes - 8):
            raise ModelFileError(f"{path} is no safetensors file or is cut short: {file_bytes} bytes, "
                                 f"of which the header would take {length}; download it again")
        raw = file.read(length)
    try:
        described = json.loads(raw)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelFileError(f"{path} is no safetensors file: its header is not JSON ({error})") from error
    if not isinstance(described, dict):
        raise ModelFileError(f"{path} is no safetensors file: its header is a JSON {type(described).__name__}, not an object")
    metadata = described.pop("__metadata__", {}) or {}
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{path}: the header's __metadata__ is no object")
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


def plain_memory(size_bytes: int) -> torch.Tensor:
    """Fresh memory as a byte tensor, the default allocator: an anonymous mapping in huge pages where the system offers them.

    It goes back to the system as soon as the last view of it is gone. Never an inference tensor.
    """
    with torch.inference_mode(False):
        if size_bytes < SMALL_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
            return torch.empty(size_bytes, dtype=torch.uint8)
        mapping = mmap.mmap(-1, size_bytes + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        mapping.madvise(mmap.MADV_HUGEPAGE)
        start = -torch.frombuffer(mapping, dtype=torch.uint8, count=1).data_ptr() % HUGE_PAGE_BYTES
        return torch.frombuffer(mapping, dtype=torch.uint8, offset=start, count=size_bytes)


class WeightReader:
    """Reads tensors of one open file. Methods may be called from several threads; ``close`` ends its use."""

    def __init__(self, path: str) -> None:
        """Open *path* and check its header; raises what :func:`read_header` raises."""
        self.header = read_header(path)
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        self._seek_lock = threading.Lock()  # guards the file position where positional reads do not exist
        self._bounce = threading.local()

    def __enter__(self) -> "WeightReader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def arena_bytes(self, keys: Iterable[str], dtype: torch.dtype | None = None) -> int:
        """Bytes that :meth:`read` asks its allocator for."""
        return _layout(self._entries(keys), dtype)[1]

    def read(self, keys: Iterable[str], dtype: torch.dtype | None = None, allocate: Allocator = plain_memory,
             threads: int = READ_THREADS) -> dict[str, torch.Tensor]:
        """The tensors *keys* on the CPU, all views of one block obtained from ``allocate(size in bytes)``.

        Floating tensors come in *dtype* (None: the file's). The caller owns the block. Blocks until everything is read.
        Raises ``KeyError`` for an unknown key and ``ModelFileError`` if the file shrank meanwhile.
        """
        entries = self._entries(keys)
        offsets, total = _layout(entries, dtype)
        arena = allocate(total)
        if arena.numel() < total or arena.dtype != torch.uint8:
            raise ValueError(f"the allocator gave {arena.numel()} elements of {arena.dtype}; {total} bytes are needed")
        tensors = {}
        with torch.inference_mode(False):  # the views are ordinary tensors when the block is one
            for entry, offset in zip(entries, offsets):
                kept = _kept_dtype(entry, dtype)
                tensors[entry.key] = arena[offset:offset + entry.elements * kept.itemsize].view(kept).view(entry.shape)
        self.read_into({entry.key: tensors[entry.key] for entry in sorted(entries, key=lambda entry: entry.start)}, threads)
        return tensors

    def read_into(self, destinations: Mapping[str, torch.Tensor], threads: int = READ_THREADS) -> None:
        """Fill each contiguous CPU tensor of *destinations* (key → tensor of the key's shape), casting where dtypes differ.

        Blocks. Raises ``ValueError`` for an unfit destination and ``ModelFileError`` if the file shrank meanwhile.
        """
        for key, tensor in destinations.items():
            if tuple(tensor.shape) != self.header.entries[key].shape or not tensor.is_contiguous() or tensor.device.type != "cpu":
                raise ValueError(f"{key!r} needs a contiguous CPU tensor of shape {self.header.entries[key].shape}")
        pieces = [piece for key, tensor in destinations.items() for piece in self._pieces(key, tensor)]
        if threads <= 1 or len(pieces) <= 1:
            for piece in pieces:
                self._read_piece(*piece)
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="weight-reader") as pool:
            list(pool.map(lambda piece: self._read_piece(*piece), pieces))

    def _entries(self, keys: Iterable[str]) -> list[TensorEntry]:
        return [self.header.entries[key] for key in keys]

    def _pieces(self, key: str, tensor: torch.Tensor) -> Iterable[tuple[TensorEntry, torch.Tensor, int]]:
        entry = self.header.entries[key]
        flat = tensor.view(-1)
        step = CHUNK_BYTES // entry.dtype.itemsize
        for first in range(0, flat.numel(), step):
            yield entry, flat[first:first + step], entry.start + first * entry.dtype.itemsize

    def _read_piece(self, entry: TensorEntry, out: torch.Tensor, position: int) -> None:
        if out.dtype == entry.dtype:
            self._fill(out, position, entry)
            return
        with torch.inference_mode():  # lets any destination be written, whatever mode it was made in
            bounce = self._bounce_buffer()[:out.numel() * entry.dtype.itemsize].view(entry.dtype)
            self._fill(bounce, position, entry)
            out.copy_(bounce)

    def _fill(self, out: torch.Tensor, position: int, entry: TensorEntry) -> None:
        view = memoryview(out.view(torch.uint8).numpy())
        done = 0
        while done < len(view):
            count = self._read_at(view[done:], position + done)
            if count == 0:
                raise ModelFileError(f"{self.header.path} ended inside {entry.key!r}; it was replaced or truncated while it was read")
            done += count

    def _read_at(self, view: memoryview, position: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file, [view], position)
        with self._seek_lock:
            os.lseek(self._file, position, os.SEEK_SET)
            data = os.read(self._file, len(view))
        view[:len(data)] = data
        return len(data)

    def _bounce_buffer(self) -> torch.Tensor:
        """This thread's buffer of one chunk."""
        if not hasattr(self._bounce, "buffer"):
            self._bounce.buffer = torch.empty(CHUNK_BYTES, dtype=torch.uint8)
        return self._bounce.buffer


def _kept_dtype(entry: TensorEntry, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and entry.dtype.is_floating_point else entry.dtype


def _layout(entries: list[TensorEntry], dtype: torch.dtype | None) -> tuple[list[int], int]:
    """Byte offset of each entry in a block where every tensor is aligned, and the block's size."""
    offsets, position = [], 0
    for entry in entries:
        offsets.append(position)
        size = entry.elements * _kept_dtype(entry, dtype).itemsize
        position += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return offsets, position
