"""Watching one server of a plain fleet: which of its jobs run, which have ended, and whether it is there."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from fleet.job_table import JobRecord, JobTable
from fleet.lost_jobs import ended_state
from fleet.plain.server_calls import ServerCalls
from fleet.values import JobState
from serverless.server_api import ServerAnswer, ServerUnreachable

log = logging.getLogger(__name__)

# Asked so often while nothing is heard; every ``status`` message has the server asked at once.
POLL_S = 1.0
# A short job changes the queue three times; it is looked at once.
SETTLE_S = 0.03
REFUSED_S = 1.0
SILENT_S = 30.0


class ServerWatch:
    """Asks the server after each ``status`` message and on a timer, and moves the ``JobTable`` on. On the fleet's loop.

    *lost* is called with (server id, its lost jobs, why) when the server is gone or was started anew; *changed* when it came or went.
    """

    def __init__(
        self,
        server_id: str,
        calls: ServerCalls,
        table: JobTable,
        lost: Callable[[str, list[JobRecord], str], None],
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server_id = server_id
        self.is_up = False
        self.restarts = 0
        self.looked = asyncio.Event()
        self._calls, self._table, self._lost, self._changed, self._clock = calls, table, lost, changed, clock
        self._wake = asyncio.Event()
        self._away_since_s: float | None = None
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._looking = asyncio.get_running_loop().create_task(self._watch(), name=f"watch-{self.server_id}")

    async def close(self) -> None:
        """Watch no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def look_soon(self) -> None:
        """Something changed there."""
        self._wake.set()

    def heard_text(self, server_id: str, text: str, message: dict[str, Any]) -> None:
        """A ``status`` message: the queue changed."""
        if message.get("type") == "status":
            self._wake.set()

    def heard_bytes(self, server_id: str, frame: bytes) -> None:
        """Nothing is sent to this listener's id but ``status``."""

    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._look()
                self._note_up()
            except (ServerUnreachable, ServerAnswer) as error:
                self._note_away(error)
            except Exception:
                log.exception("Server %s answered with what cannot be read", self.server_id)
            self.looked.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S if self.is_up else POLL_S / 4):
                    await self._wake.wait()
                    await asyncio.sleep(SETTLE_S)

    async def _look(self) -> None:
        running, waiting = await self._calls.queue()
        unknown = []
        for record in self._sent():
            if record.prompt_id in running:
                record.state = JobState.RUNNING
            elif record.prompt_id not in waiting and not await self._settle(record):
                unknown.append(record)
        if unknown:
            self.restarts += 1
            self._lost(self.server_id, unknown, "it does not know the job any more, so it was started anew or its queue was cleared")

    def _sent(self) -> list[JobRecord]:
        return [one for one in self._table.at(self.server_id) if one.state in (JobState.WAITING, JobState.RUNNING)]

    async def _settle(self, record: JobRecord) -> bool:
        """Find out what became of a job that is not in the queue; whether the server knows."""
        where, entry = await self._calls.find(record.prompt_id)
        if entry is not None:
            self._table.end(record, ended_state(entry), entry)
        elif where == "running":
            record.state = JobState.RUNNING
        elif where == "unknown":
            if not record.is_cancelled:
                return False
            self._table.end(record, JobState.CANCELLED, None)
        return True

    def _note_up(self) -> None:
        self._away_since_s = None
        if not self.is_up:
            self.is_up = True
            self._changed()

    def _note_away(self, error: ServerUnreachable | ServerAnswer) -> None:
        now_s = self._clock()
        if self._away_since_s is None:
            self._away_since_s = now_s
            log.warning("Server %s cannot be asked: %s", self.server_id, error)
        is_refused = isinstance(error, ServerUnreachable) and error.is_refused
        if is_refused and self.is_up:
            # It takes no new jobs from now on; those it has are given up only when it stays away.
            self.is_up = False
            self._changed()
        if now_s - self._away_since_s >= (REFUSED_S if is_refused else SILENT_S) and self._sent():
            self._lost(self.server_id, self._sent(), str(error))
