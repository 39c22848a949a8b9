"""The jobs of the fleet: those on their way, the newest that ended, what happened, and what was decided."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.prompts.history_size import tree_bytes
from fleet.books import Work
from fleet.values import Decision, FleetEvent, Job, JobState, JobView

MOST_ENDED = 10_000
MOST_ENDED_BYTES = 512 * 1024**2
MOST_EVENTS = 10_000
MOST_DECISIONS = 1_000


@dataclass(slots=True, eq=False)
class JobRecord:
    """One job. *job* is None for one that was found on a server after a restart, so that it cannot be sent anywhere else.

    *contents*: what the files it needs hold on the first server it was sent to; *entry*: the history entry at its end.
    """

    prompt_id: str
    job: Job | None
    work: Work
    state: JobState = JobState.PLACING
    server_id: str | None = None
    base_url: str | None = None
    client_id: str | None = None
    number: float = 0.0
    attempts: int = 0
    submitted_s: float = 0.0
    ended_s: float | None = None
    failure: str = ""
    is_cancelled: bool = False
    excluded: frozenset[str] = frozenset()
    contents: dict[tuple[str, str], str | None] = field(default_factory=dict)
    entry: dict[str, Any] | None = None
    entry_bytes: int = 0

    def view(self) -> JobView:
        """As gateways see it."""
        return JobView(
            self.prompt_id,
            self.state,
            self.server_id,
            self.base_url,
            self.client_id,
            self.number,
            self.attempts,
            self.submitted_s,
            self.ended_s,
            self.failure,
        )


class JobTable:
    """Lives on one loop. Ended jobs are kept up to a number and a size; an end is final."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.unfinished: dict[str, JobRecord] = {}
        self.ended: dict[str, JobRecord] = {}
        self.decisions: deque[Decision] = deque(maxlen=MOST_DECISIONS)
        self._ended_bytes = 0
        # Numbers go on from the clock, so that those who waited for a table before this one see a gap.
        self._sequence = int(clock() * 1000)
        self._events: deque[FleetEvent] = deque(maxlen=MOST_EVENTS)
        self._happened = asyncio.Event()

    def find(self, prompt_id: str) -> JobRecord | None:
        """The job, ended or not."""
        return self.unfinished.get(prompt_id) or self.ended.get(prompt_id)

    def in_order(self) -> list[JobRecord]:
        """Those that have not ended: running ones first, then by number."""
        return sorted(
            self.unfinished.values(), key=lambda record: (record.state is not JobState.RUNNING, record.number, record.submitted_s)
        )

    def at(self, server_id: str) -> Iterator[JobRecord]:
        """Those that are at a server."""
        return (record for record in self.unfinished.values() if record.server_id == server_id)

    def end(self, record: JobRecord, state: JobState, entry: dict[str, Any] | None, failure: str = "") -> bool:
        """Give *record* its end and tell of it; whether it had none before."""
        if self.unfinished.get(record.prompt_id) is not record:
            return False
        del self.unfinished[record.prompt_id]
        record.state, record.entry, record.failure, record.ended_s = state, entry, failure, self._clock()
        record.job = None
        record.entry_bytes = tree_bytes(entry)
        self._drop(record.prompt_id)
        self.ended[record.prompt_id] = record
        self._ended_bytes += record.entry_bytes
        while len(self.ended) > MOST_ENDED or (self._ended_bytes > MOST_ENDED_BYTES and len(self.ended) > 1):
            self._drop(next(iter(self.ended)))
        self.tell("ended", record)
        return True

    def histories(self, max_items: int | None, offset: int) -> dict[str, dict[str, Any]]:
        """Entries by prompt id, oldest first, chosen as ``Fleet.histories`` says."""
        entries = [(key, record.entry) for key, record in self.ended.items() if record.entry is not None]
        count = len(entries) if max_items is None else max(max_items, 0)
        first = max(offset, 0) if offset >= 0 or max_items is None else max(len(entries) - count, 0)
        return dict(entries[first : first + count])

    def forget(self, prompt_ids: Sequence[str] | None) -> dict[str, list[str]]:
        """Drop ended jobs (None: all of them); returns which they were, by the server that ran them."""
        by_server: dict[str, list[str]] = {}
        for prompt_id in list(self.ended) if prompt_ids is None else prompt_ids:
            record = self.ended.get(prompt_id)
            self._drop(prompt_id)
            if record is not None and record.server_id is not None:
                by_server.setdefault(record.server_id, []).append(prompt_id)
        return by_server

    def _drop(self, prompt_id: str) -> None:
        record = self.ended.pop(prompt_id, None)
        if record is not None:
            self._ended_bytes -= record.entry_bytes

    def tell(self, kind: str, record: JobRecord | None = None) -> None:
        """Add an event."""
        self._sequence += 1
        if record is None:
            event = FleetEvent(self._sequence, kind)
        else:
            state = record.state if record.state.is_end else None
            event = FleetEvent(self._sequence, kind, record.prompt_id, record.server_id, record.client_id, state, record.failure)
        self._events.append(event)
        self._happened.set()
        self._happened = asyncio.Event()

    async def events(self, after: int, timeout_s: float) -> list[FleetEvent]:
        """Those after *after*, the newest number alone for -1; waits up to *timeout_s* for the first."""
        if after < 0:
            return [FleetEvent(self._sequence, "now")]
        if after >= self._sequence:
            happened = self._happened
            try:
                async with asyncio.timeout(timeout_s):
                    await happened.wait()
            except TimeoutError:
                return []
        return [event for event in self._events if event.sequence > after]
