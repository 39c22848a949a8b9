"""Page-locks the host memory of models that are used again, in the background, piece by piece.

Registering memory costs about 0.1 s per GB, so a model that is used once should not pay for it. The model manager calls
:meth:`ArenaPinner.request` at the end of a prompt in which a cached model left a device for RAM, and when one is back from there. One
thread does the work; between two pieces it looks whether a model has gone, and then gives its memory back at once: pages are unlocked
first and freed after, because the pinner itself keeps the memory alive until then.
"""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from comfy.residency.pinning import PinLedger
from comfy.units import MIB, megabytes
from comfy.wrapper_tensors import inner_tensors

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
PIECE_BYTES = 256 * MIB
SMALLEST_BYTES = 8 * MIB  # smaller blocks come from the allocator's heap and share pages with others
PAGE_BYTES = 4096
CLOSE_TIMEOUT_S = 30.0
Piece = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PinStats:
    """A moment's picture; *waiting_bytes* are still to be pinned, *refused_bytes* are not for lack of budget or by the runtime."""

    budget_bytes: int
    pinned_bytes: int
    waiting_bytes: int
    refused_bytes: int
    models: int
    blocks: int


@dataclass(slots=True, eq=False)
class _Block:
    """One block of memory, kept alive by *keeper*; *pieces* (address, size) are pinned in order, the first *done* of them are."""

    keeper: Any
    pieces: tuple[Piece, ...]
    owners: set[int] = field(default_factory=set)
    done: int = 0
    waiting: bool = False

    def bytes_from(self, first: int, stop: int | None = None) -> int:
        return sum(size for _, size in self.pieces[first:stop])


@dataclass(slots=True, eq=False)
class _Model:
    """Somebody whose memory is to be pinned; *finalizer* tells the thread of its death."""

    identity: int
    reference: weakref.ref[Any]
    finalizer: weakref.finalize
    blocks: list[int]


def _start_daemon(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="arena-pinner", daemon=True).start()


