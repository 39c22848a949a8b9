"""The queue of prompts, what runs now, and the bounded history of what ran."""

import copy
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from comfy_execution.prompts import history_size
from comfy_execution.prompts.history_size import HistorySize, tree_bytes

MAXIMUM_HISTORY_SIZE = 10000
REPEATED_WITHIN_S = 0.5
"""A request for an id that comes so soon after its prompt's end was sent beside it, not after it."""


class DuplicatePromptId(ValueError):
    """A prompt of that id waits or runs already, or has ended this moment; two under one id could neither be told apart nor cancelled."""

    def __init__(self, prompt_id: str) -> None:
        super().__init__(
            f"a prompt with the id {prompt_id} waits or runs already, or has just ended; wait a second after its end, or leave the id out"
        )


class QueueObserver(Protocol):
    """The server, as the queue sees it. Called with the queue's lock held, so that counts are reported in order: must not block."""

    def queue_updated(self) -> None:
        """Tell clients that the number of waiting or running prompts changed."""


class ExecutionStatus(NamedTuple):
    """How a prompt ended: ``success`` or ``error``, and the messages that were sent about it."""

    status_str: str
    completed: bool
    messages: list


Status = ExecutionStatus


class QueueRow(tuple):
    """A row ``(number, prompt_id, prompt, extra_data, outputs, sensitive)`` that sorts by number, then by arrival.

    Plain tuples would compare prompts (dicts, so ``TypeError``) when a client sends the same number and id twice.
    """

    arrival = 0

    def __lt__(self, other: Any) -> bool:
        return _rank(self) < _rank(other)

    def __gt__(self, other: Any) -> bool:
        return _rank(self) > _rank(other)


def in_order(rows: list[tuple]) -> list[tuple]:
    """Waiting rows as they will be taken; the queue keeps them as a heap."""
    return sorted(rows, key=_rank)


def next_in_order(rows: list[tuple], count: int) -> list[tuple]:
    """The first *count* of :func:`in_order`, without sorting the rest."""
    return heapq.nsmallest(count, rows, key=_rank)


def _rank(row: tuple) -> tuple:
    return row[0], getattr(row, "arrival", 0)


def _copied(value: Any) -> Any:
    """A copy of the containers of a JSON-like tree; leaves (and anything that is not plain JSON) are shared."""
    kind = type(value)
    if kind is dict:
        return {key: _copied(item) for key, item in value.items()}
    if kind is list:
        return [_copied(item) for item in value]
    return value


