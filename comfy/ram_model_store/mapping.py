"""Stored parts as memory of this process: mapped whole and privately, so that what this process writes stays its own.

Tensors over a mapping keep it alive, and the mapping keeps the file's descriptor open, on which it holds a shared ``flock``: that is how
others see that somebody uses the file. Dropping the last tensor unmaps, closes and unlocks; so does any end of the process.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import stat
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy.ram_model_store.folder import OTHERS, OpenFolder
from comfy.ram_model_store.part_format import PAGE_BYTES, Head, PartTable, StoredPartError, read_head, read_table

if TYPE_CHECKING:
    from torch import Tensor, dtype

fcntl = lazy_module("fcntl")  # Windows has none
torch = lazy_module("torch")
FAILED = ctypes.c_void_p(-1).value
PAGE_MAP, PAGE_ENTRY_BYTES = "/proc/self/pagemap", 8


class MappedPart:
    """A part that was found complete; :meth:`tensors` gives views of it. Nothing of its blocks is read before it is touched."""

    def __init__(self, name: str, head: Head, table: PartTable, mapping: mmap.mmap, inode: int = 0, twin: Tensor | None = None) -> None:
        self.name, self.head, self.table, self.mapping, self.inode, self.twin = name, head, table, mapping, inode, twin

    @functools.cached_property
    def _memory(self) -> Tensor:
        return tensor_over(self.mapping, self.head.table_start)

    def tensors(self, source: int, keys: list[str], dtype: dtype | None) -> dict[str, Tensor] | None:
        """The tensors *keys* of the model file number *source*, floating ones in *dtype* (None: as in the file); None unless all are here.

        Where one block holds all of them they come from it, as they lay when they were read.
        """
        kept = {key: _kept(self.table.sources[source].tensors[key][0], dtype) for key in keys}
        anywhere: dict[str, int] = {}
        for block in self.table.blocks:
            held = {one.key: one.start for one in block.tensors if one.source == source and kept.get(one.key) == one.dtype}
            if len(held) == len(kept):
                return self._views(source, {key: held[key] for key in keys}, kept)
            anywhere = {**held, **anywhere}
        return self._views(source, {key: anywhere[key] for key in keys}, kept) if len(anywhere) == len(kept) else None

    def _views(self, source: int, starts: dict[str, int], kept: dict[str, str]) -> dict[str, Tensor]:
        views = {}
        with torch.inference_mode(False):
            for key, start in starts.items():
                shape, dtype = self.table.sources[source].tensors[key][1], getattr(torch, kept[key])
                size = functools.reduce(int.__mul__, shape, dtype.itemsize)
                views[key] = self._memory[start : start + size].view(dtype).view(shape)
        return views


def open_shared(folder: OpenFolder, name: str, for_twin: bool = False) -> int | None:
    """The file *name*, open and locked as in use; None where there is none. *for_twin*: so that it can be mapped shared, too.

    Call it with the books locked. Raises ``StoredPartError`` for what is no file of this user's store.
    """
    try:
        descriptor = folder.open(name, os.O_RDWR if for_twin else os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoredPartError(f"it cannot be opened ({error.strerror}); links are not followed") from error
    try:
        check_file(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoredPartError("somebody has it locked") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_used(folder: OpenFolder, name: str) -> bool:
    """Whether any process, this one included, has the file *name* locked as in use. Call it with the books locked."""
    try:
        descriptor = folder.open(name, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def map_part(descriptor: int, name: str, key: str, inode: int = 0, with_twin: bool = False) -> MappedPart:
    """The part in the open file, checked and mapped; closes *descriptor*. Raises ``StoredPartError`` for one that is not *key*'s or not in
    order, and ``OSError``.
    """
    try:
        head = read_head(os.pread(descriptor, PAGE_BYTES, 0), check_file(descriptor))
        table = read_table(os.pread(descriptor, head.table_bytes, head.table_start), head)
        if table.key != key:
            raise StoredPartError("it is another part")
        mapping = mmap.mmap(descriptor, head.table_start, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        return MappedPart(name, head, table, mapping, inode, twin_mapping(descriptor, head.table_start) if with_twin else None)
    finally:
        os.close(descriptor)  # the mapping has one of its own


def twin_mapping(descriptor: int, length: int, start: int = 0) -> Tensor | None:
    """*length* bytes of the open file from *start*, mapped shared, for page-locking; None where the system refuses. Never write into it."""
    try:
        return tensor_over(
            mmap.mmap(descriptor, length, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=start), length
        )
    except OSError:
        return None


def is_untouched(address: int, size_bytes: int) -> bool | None:
    """Whether this process has no page of its own in the *size_bytes* at *address*, privately mapped memory of a file: nobody wrote there.

    None where the system does not tell (Linux, proc(5): ``pagemap``).
    """
    first, stop = address // mmap.PAGESIZE, -(-(address + size_bytes) // mmap.PAGESIZE)
    try:
        with open(PAGE_MAP, "rb", buffering=0) as file:
            file.seek(first * PAGE_ENTRY_BYTES)
            raw = bytearray(file.read((stop - first) * PAGE_ENTRY_BYTES) or b"")
    except OSError:
        return None
    if len(raw) != (stop - first) * PAGE_ENTRY_BYTES:
        return None
    with torch.inference_mode(False):
        kinds = torch.frombuffer(raw, dtype=torch.int64) >> 61 & 7  # present, swapped, of a file
        return bool(((kinds & 5 != 4) & (kinds & 2 == 0)).all())


def check_file(descriptor: int) -> int:
    """The size in bytes of an open file of the store. Raises ``StoredPartError`` unless it is a plain file that is this user's alone."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise StoredPartError("it is no plain file")
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & OTHERS:
        raise StoredPartError(f"it belongs to user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o}")
    if status.st_nlink > 1:
        raise StoredPartError("it has a second name")
    return status.st_size


def address_of(mapping: mmap.mmap) -> int:
    """Where *mapping* lies in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


def tensor_over(mapping: mmap.mmap, size_bytes: int) -> Tensor:
    """The first *size_bytes* of *mapping* as bytes, an ordinary tensor that keeps it alive."""
    with torch.inference_mode(False):
        return torch.frombuffer(memoryview(mapping), dtype=torch.uint8, count=size_bytes)


def make_private(mapping: mmap.mmap, address: int, descriptor: int, offset: int) -> None:
    """Have *mapping*, shared until now and at *address*, show the same bytes of the file privately. Raises ``OSError``.

    The system does that in one step; whoever looks into it notices nothing, and from now on writes to pages of its own.
    """
    wanted = mmap.PROT_READ | mmap.PROT_WRITE
    fixed_flag = 0x10  # MAP_FIXED, which the module mmap does not name
    found = _system_mmap()(address, len(mapping), wanted, mmap.MAP_PRIVATE | fixed_flag, descriptor, offset)
    if found == FAILED:
        raise OSError(ctypes.get_errno(), "a block cannot be mapped privately")


def _kept(stored: str, dtype: dtype | None) -> str:
    """The name of the dtype that a tensor stored as *stored* comes in when *dtype* is asked for."""
    return stored if dtype is None or not getattr(torch, stored).is_floating_point else dtype_name(dtype)


def dtype_name(dtype: dtype) -> str:
    """torch's own name for it, without its module's."""
    return str(dtype).removeprefix("torch.")


@functools.cache
def _system_mmap() -> ctypes._NamedFuncPointer:
    found = ctypes.CDLL(None, use_errno=True).mmap
    found.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    found.restype = ctypes.c_void_p
    return found
