"""Reads chosen tensors of a safetensors file by position, into fresh memory of their own.

Nothing is mapped: a reader issues large positional reads, several at a time, straight into the destination when the dtype is the
file's, else through a small buffer that is cast on the way. What is to leave nothing in the system's page cache and is not there yet is
read past it, where the file system can: large tensors by the disk itself where they stay, others through a buffer. But what is cast goes
through the page cache, where the system fetches the next meanwhile, and is dropped from there; where it may stay, it is fetched in small
pages.
"""

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import torch

from comfy.families.model_errors import ModelFileError
from comfy.one_thread import one_thread
from comfy.units import MIB
from comfy.weight_files.block_layout import PAGE_BYTES, lay_out
from comfy.weight_files.chunks import Chunk, Slice, plan_chunks
from comfy.weight_files.destinations import Destination, Seam
from comfy.weight_files.direct_reads import DirectReads
from comfy.weight_files.fetching import fetch, fetched_as_asked
from comfy.weight_files.fresh_memory import FreshMemory
from comfy.weight_files.header import TensorEntry, WeightFileHeader, read_header
from comfy.weight_files.pace import BackgroundPace, Note, current_pace, lane
from comfy.weight_files.page_cache import PageCacheGuard, can_drop_pages

__all__ = ["TensorEntry", "WeightFileHeader", "WeightReader", "read_header"]

CHUNK_BYTES = 8 * MIB
READ_THREADS = max(4, min(8, os.cpu_count() or 1))  # more than cores: while one waits for the disk or for Python, another copies
CAST_THREADS = max(2, min(8, os.cpu_count() or 1))  # the system reads ahead, and each needs a processor's cache
PART_BYTES = MIB // 4  # of the file; a processor's cache holds as much, and what becomes of it

Prepare = Callable[[int, int], None]


class BlockMemory(Protocol):
    """Memory for one read: ``tensor`` is all of it as bytes and keeps it alive; any thread may call :meth:`populate`."""

    tensor: torch.Tensor

    def populate(self, first: int, stop: int) -> None:
        """Bytes *first* to *stop* are about to be written."""


MakeBlock = Callable[[int], BlockMemory]


@dataclass(frozen=True, slots=True)
class _Read:
    """The chunks that are *waiting* to be read to their *destinations*.

    *prepare(first, stop)* is told of bytes of the block before they are written, *note(size)* of chunks that have been read. *casts*:
    whether any dtype changes on the way. *seams* are put in place when all chunks have been read.
    """

    waiting: deque[Chunk]
    destinations: Mapping[str, Destination]
    prepare: Prepare
    note: Note
    casts: bool
    seams: list[Seam] = field(default_factory=list)

    def chunks(self, check: Callable[[], None] | None, is_over: Callable[[], bool] | None) -> Iterator[Chunk]:
        """Those that are waiting, each for one thread, until *is_over*; *check* is called before each."""
        while self.waiting:
            if check is not None:
                check()
            if is_over is not None and is_over():
                return
            try:
                chunk = self.waiting.popleft()
            except IndexError:  # another thread took the last
                return
            yield chunk


