"""The form of a stored part: one page that tells where things are, blocks of weights as the reader fills them, a table behind them.

The first page (:data:`HEAD`) names the version of the form, the size of the file, the table's place and digest, what reading the part
took, and ends in a digest of itself. The table is JSON: the key of the part, the tensors of its model files (names, dtypes and shapes, so
that a loader finds its way without opening them), and for each block which tensors it holds, in which dtype, and where, and sums of its
bytes. Everything but those sums is checked before a block is mapped; they are compared after the load (``checking.py``). Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VERSION = 2
MAGIC = b"keepwarm weights"
PAGE_BYTES = 4096
MAX_TABLE_BYTES = 256 << 20
MAX_SIDES = 64
MAX_SIDE = 1 << 48
SUM_BYTES = 4 << 20
DIGEST_BYTES = 32
HEAD = struct.Struct(f"<16sIIQQQd{DIGEST_BYTES}s")  # magic, version, 0, file bytes, table's start and bytes, seconds, table's digest
ITEM_BYTES = {
    "bfloat16": 2,
    "bool": 1,
    "complex64": 8,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "int8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "uint8": 1,
}


class StoredPartError(ValueError):
    """A file of the store is not what it should be; the text says in what."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """A model file as loaders see it: its *path*, the *metadata* in its header, and (dtype, shape) of its *tensors* by name."""

    path: str
    metadata: Mapping[str, str]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """The tensor *key* of the model file with number *source*, in *dtype* from byte *start* of the stored file."""

    source: int
    key: str
    dtype: str
    start: int


@dataclass(frozen=True, slots=True)
class Block:
    """*size* bytes from *start* of the stored file, filled by one read, and the *tensors* that lie in them.

    *sums* are those of each ``SUM_BYTES`` of its pages as 64-bit numbers, modulo 2**64, signed.
    """

    start: int
    size: int
    tensors: tuple[StoredTensor, ...]
    sums: tuple[int, ...] = ()

    def pages_bytes(self) -> int:
        """Bytes of its pages."""
        return -(-max(1, self.size) // PAGE_BYTES) * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class PartTable:
    """All that rebuilding a part needs to know: the text of its *key*, its model files, its blocks; *label* is for people."""

    key: str
    label: str
    sources: tuple[SourceFacts, ...] = ()
    blocks: tuple[Block, ...] = field(default_factory=tuple)

    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return sum(block.size for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Head:
    """What the first page says. *seconds*: what reading the part took whoever stored it."""

    file_bytes: int
    table_start: int
    table_bytes: int
    seconds: float
    table_digest: bytes

    def encoded(self) -> bytes:
        """The page."""
        said = HEAD.pack(MAGIC, VERSION, 0, self.file_bytes, self.table_start, self.table_bytes, self.seconds, self.table_digest)
        return (said + _digest(said)).ljust(PAGE_BYTES, b"\0")


def encode(table: PartTable, table_start: int, seconds: float) -> tuple[bytes, bytes]:
    """(the first page, the table's bytes) of a file whose table begins at *table_start*. Raises ``StoredPartError`` if it is too long."""
    sources = [{"path": one.path, "metadata": dict(one.metadata), "tensors": dict(one.tensors)} for one in table.sources]
    blocks = [
        [block.start, block.size, [[one.source, one.key, one.dtype, one.start] for one in block.tensors], block.sums]
        for block in table.blocks
    ]
    said = {"key": table.key, "label": table.label, "sources": sources, "blocks": blocks}
    raw = json.dumps(said, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    if len(raw) > MAX_TABLE_BYTES:
        raise StoredPartError(f"its table would take {len(raw)} bytes")
    return Head(table_start + len(raw), table_start, len(raw), seconds, _digest(raw)).encoded(), raw


def read_head(page: bytes, file_bytes: int) -> Head:
    """What the first *page* of a file of *file_bytes* says. Raises ``StoredPartError``."""
    if len(page) < PAGE_BYTES or page[: len(MAGIC)] != MAGIC:
        raise StoredPartError("it is not a stored part")
    said, digest = page[: HEAD.size], page[HEAD.size : HEAD.size + DIGEST_BYTES]
    _, version, _, stated_bytes, table_start, table_bytes, seconds, table_digest = HEAD.unpack(said)
    if version != VERSION:
        raise StoredPartError(f"it has version {version} of the form, this server writes {VERSION}")
    if digest != _digest(said):
        raise StoredPartError("its first page is damaged")
    if stated_bytes != file_bytes:
        raise StoredPartError(f"it has {file_bytes} bytes and should have {stated_bytes}")
    if table_bytes > MAX_TABLE_BYTES or table_start % PAGE_BYTES or table_start < PAGE_BYTES or table_start + table_bytes != file_bytes:
        raise StoredPartError("its table lies where none can be")
    if not (math.isfinite(seconds) and seconds >= 0):
        raise StoredPartError("it does not say what reading took")
    return Head(stated_bytes, table_start, table_bytes, seconds, table_digest)


def read_table(raw: bytes, head: Head) -> PartTable:
    """The table that *raw* holds, checked against *head*: dtypes, sizes, places, overlaps. Raises ``StoredPartError``."""
    if len(raw) != head.table_bytes or _digest(raw) != head.table_digest:
        raise StoredPartError("its table is damaged")
    try:
        said = json.loads(raw)
        sources = tuple(_source(one) for one in said["sources"])
        blocks = tuple(_block(one, sources) for one in said["blocks"])
        table = PartTable(_text(said["key"]), _text(said["label"]), sources, blocks)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise StoredPartError(f"its table is not understood ({error})") from error
    _check_places([(block.start, block.start + block.size) for block in blocks], PAGE_BYTES, head.table_start, "blocks")
    if any(block.start % PAGE_BYTES for block in blocks):
        raise StoredPartError("a block begins inside a page")
    for block in blocks:
        _check_block(block, sources)
    return table


def _source(said: Any) -> SourceFacts:
    tensors = {_text(key): (dtype, tuple(shape)) for key, (dtype, shape) in said["tensors"].items()}
    for key, (dtype, shape) in tensors.items():
        if dtype not in ITEM_BYTES or len(shape) > MAX_SIDES or any(type(side) is not int or not 0 <= side <= MAX_SIDE for side in shape):
            raise StoredPartError(f"{key[:200]!r} has no dtype or shape that there can be")
    return SourceFacts(_text(said["path"]), {_text(name): _text(value) for name, value in said["metadata"].items()}, tensors)


def _block(said: Any, sources: Sequence[SourceFacts]) -> Block:
    start, size, tensors, sums = said
    found = tuple(StoredTensor(*one) for one in tensors)
    numbers = [start, size, *(number for one in found for number in (one.source, one.start))]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise StoredPartError("a place is no number")
    for one in found:
        if one.source >= len(sources) or one.key not in sources[one.source].tensors or one.dtype not in ITEM_BYTES:
            raise StoredPartError("a block names a tensor or dtype that there is not")
    block = Block(start, size, found, tuple(sums))
    if any(type(number) is not int for number in sums) or len(sums) != -(-block.pages_bytes() // SUM_BYTES):
        raise StoredPartError("a block has not the sums that it should have")
    return block


def _check_block(block: Block, sources: Sequence[SourceFacts]) -> None:
    places = []
    for one in block.tensors:
        size = math.prod(sources[one.source].tensors[one.key][1]) * ITEM_BYTES[one.dtype]
        places.append((one.start, one.start + size))
        if one.start % ITEM_BYTES[one.dtype]:
            raise StoredPartError("a tensor begins inside an element")
    _check_places(places, block.start, block.start + block.size, "tensors")


def _check_places(places: Iterable[tuple[int, int]], first: int, stop: int, what: str) -> None:
    """Raise unless the ranges *places* lie between *first* and *stop* and share no byte."""
    for start, end in sorted(places):
        if start < first:
            raise StoredPartError(f"{what} overlap or lie outside their room")
        first = max(first, end)
    if first > stop:
        raise StoredPartError(f"{what} reach beyond their room")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise StoredPartError("a name is no text")
    return value


def _digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=DIGEST_BYTES).digest()
