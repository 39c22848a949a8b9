"""Making a stored part: the memory that a reader fills is the file's, so storing costs no copy.

The file has a temporary name and an exclusive lock until it is complete; one whose lock can be had belongs to a process that died. Room is
set aside by ``fallocate`` before memory is handed out, since touching pages that a full file system does not have would kill the process.
As soon as a block is read it is mapped privately: what anybody writes into it later, a loader included, never reaches the file.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy.ram_model_store import locks
from comfy.ram_model_store.checking import sums_of
from comfy.ram_model_store.folder import StoreFolder
from comfy.ram_model_store.mapping import dtype_name, make_private, tensor_over, twin_mapping
from comfy.ram_model_store.part_format import PAGE_BYTES, Block, PartTable, SourceFacts, StoredTensor, encode

if TYPE_CHECKING:
    from torch import Tensor

fcntl = lazy_module("fcntl")  # Windows has none
BLOCK_ALIGNMENT_BYTES = 64
GROWTH = 16  # a sixteenth more than was thought is still within what the cap leaves


class WritableBlock:
    """*size_bytes* of the file from *start* as memory: ``tensor``, all of it as bytes, keeps it alive."""

    def __init__(self, descriptor: int, start: int, size_bytes: int) -> None:
        """Raises ``OSError``. The room must have been set aside."""
        self._descriptor, self.start, self.size_bytes = descriptor, start, size_bytes
        length = -(-max(1, size_bytes) // PAGE_BYTES) * PAGE_BYTES
        self.mapping = mmap.mmap(descriptor, length, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=start)
        whole = tensor_over(self.mapping, length)
        self._address = whole.data_ptr()
        self.tensor: Tensor = whole[:size_bytes]

    def sums(self) -> tuple[int, ...]:
        """Of what it holds now, for its :class:`Block`."""
        return sums_of(tensor_over(self.mapping, len(self.mapping)))

    def populate(self, first: int, stop: int) -> None:
        """Its pages are there already."""

    def seal(self) -> None:
        """It is filled: what is written into it from now on stays this process's own. Raises ``OSError``."""
        make_private(self.mapping, self._address, self._descriptor, self.start)


class PartWriter:
    """One part on its way into the store. One thread; ends with :meth:`finish` or :meth:`abandon`.

    *descriptor* is of the new file *temporary*, locked, of which *room_bytes* are set aside; *name* is what it will be called. *problem*
    says why nothing will come of it, "" as long as all is well; *is_unfit* is for who knows that it had better not.
    """

    def __init__(self, folder: StoreFolder, name: str, temporary: str, descriptor: int, room_bytes: int) -> None:
        self._folder, self.name, self._temporary, self._descriptor = folder, name, temporary, descriptor
        self._room_bytes, self._end = room_bytes, PAGE_BYTES
        self._limit_bytes = room_bytes + room_bytes // GROWTH
        self._blocks: list[Block] = []
        self.mappings: list[mmap.mmap] = []
        self.problem, self.is_unfit = "", False

    def descriptor(self) -> int:
        """Of the open file; -1 when it is closed."""
        return self._descriptor

    def block(self, size_bytes: int) -> WritableBlock | None:
        """Memory of the file for one read; None when there is no more, and from then on."""
        if self.problem:
            return None
        start = self._end
        if start + size_bytes > self._limit_bytes:
            self.problem = "it takes more than its loader said"
            return None
        try:
            self._extend(start + size_bytes)
            made = WritableBlock(self._descriptor, start, size_bytes)
        except OSError as error:
            self.problem = f"{size_bytes} bytes more are not to be had ({error.strerror or error})"
            return None
        self._end = start + len(made.mapping)
        self.mappings.append(made.mapping)
        return made

    def twins(self) -> list[Tensor | None]:
        """Of each of ``mappings``, its second mapping for page-locking."""
        starts = [block.start for block in self._blocks]
        return [twin_mapping(self._descriptor, len(mapping), start) for mapping, start in zip(self.mappings, starts)]

    def _extend(self, stop: int) -> None:
        """Set aside what is missing up to *stop*. Raises ``OSError``."""
        stop = -(-stop // PAGE_BYTES) * PAGE_BYTES
        if stop > self._room_bytes:
            os.posix_fallocate(self._descriptor, self._room_bytes, stop - self._room_bytes)
            self._room_bytes = stop

    def filled(self, block: WritableBlock, tensors: Sequence[StoredTensor]) -> None:
        """*block* now holds *tensors*."""
        sums = block.sums()
        try:
            block.seal()
        except OSError as error:
            self.problem = f"{error.strerror or error}"
            return
        self._blocks.append(Block(block.start, block.size_bytes, tuple(tensors), sums))

    def finish(self, key: str, label: str, sources: Sequence[SourceFacts], seconds: float) -> int:
        """Complete the file and give it its name; returns its blocks' bytes.

        Raises ``OSError``, ``StoreBusy`` or ``StoredPartError``, and then it is gone.
        """
        table = PartTable(key, label, tuple(sources), tuple(self._blocks))
        try:
            page, raw = encode(table, self._end, seconds)
            self._extend(self._end + len(raw))
            _write(self._descriptor, raw, self._end)
            os.ftruncate(self._descriptor, self._end + len(raw))
            _write(self._descriptor, page, 0)
            with locks.books(self._folder), self._folder.opened() as folder:
                folder.rename(self._temporary, self.name)
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)  # held by the mappings from now on
        except BaseException:
            self.abandon()
            raise
        self._close()
        return table.nbytes()

    def abandon(self) -> None:
        """Take the file away. Memory that was handed out stays as long as it is used. A second call does nothing."""
        if self._descriptor >= 0:
            try:
                with self._folder.opened() as folder:
                    folder.remove(self._temporary)
            finally:
                self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def copy_into(writer: PartWriter, source: int, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """*tensors* of the model file number *source*, copied into a new block; None when there is no room."""
    starts, end = {}, 0
    for key, tensor in tensors.items():
        starts[key] = end
        end += -(-tensor.nbytes // BLOCK_ALIGNMENT_BYTES) * BLOCK_ALIGNMENT_BYTES
    block = writer.block(end)
    if block is None:
        return None
    copies = {}
    for key, tensor in tensors.items():
        copies[key] = block.tensor[starts[key] : starts[key] + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        copies[key].copy_(tensor)
    writer.filled(
        block, [StoredTensor(source, key, dtype_name(tensor.dtype), block.start + starts[key]) for key, tensor in tensors.items()]
    )
    return copies


def _write(descriptor: int, raw: bytes, start: int) -> None:
    view = memoryview(raw)
    while view:
        count = os.pwrite(descriptor, view, start)
        view, start = view[count:], start + count
