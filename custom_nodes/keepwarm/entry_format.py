"""One stored result as bytes: what it is the result of, its structure, the digests of its tensors, and a seal over all of it.

    "KWE1"  length of the header (4 bytes, big-endian)  header (JSON)  bytes of small tensors  kind of seal (1 byte)  seal (32 bytes)

Large tensors are kept apart, each under the BLAKE3 digest of its bytes. The seal is a BLAKE3 digest, or an HMAC-SHA-256 when a key is
set; as it covers the digests it covers the tensors. An entry names its key, so it cannot stand in for another.
"""

import hashlib
import hmac
import json
import struct
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from .units import MIB
from .value_codec import Buffer, Malformed, NotRepresentable, decode, encode, expected_bytes

MAGIC = b"KWE1"
FORMAT = 1
SEAL_BYTES = 33
# Before the header come the mark and its length.
START_BYTES = len(MAGIC) + 4
# A header is parsed in one go, which stops every other thread; within these limits that takes a tenth of a second.
MAX_HEADER_BYTES = 4 * MIB
MAX_HEADER_ITEMS = 250_000
# Header and small tensors; what is longer is neither stored nor read.
MAX_ENTRY_BYTES = 64 * MIB
# Tensors up to this size lie in the entry itself: another round trip would cost more.
INLINE_BYTES = 64 << 10
# Hashing is spread over threads from this size on.
PARALLEL_BYTES = 1 * MIB


class Rejected(ValueError):
    """An entry that is not used: damaged, foreign, of another format or with a wrong seal. The message says which."""


class Damaged(Rejected):
    """The bytes of a tensor are not those that were stored."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A large tensor's bytes and their digest."""

    digest: str
    data: Any

    @property
    def size(self) -> int:
        """Its bytes."""
        return memoryview(self.data).nbytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """An entry in parts to be written one after the other, and the blobs it refers to."""

    entry: list[Any]
    blobs: list[Blob]


@dataclass(frozen=True, slots=True)
class Opened:
    """An entry whose seal is right; ``wanted`` gives digest and size of each blob it needs, ``total_bytes`` what all tensors take."""

    header: dict[str, Any]
    inline: memoryview
    wanted: dict[str, int]
    total_bytes: int