class PromptQueue:
    """Rows ``(number, prompt_id, prompt, extra_data, outputs, sensitive)`` in order of number, and the history.

    Any thread may call any method; ``mutex`` (re-entrant) guards ``queue`` (a heap), ``currently_running``, ``history`` and
    ``flags``, which packs read and edit. Putting looks at every waiting id once, taking costs O(log n), finishing O(1) plus the
    size of the entry. No two prompts that wait or run have the same id.
    """

    ExecutionStatus = ExecutionStatus

    def __init__(
        self,
        server: QueueObserver,
        interrupt: Callable[[], None] | None = None,
        withdraw_interrupt: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*interrupt* asks the running prompt to stop, *withdraw_interrupt* takes back what was asked of an earlier one.

        Both are called with the lock held, so that no request is lost between two prompts: they must not block. *clock* counts seconds.
        """
        self.server = server
        self.mutex = threading.RLock()
        self.not_empty = threading.Condition(self.mutex)
        self.task_counter = 0
        self.queue: list[tuple] = []
        self.currently_running: dict[int, tuple] = {}
        self.history: dict[str, dict] = {}
        self.flags: dict[str, Any] = {}
        self._interrupt = interrupt
        self._withdraw_interrupt = withdraw_interrupt
        self._arrivals = itertools.count(1)
        self._clock = clock
        # Ids whose prompts ended, oldest first, with the time; those of the last moment count.
        self._ended: dict[str, float] = {}
        self._history_size = HistorySize()
        # Of running prompts: those that were told to stop, and those whose end is decided, so that nobody can stop them any more.
        self._cancelled: set[str] = set()
        self._concluded: set[str] = set()

    def put(self, item: tuple) -> None:
        """Queue a row and wake a waiting worker.

        Raises ``DuplicatePromptId`` while a prompt of its id waits or runs, and for half a second after its end.
        """
        row = QueueRow(item)
        with self.mutex:
            if self.is_running(row[1]) or self._has_just_ended(row[1]) or any(waiting[1] == row[1] for waiting in self.queue):
                raise DuplicatePromptId(row[1])
            row.arrival = next(self._arrivals)
            heapq.heappush(self.queue, row)
            self.server.queue_updated()
            self.not_empty.notify()

    def _has_just_ended(self, prompt_id: str) -> bool:
        since_s = self._clock() - REPEATED_WITHIN_S
        while self._ended and next(iter(self._ended.values())) < since_s:
            del self._ended[next(iter(self._ended))]
        return prompt_id in self._ended

    def get(self, timeout: float | None = None) -> tuple[tuple, int] | None:
        """Take the first row: ``(row, item_id)``. Blocks up to *timeout* seconds (None: forever), then returns None.

        A flag that is set wakes a worker that waits with a timeout, and it returns None at once; also one that was set before.
        """
        with self.mutex:
            while not self.queue:
                if timeout is not None and self.flags:
                    return None
                self.not_empty.wait(timeout)
                if timeout is not None and not self.queue:
                    return None
            # From here on requests to stop are meant for this prompt; what is left of earlier ones is not.
            if self._withdraw_interrupt is not None:
                self._withdraw_interrupt()
            row = tuple(heapq.heappop(self.queue))
            self._cancelled.discard(row[1])
            self._concluded.discard(row[1])
            item_id = self.task_counter
            self.task_counter += 1
            # Nodes get the prompt as a hidden input and may write to it; the history keeps what was submitted.
            self.currently_running[item_id] = tuple(_copied(part) for part in row)
            self.server.queue_updated()
            return row, item_id

    def task_done(
        self, item_id: int, history_result: dict, status: Status | None, process_item: Callable[[tuple], tuple] | None = None
    ) -> None:
        """Move a running row into the history, then report the new count.

        *history_result* (``outputs``, ``meta``) becomes part of the entry; *process_item* may rewrite the row that is kept (by
        default its sensitive part is cut off). Raises ``KeyError`` for an id that is not running.
        """
        if status is None:
            status = Status("error", False, [])
        with self.mutex:
            running = self.currently_running[item_id]
        row = process_item(running) if process_item is not None else running[:5]
        entry = {"prompt": row, "outputs": {}, "status": {**status._asdict(), "messages": _copied(list(status.messages))}}
        entry.update(history_result)
        # Measured without the lock: a large workflow takes some milliseconds.
        entry_bytes = tree_bytes(entry)
        with self.mutex:
            del self.currently_running[item_id]
            self._cancelled.discard(running[1])
            self._concluded.discard(running[1])
            self._ended.pop(running[1], None)
            self._ended[running[1]] = self._clock()
            # An older entry of this id would keep its place among the old ones.
            self.history.pop(row[1], None)
            self.history[row[1]] = entry
            self._history_size.note(row[1], entry_bytes)
            self._history_size.trim(self.history, MAXIMUM_HISTORY_SIZE, history_size.MAXIMUM_HISTORY_BYTES)
            self.server.queue_updated()

    def get_current_queue(self) -> tuple[list, list]:
        """Running rows and a deep copy of the waiting ones (heap order). Slow for large prompts."""
        with self.mutex:
            return list(self.currently_running.values()), [copy.deepcopy(tuple(row)) for row in self.queue]

    def get_current_queue_volatile(self) -> tuple[list, list]:
        """Running and waiting rows without copying them; treat them as read-only."""
        with self.mutex:
            return list(self.currently_running.values()), list(self.queue)

    def get_tasks_remaining(self) -> int:
        """How many rows wait or run."""
        with self.mutex:
            return len(self.queue) + len(self.currently_running)

    def is_running(self, prompt_id: str) -> bool:
        """Whether that prompt was taken from the queue and is not in the history yet."""
        with self.mutex:
            return any(row[1] == prompt_id for row in self.currently_running.values())

    def interrupt_if_running(self, prompt_id: str) -> bool:
        """Ask prompt *prompt_id* to stop, if it is running now; whether it was: then it does not end as a success.

        No other prompt can be hit. False also when the prompt has done all its work and only its end is being noted.
        """
        with self.mutex:
            can_stop = self.is_running(prompt_id) and prompt_id not in self._concluded
            if can_stop:
                self._cancelled.add(prompt_id)
                if self._interrupt is not None:
                    self._interrupt()
            return can_stop

    def interrupt_all(self) -> None:
        """Ask whatever runs to stop; also what runs without having been queued here."""
        with self.mutex:
            self._cancelled.update(row[1] for row in self.currently_running.values() if row[1] not in self._concluded)
            if self._interrupt is not None:
                self._interrupt()

    def was_cancelled(self, prompt_id: str) -> bool:
        """Whether that prompt, which runs, was told to stop. Takes no lock: it is asked before every node."""
        return prompt_id in self._cancelled

    def conclude(self, prompt_id: str) -> bool:
        """The prompt has done all its work: from now on nobody can stop it. Whether it was told to stop before.

        Called by whoever runs it before it says how the prompt ended; a request that no node noticed is noticed here.
        """
        with self.mutex:
            if self.is_running(prompt_id):
                self._concluded.add(prompt_id)
            return prompt_id in self._cancelled

    def wipe_queue(self) -> None:
        """Drop every waiting row."""
        with self.mutex:
            self.queue = []
            self.server.queue_updated()

    def delete_queue_item(self, function: Callable[[tuple], bool]) -> bool:
        """Drop the first waiting row for which *function* holds; whether there was one."""
        with self.mutex:
            for position, row in enumerate(self.queue):
                if function(row):
                    del self.queue[position]
                    heapq.heapify(self.queue)
                    self.server.queue_updated()
                    return True
        return False

    def get_history(
        self,
        prompt_id: str | None = None,
        max_items: int | None = None,
        offset: int = -1,
        map_function: Callable[[dict], dict] | None = None,
    ) -> dict:
        """Entries by prompt id, oldest first.

        With *prompt_id* that entry (deep-copied unless mapped) or ``{}``. Else *max_items* entries from position *offset*, or
        the newest *max_items* when *offset* is negative; *map_function* is applied to each entry.
        """
        with self.mutex:
            if prompt_id is not None:
                if prompt_id not in self.history:
                    return {}
                entry = self.history[prompt_id]
                return {prompt_id: copy.deepcopy(entry) if map_function is None else map_function(entry)}
            size = len(self.history)
            count = size if max_items is None else max(max_items, 0)
            first = max(offset, 0) if offset >= 0 or max_items is None else max(size - count, 0)
            keys = self._history_keys_locked(first, count)
            return {key: self.history[key] if map_function is None else map_function(self.history[key]) for key in keys}

    def _history_keys_locked(self, first: int, count: int) -> list[str]:
        """*count* keys from position *first*, walked from the nearer end."""
        size = len(self.history)
        last = min(first + count, size)
        if first <= size - last:
            return list(itertools.islice(self.history, first, last))
        return list(itertools.islice(reversed(self.history), size - last, size - min(first, last)))[::-1]

    def wipe_history(self) -> None:
        """Forget all finished prompts."""
        with self.mutex:
            self.history = {}
            self._history_size.clear()

    def delete_history_item(self, id_to_delete: str) -> None:
        """Forget one finished prompt; unknown ids are ignored."""
        with self.mutex:
            self.history.pop(id_to_delete, None)
            self._history_size.forget(id_to_delete)

    def set_flag(self, name: str, data: Any) -> None:
        """Leave a request (``unload_models``, ``free_memory``, …) for the worker and wake it."""
        with self.mutex:
            self.flags[name] = data
            self.not_empty.notify()

    def between_prompts(self, call: Callable[[], object]) -> bool:
        """Have the worker call *call* before it takes another prompt, and wake it; whether one runs that it waits for. Any thread."""
        with self.mutex:
            self.flags.setdefault("calls", []).append(call)
            self.not_empty.notify()
            return bool(self.currently_running)

    def get_flags(self, reset: bool = True) -> dict:
        """The requests left so far; *reset* takes them away."""
        with self.mutex:
            flags = self.flags
            if not reset:
                return dict(flags)
            self.flags = {}
            return flags