class WeightReader:
    """Reads tensors of one open file. Methods may be called from several threads; ``close`` ends its use.

    With *drop_pages*, what its reads bring into the system's page cache is dropped again, what was there before is not.
    *between_chunks* is called in the thread that reads, in the background in all that do, many times a second; what it raises ends the
    read at once.
    """

    def __init__(self, path: str, drop_pages: bool = False, between_chunks: Callable[[], None] | None = None) -> None:
        """Open *path* and check its header; raises what :func:`read_header` raises."""
        self._between_chunks = between_chunks
        self._guard: PageCacheGuard | None = None
        self._direct: DirectReads | None = None
        self._seek_lock = threading.Lock()  # guards the file position where positional reads do not exist
        self._bounce = threading.local()
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        try:
            if drop_pages and can_drop_pages():  # before the header: reading it makes the system read ahead
                self._guard = PageCacheGuard(self._file, os.fstat(self._file).st_size)
                self._direct = DirectReads(path, self._file, CHUNK_BYTES) if self._guard.absent_bytes() else None
            self.header = read_header(path)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "WeightReader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        if self._file >= 0:
            if self._direct is not None:
                self._direct.close()
            if self._guard is not None:
                self._guard.drop_all()
            os.close(self._file)
            self._file = -1

    def read(
        self, keys: Iterable[str], dtype: torch.dtype | None = None, threads: int | None = None, make_block: MakeBlock | None = None
    ) -> dict[str, torch.Tensor]:
        """The tensors *keys* on the CPU, all views of one block of fresh memory, or of what *make_block* gives for its size in bytes.

        Floating tensors come in *dtype* (None: the file's). Blocks until everything is read. Raises ``KeyError`` for an unknown key,
        ``ModelFileError`` if the file shrank meanwhile or cannot be read, and ``MemoryError``.
        """
        entries = [self.header.entries[key] for key in keys]
        places, total = lay_out(entries, dtype, by_disk=self._direct is not None)
        memory = (make_block or FreshMemory)(total)
        view = memory.tensor.numpy().data
        in_pages = memory.tensor.data_ptr() % PAGE_BYTES == 0
        destinations = {}
        with torch.inference_mode(False):  # the views are ordinary tensors as the block is
            in_dtype = {dtype: memory.tensor[:total].view(dtype) for dtype in {place.dtype for place in places}}
            for entry, kept, start, stop, read_at in places:
                flat = in_dtype[kept][start // kept.itemsize : stop // kept.itemsize]
                own_pages: tuple[memoryview, int] | tuple[()] = ()
                if in_pages and read_at is not None and self._direct is not None:
                    own_pages = (view, read_at - start)
                destinations[entry.key] = Destination(flat, view[start:stop], start, *own_pages)
            with lane() as note:
                chunks = self._chunks(destinations)
                casts = any(chunk.cast for chunk in chunks)
                read = _Read(deque(chunks), destinations, memory.populate, note, casts)
                with fetched_as_asked(self._file) if self._fetches_small(read) else contextlib.nullcontext():
                    self._fill(read, threads)
            return {entry.key: destinations[entry.key].flat.view(entry.shape) for entry in entries}

    def _chunks(self, destinations: Mapping[str, Destination]) -> list[Chunk]:
        wanted, alone = [], set()
        for key, place in destinations.items():
            entry = self.header.entries[key]
            wanted.append((entry, cast := place.flat.dtype != entry.dtype))
            if place.pages is not None or (cast and entry.stop - entry.start >= PART_BYTES):
                alone.add(key)
        return plan_chunks(wanted, CHUNK_BYTES, alone)

    def _fill(self, read: _Read, threads: int | None) -> None:
        """Read everything, this thread being one of *threads* (None: as many as suit where the file is); after an error all of them stop.

        In the background (:data:`current_pace`) this thread waits until the load is urgent, if it ever is; then it reads along, with
        new threads in place of those that stood back.
        """
        pace = current_pace.get()
        usual = CAST_THREADS if read.casts else READ_THREADS
        count = min(threads or usual, len(read.waiting)) if len(read.waiting) > 1 else 1
        errors: list[BaseException] = []
        working: list[threading.Thread] = []
        try:
            if pace is not None and count > 1:
                working += self._start_helpers(count, read, errors, pace)
                pace.wait_for(working)
                count = min(count, len(read.waiting)) if pace.stands_back else 1
            working += self._start_helpers(count - 1, read, errors, None)
            self._work(read, self._between_chunks)
        finally:
            for helper in working:
                helper.join()
        if errors:
            raise errors.pop()
        for place, content in read.seams:
            place[:] = content

    def _start_helpers(self, count: int, read: _Read, errors: list[BaseException], pace: BackgroundPace | None) -> list[threading.Thread]:
        # Daemons, unlike the threads of a pool: a read that hangs must not keep the process from ending.
        started = [threading.Thread(target=self._help, args=(read, errors, pace), name="weight-reader", daemon=True) for _ in range(count)]
        for helper in started:
            helper.start()
        return started

    def _help(self, read: _Read, errors: list[BaseException], pace: BackgroundPace | None) -> None:
        """Read along on a thread of its own, at *pace*; what goes wrong is added to *errors*."""
        try:
            if pace is None:
                self._work(read, None)
            else:
                pace.prepare_thread()
                self._work(read, self._between_chunks, pace.is_urgent if pace.stands_back else None)
        except BaseException as error:
            errors.append(error)
        finally:
            del errors  # else this frame, which the error holds, would hold the error, and the memory stay until garbage is collected

    def _work(self, read: _Read, check: Callable[[], None] | None, is_over: Callable[[], bool] | None = None) -> None:
        """Read chunks until there are none, or *is_over*; an error leaves none."""
        try:
            with one_thread() if read.casts or self._direct is not None else contextlib.nullcontext():  # torch copies in either case
                for chunk in read.chunks(check, is_over):
                    self._read_chunk(chunk, read)
                    read.note(chunk.stop - chunk.start)
        except BaseException:
            read.waiting.clear()
            raise

    def _read_chunk(self, chunk: Chunk, read: _Read) -> None:
        if chunk.cast or not self._read_directly(chunk, read):
            self._read_through_cache(chunk, read)

    def _read_through_cache(self, chunk: Chunk, read: _Read) -> None:
        if self._fetches_small(read):
            fetch(self._file, chunk.start, chunk.stop)
        if not chunk.cast:
            places = [(piece, read.destinations[piece.entry.key]) for piece in chunk.slices]
            for piece, place in places:
                read.prepare(*place.extent(piece.first, piece.stop))
            self._read_bytes([view for piece, place in places for view in place.views_for(piece, read.seams)], chunk.start, chunk.slices)
        elif len(chunk.slices) == 1:
            self._read_and_cast(chunk.slices[0], read)
        else:
            bounce = self._bounce_buffer()[: chunk.stop - chunk.start]
            self._read_bytes([bounce.numpy().data], chunk.start, chunk.slices)
            self._distribute(bounce, chunk, read)
        if self._guard is not None:
            self._guard.drop(chunk.start, chunk.stop)

    def _fetches_small(self, read: _Read) -> bool:
        """Whether the system is to fetch in small pages: not where they are dropped, as then it takes the same ones again and again."""
        return read.casts and self._guard is None

    def _read_and_cast(self, piece: Slice, read: _Read) -> None:
        """Read *piece* part by part, each of which is cast while the processor's cache holds it, and the system reads the next.

        Parts end where steps of fresh memory do. What is done for each is little: these caches hold no Python meanwhile.
        """
        place, dtype = read.destinations[piece.entry.key], piece.entry.dtype
        bounce = self._bounce_buffer()[:PART_BYTES]
        raw, source, whole = bounce.numpy().data, bounce.view(dtype), PART_BYTES // dtype.itemsize
        position, (begin, end) = piece.start_byte, place.extent(piece.first, piece.stop)
        sizes = _sizes_of_parts(begin // place.flat.itemsize, end // place.flat.itemsize, whole)
        with torch.inference_mode():  # nothing for autograd to note
            for target, elements in zip(place.flat[piece.first : piece.stop].split(sizes), sizes):
                size_bytes, stop = elements * dtype.itemsize, begin + elements * place.flat.itemsize
                self._read_bytes([raw[:size_bytes]], position, (piece,))
                read.prepare(begin, stop)  # as late as can be, for the same reason
                target.copy_(source if elements == whole else source[:elements])
                position, begin = position + size_bytes, stop

    def _distribute(self, content: torch.Tensor, chunk: Chunk, read: _Read) -> None:
        """Copy the bytes of *chunk* to their tensors, casting them where the dtypes differ."""
        with torch.inference_mode():
            for piece in chunk.slices:
                place = read.destinations[piece.entry.key]
                read.prepare(*place.extent(piece.first, piece.stop))
                source = content[piece.start_byte - chunk.start : piece.stop_byte - chunk.start].view(piece.entry.dtype)
                place.flat[piece.first : piece.stop].copy_(source)

    def _read_directly(self, chunk: Chunk, read: _Read) -> bool:
        """Read *chunk* past the page cache; False where it is in there, or the file system has no such reads."""
        direct, guard = self._direct, self._guard
        if direct is None or guard is None or not direct.are_possible or not guard.was_absent(chunk.start, chunk.stop):
            return False
        piece = chunk.slices[0]
        place = read.destinations[piece.entry.key]
        pages = place.pages_for(piece) if len(chunk.slices) == 1 else None
        try:
            if pages is not None:
                read.prepare(*place.extent(piece.first, piece.stop))
                count = direct.read_into(pages, chunk.start, chunk.stop)
            else:
                content = direct.read(chunk.start, chunk.stop)
                count = None if content is None else len(content)
        except OSError as error:
            raise self._unreadable(chunk.start, error) from error
        if count is None:
            return False
        if count < chunk.stop - chunk.start:
            raise self._ended_inside(chunk.slices, chunk.start + count)
        if pages is not None:
            place.settle(piece, read.seams)
        elif content is not None:
            self._distribute(torch.frombuffer(content, dtype=torch.uint8), chunk, read)
        return True

    def _unreadable(self, position: int, error: OSError) -> ModelFileError:
        return ModelFileError(f"{self.header.path} cannot be read at byte {position} ({error.strerror}); check the disk")

    def _ended_inside(self, slices: Iterable[Slice], position: int) -> ModelFileError:
        inside = next(piece.entry.key for piece in slices if piece.stop_byte > position)
        return ModelFileError(f"{self.header.path} ended inside {inside!r}; it was replaced or truncated while it was read")

    def _read_bytes(self, views: list[memoryview], position: int, slices: Iterable[Slice]) -> None:
        """Fill *views* one after the other with the bytes of the file from *position* on, which belong to *slices*."""
        while views:
            try:
                count = self._read_at(views, position)
            except OSError as error:
                raise self._unreadable(position, error) from error
            if count == 0:
                raise self._ended_inside(slices, position)
            position += count
            views = _after(views, count)

    def _read_at(self, views: list[memoryview], position: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file, views, position)
        with self._seek_lock:
            os.lseek(self._file, position, os.SEEK_SET)
            data = os.read(self._file, len(views[0]))
        views[0][: len(data)] = data
        return len(data)

    def _bounce_buffer(self) -> torch.Tensor:
        """This thread's buffer of one chunk."""
        if not hasattr(self._bounce, "buffer"):
            self._bounce.buffer = torch.empty(CHUNK_BYTES, dtype=torch.uint8)
        return self._bounce.buffer


def _sizes_of_parts(first: int, stop: int, most: int) -> list[int]:
    """Elements *first* to *stop* of a block, cut at multiples of *most*."""
    return [end - begin for begin, end in itertools.pairwise([first, *range(first - first % most + most, stop, most), stop])]


def _after(views: list[memoryview], count: int) -> list[memoryview]:
    """What is left of *views* behind their first *count* bytes."""
    for number, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[number + 1 :]]
        count -= len(view)
    return []