class Sealer:
    """Makes and opens entries. Holds the key, if any; any thread."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = None if key is None else hashlib.sha256(b"keepwarm cache entry 1\0" + key).digest()

    def seal(self, key: str, class_type: str, value: Any) -> Sealed:
        """Entry and blobs for *value* under the cache key *key*. No tensor is copied.

        Raises ``NotRepresentable``, also for what would make a larger entry than one can be.
        """
        encoded = encode(value)
        inline: list[Any] = []
        blobs: dict[str, Blob] = {}
        described = []
        inline_bytes = 0
        for buffer in encoded.buffers:
            size = memoryview(buffer.data).nbytes
            about = dict(buffer.about)
            if size <= INLINE_BYTES:
                about["at"] = inline_bytes
                inline.append(buffer.data)
                inline_bytes += size
            else:
                about["blake3"] = digest = digest_of(buffer.data)
                blobs[digest] = Blob(digest, buffer.data)
            described.append(about)
        header = json.dumps(
            {"format": FORMAT, "key": key, "class": class_type, "value": encoded.tree, "tensors": described}, separators=(",", ":")
        ).encode()
        if len(header) > MAX_HEADER_BYTES or _items(header) > MAX_HEADER_ITEMS or len(header) + inline_bytes > MAX_ENTRY_BYTES - 64:
            raise NotRepresentable(f"its structure takes {len(header)} bytes with {_items(header)} items, its small tensors {inline_bytes}")
        parts = [MAGIC + struct.pack(">I", len(header)) + header, *inline]
        return Sealed([*parts, self._seal(parts)], list(blobs.values()))

    def open(self, key: str, data: Any) -> Opened:
        """Check an entry that was stored under *key*. Raises ``Rejected``."""
        view = memoryview(data)
        header_bytes = check_start(view, view.nbytes)
        body, seal = view[:-SEAL_BYTES], bytes(view[-SEAL_BYTES:])
        if not hmac.compare_digest(seal, self._seal([body])):
            raise Rejected("its seal is wrong: it is damaged, or was sealed with another KEEPWARM_CACHE_KEY")
        text, inline = bytes(body[START_BYTES : START_BYTES + header_bytes]), body[START_BYTES + header_bytes :]
        if _items(text) > MAX_HEADER_ITEMS:
            raise Rejected(f"its header has more than {MAX_HEADER_ITEMS} items")
        try:
            header = json.loads(text)
            if header["format"] != FORMAT or header["key"] != key:
                raise Rejected("it belongs to another key or format")
            return Opened(header, inline, *_wanted(header["tensors"], inline.nbytes))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise error if isinstance(error, Rejected) else Rejected(f"its header cannot be read: {error}") from None

    def _seal(self, parts: list[Any]) -> bytes:
        if self._key is None:
            digest = blake3()
            for part in parts:
                digest.update(part)
            return b"b" + digest.digest()
        code = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            code.update(part)
        return b"h" + code.digest()


def read_value(opened: Opened, blobs: dict[str, Any]) -> Any:
    """The value of an entry; *blobs* holds what it wanted, as it came from the store. Raises ``Rejected``.

    Tensors use the blobs' memory where that is writable.
    """
    buffers = []
    used: set[str] = set()
    try:
        for about in opened.header["tensors"]:
            size = expected_bytes(about)
            if "blake3" not in about:
                buffers.append(Buffer(about, opened.inline[about["at"] : about["at"] + size]))
                continue
            data = memoryview(blobs[about["blake3"]])
            if data.nbytes != size or digest_of(data) != about["blake3"]:
                raise Damaged("the bytes of a tensor are damaged")
            # Two tensors of equal bytes are one blob; they were apart, so that changing one does not change the other.
            buffers.append(Buffer(about, bytearray(data) if about["blake3"] in used else data))
            used.add(about["blake3"])
        return decode(opened.header["value"], buffers)
    except (Malformed, KeyError, TypeError, RecursionError) as error:
        raise Rejected(f"its structure is wrong: {error}") from None


def digest_of(data: Any) -> str:
    """The BLAKE3 digest of bytes in memory, 64 hexadecimal digits."""
    view = memoryview(data)
    threads = blake3.AUTO if view.nbytes >= PARALLEL_BYTES else 1
    return blake3(view, max_threads=threads).hexdigest()


def check_start(start: Any, size: int | None = None) -> int:
    """Look at the first bytes of an entry of *size* bytes (None: not known yet); the bytes of its header. Raises ``Rejected``.

    ``START_BYTES`` of it are enough; whatever is no entry, or claims more than one can hold, need not be read any further.
    """
    view = memoryview(start)
    if view.nbytes < START_BYTES or bytes(view[: len(MAGIC)]) != MAGIC:
        raise Rejected("it is not an entry, or one of another format")
    (header_bytes,) = struct.unpack(">I", view[len(MAGIC) : START_BYTES])
    if header_bytes > MAX_HEADER_BYTES:
        raise Rejected(f"its header has {header_bytes} bytes, more than {MAX_HEADER_BYTES}")
    if size is not None and START_BYTES + header_bytes + SEAL_BYTES > size:
        raise Rejected("its header is longer than itself")
    return header_bytes


def _items(header: bytes) -> int:
    """How many things a header can hold at most: whatever is parsed stands behind one of these."""
    return header.count(b",") + header.count(b"[") + header.count(b"{")


def _wanted(described: Any, inline_bytes: int) -> tuple[dict[str, int], int]:
    """(digest -> size of each blob, bytes of all tensors), after checking that the small tensors are the *inline_bytes* that are there."""
    if not isinstance(described, list):
        raise Rejected("it has no list of tensors")
    wanted: dict[str, int] = {}
    total_bytes = used_bytes = 0
    for about in described:
        size = expected_bytes(about)
        total_bytes += size
        if "blake3" in about:
            digest = about["blake3"]
            if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
                raise Rejected("a digest has a wrong form")
            if size <= INLINE_BYTES:
                raise Rejected("a small tensor is kept apart")
            if wanted.setdefault(digest, size) != size:
                raise Rejected("a tensor has two sizes")
            continue
        if type(about.get("at")) is not int or about["at"] != used_bytes or size > INLINE_BYTES:
            raise Rejected("a small tensor is missing")
        used_bytes += size
    if used_bytes != inline_bytes:
        raise Rejected(f"its small tensors take {inline_bytes} bytes where {used_bytes} are described")
    return wanted, total_bytes