class ArenaPinner:
    """Pins and unpins by *ledger*'s budget. Any thread may call any method.

    ``_lock`` guards the tables and is never held while memory is registered. A model's death only puts a message into a
    ``queue.SimpleQueue``, whose ``put`` may run in a finalizer. *start_thread* is called at the first request that has something to pin;
    with None, whoever made it calls :meth:`work_off`. Its owner calls :meth:`close`.
    """

    def __init__(
        self, ledger: PinLedger, piece_bytes: int = PIECE_BYTES, start_thread: Callable[[Callable[[], None]], None] | None = _start_daemon
    ) -> None:
        self._ledger, self._piece_bytes, self._start_thread = ledger, piece_bytes, start_thread
        self._lock = threading.Lock()
        self._messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._models: dict[int, _Model] = {}
        self._blocks: dict[int, _Block] = {}
        self._work: deque[int] = deque()
        self._serial = 0
        self._runs = self._closed = False
        self._ended = threading.Event()
        self.stand_in: Callable[[Tensor], Tensor] = lambda tensor: tensor  # what to lock for a tensor

    @property
    def ledger(self) -> PinLedger:
        """Whose budget this pins by."""
        return self._ledger

    def request(self, owner: Any, tensors: Iterable[Tensor]) -> int:
        """Pin, soon, the blocks of host memory that *tensors* lie in, until *owner* (their module) dies; returns the bytes to be pinned.

        What is pinned already costs nothing; what the budget did not allow is tried again. Does not block on the work.
        """
        if self._ledger.budget_bytes <= 0 or self._closed:
            return 0
        with self._lock:
            known = self._token_of(owner)
        found = {} if known is not None else self._find_blocks(tensors)
        with self._lock:
            token = self._token_of(owner)
            if token is None and found and not self._closed:
                token = self._enter(owner, found)
            if token is None:
                return 0
            due = [
                address
                for address in self._models[token].blocks
                if not self._blocks[address].waiting and self._blocks[address].done < len(self._blocks[address].pieces)
            ]
            for address in due:
                self._blocks[address].waiting = True
            asked_bytes = sum(self._blocks[address].bytes_from(self._blocks[address].done) for address in due)
            starts = bool(due) and not self._runs and self._start_thread is not None
            self._runs = self._runs or starts
        for address in due:
            self._messages.put(("pin", address))
        if starts and self._start_thread is not None:
            self._start_thread(self._serve)
        return asked_bytes

    def release(self, owner: Any) -> None:
        """Unpin *owner*'s memory although it lives; soon, see :meth:`settle`."""
        with self._lock:
            token = self._token_of(owner)
            released = token is not None and self._models[token].finalizer.detach() is not None
        if released:
            self._messages.put(("gone", token))

    def settle(self, timeout_s: float) -> bool:
        """Wait until the memory of all models that have died by now is unpinned and freed; whether it is. Pinning goes on meanwhile."""
        with self._lock:
            if not self._runs:
                return True
        reached = threading.Event()
        self._messages.put(("mark", reached))
        return self._ended.is_set() or reached.wait(timeout_s)

    def work_off(self) -> None:
        """Do in this thread all that is waiting, where there is no other thread for it."""
        while self._read_messages(block=False) and self._work:
            self._pin_next()

    def stats(self) -> PinStats:
        """Sizes now."""
        with self._lock:
            blocks = list(self._blocks.values())
            return PinStats(
                self._ledger.budget_bytes,
                sum(block.bytes_from(0, block.done) for block in blocks),
                sum(block.bytes_from(block.done) for block in blocks if block.waiting),
                sum(block.bytes_from(block.done) for block in blocks if not block.waiting),
                len(self._models),
                len(blocks),
            )

    def check(self) -> list[str]:
        """What does not add up, in words. Exact while nothing is being pinned or unpinned."""
        pinned, total, budget = self.stats().pinned_bytes, self._ledger.total_bytes(), self._ledger.budget_bytes
        wrong = [f"{total} bytes are pinned, {budget} are allowed"] if total > max(0, budget) else []
        if pinned > total:
            wrong.append(f"blocks count {pinned} pinned bytes, the ledger has {total}")
        with self._lock:
            for address, block in self._blocks.items():
                if block.owners != {token for token, model in self._models.items() if address in model.blocks} or not block.owners:
                    wrong.append(f"the block at {address:#x} has owners {sorted(block.owners)}")
                if not 0 <= block.done <= len(block.pieces):
                    wrong.append(f"the block at {address:#x} has {block.done} of {len(block.pieces)} pieces")
        return wrong

    def close(self) -> None:
        """Unpin everything and end the thread; waits for that. Later requests do nothing."""
        with self._lock:
            self._closed, runs = True, self._runs
        self._messages.put(("stop", None))
        if runs and not self._ended.wait(CLOSE_TIMEOUT_S):
            log.warning("page-locked memory was not given back within %.0f s", CLOSE_TIMEOUT_S)
        elif not runs:
            self.work_off()

    # Requests

    def _token_of(self, owner: Any) -> int | None:
        """Under which number *owner* is known; one that was released counts as unknown. Caller holds the lock."""
        return next(
            (
                token
                for token, model in self._models.items()
                if model.identity == id(owner) and model.finalizer.alive and model.reference() is owner
            ),
            None,
        )

    def _find_blocks(self, tensors: Iterable[Tensor]) -> dict[int, _Block]:
        """{address: block} of the large host storages under *tensors*, cut into pieces."""
        members: dict[int, tuple[Any, list[Piece]]] = {}
        for tensor in (part for one in tensors for part in inner_tensors(one)):
            if tensor.device.type != "cpu":
                continue
            tensor = self.stand_in(tensor)
            storage = tensor.untyped_storage()
            if storage.nbytes() >= SMALLEST_BYTES and getattr(storage, "filename", None) is None:
                members.setdefault(storage.data_ptr(), (storage, []))[1].append((tensor.data_ptr(), _extent_bytes(tensor)))
        return {
            address: _Block(storage, cut_pieces(address, storage.nbytes(), inside, self._piece_bytes))
            for address, (storage, inside) in members.items()
        }

    def _enter(self, owner: Any, found: dict[int, _Block]) -> int:
        self._serial += 1
        token = self._serial
        finalizer = weakref.finalize(owner, self._messages.put, ("gone", token))
        finalizer.atexit = False
        self._models[token] = _Model(id(owner), weakref.ref(owner), finalizer, list(found))
        for address, block in found.items():
            self._blocks.setdefault(address, block).owners.add(token)
        return token

    # The thread

    def _serve(self) -> None:
        while self._read_messages(block=not self._work):
            if self._work:
                self._pin_next()

    def _read_messages(self, block: bool) -> bool:
        """Take in what was sent, waiting for the first if *block*; False when it was the order to stop."""
        while True:
            try:
                kind, what = self._messages.get(block)
            except queue.Empty:
                return True
            block = False
            if kind == "pin":
                self._work.append(what)
            elif kind == "gone":
                self._forget(what)
            elif kind == "mark":
                what.set()
            else:
                self._stop()
                return False

    def _pin_next(self) -> None:
        """Pin one more piece of the block that has waited longest."""
        address = self._work[0]
        with self._lock:
            block = self._blocks.get(address)
            piece = None if block is None or block.done >= len(block.pieces) else block.pieces[block.done]
        if block is None or piece is None:
            self._work.popleft()
            return
        pinned = (
            self._ledger.ensure_pin_budget(piece[1]) and self._ledger.ensure_pin_registerable(piece[1]) and self._ledger.pin_range(*piece)
        )
        with self._lock:
            block.done += pinned
            block.waiting = pinned and block.done < len(block.pieces)
        if not block.waiting:
            self._work.popleft()
            log.info("page-locked %s of %s of a cached model", megabytes(block.bytes_from(0, block.done)), megabytes(block.bytes_from(0)))

    def _forget(self, token: int) -> None:
        """Unpin and let go of what only the model *token* used."""
        with self._lock:
            model = self._models.pop(token, None)
            freed = []
            for address in () if model is None else model.blocks:
                self._blocks[address].owners.discard(token)
                if not self._blocks[address].owners:
                    freed.append(self._blocks.pop(address))
        for block in freed:
            for address, _ in block.pieces[: block.done]:
                self._ledger.unpin_range(address)

    def _stop(self) -> None:
        with self._lock:
            tokens = list(self._models)
        for token in tokens:
            self._models[token].finalizer.detach()
            self._forget(token)
        self._work.clear()
        self._ended.set()


def cut_pieces(address: int, size_bytes: int, tensors: Iterable[Piece], piece_bytes: int) -> tuple[Piece, ...]:
    """The block of *size_bytes* at *address* in pieces (address, size) of about *piece_bytes*, none of which cuts one of *tensors*.

    Cuts lie at the beginnings of pages that hold the beginning of a tensor and nothing before it, since pages cannot be locked twice and
    a copy may not cross two registrations. A piece is longer where there is no such place.
    """
    cuts, end = [], address
    for first, length in sorted(tensors):
        page = first - first % PAGE_BYTES
        if page > address and page >= end:
            cuts.append(page)
        end = max(end, first + length)
    pieces, start = [], address
    for cut, following in zip(cuts, [*cuts[1:], address + size_bytes]):
        if following - start > piece_bytes:
            pieces.append((start, cut - start))
            start = cut
    pieces.append((start, address + size_bytes - start))
    return tuple(pieces)


def _extent_bytes(tensor: Tensor) -> int:
    """Bytes from the first to behind the last element, strides considered."""
    if not tensor.numel():
        return 0
    return (1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride()))) * tensor.element_size()
