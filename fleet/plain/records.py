"""The jobs of a plain fleet, its events and its decisions, in memory."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from fleet.values import Decision, FleetEvent, Job, JobState, JobView

MOST_ENDED = 10_000
MOST_EVENTS = 10_000
MOST_DECISIONS = 1_000
# Members of the extra data that nobody is shown.
SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")


@dataclass(slots=True, eq=False)
class Record:
    """One job. *entry*: what its server's history held at the end."""

    job: Job
    state: JobState = JobState.PLACING
    server_id: str | None = None
    number: float = 0.0
    attempts: int = 0
    submitted_s: float = field(default_factory=time.time)
    ended_s: float | None = None
    failure: str = ""
    is_cancelled: bool = False
    avoided: set[str] = field(default_factory=set)
    entry: dict[str, Any] | None = None

    @property
    def client_id(self) -> str | None:
        """Whose job it is."""
        given = self.job.body.get("client_id")
        return None if given is None else str(given)


class Records:
    """Unfinished and ended jobs by id, and what happened. On one loop."""

    def __init__(self) -> None:
        self.unfinished: dict[str, Record] = {}
        self.ended: dict[str, Record] = {}
        self.decisions: deque[Decision] = deque(maxlen=MOST_DECISIONS)
        self._events: deque[FleetEvent] = deque(maxlen=MOST_EVENTS)
        self._sequence = 0
        self._more = asyncio.Event()

    def get(self, prompt_id: str) -> Record | None:
        """The job of that id."""
        return self.unfinished.get(prompt_id) or self.ended.get(prompt_id)

    def at(self, server_id: str) -> list[Record]:
        """The unfinished jobs of a server."""
        return [record for record in self.unfinished.values() if record.server_id == server_id]

    def finish(self, record: Record, state: JobState, entry: dict[str, Any] | None = None, failure: str = "") -> None:
        """Note a job's end; only its first one counts."""
        prompt_id = record.job.prompt_id
        if self.unfinished.get(prompt_id) is not record:
            return
        del self.unfinished[prompt_id]
        record.state, record.failure, record.ended_s = state, failure, time.time()
        record.entry = made_up_entry(record) if state is JobState.LOST else entry
        # The prompt itself is in the entry; its secrets are not to outlive it.
        record.job = replace(record.job, body={"client_id": record.client_id} if record.client_id is not None else {}, inputs=())
        self.ended.pop(prompt_id, None)
        self.ended[prompt_id] = record
        while len(self.ended) > MOST_ENDED:
            del self.ended[next(iter(self.ended))]
        self.tell("ended", record)

    def tell(self, kind: str, record: Record | None = None) -> None:
        """Add an event."""
        self._sequence += 1
        event = FleetEvent(self._sequence, kind)
        if record is not None:
            event = FleetEvent(self._sequence, kind, record.job.prompt_id, record.server_id, record.client_id, record.state, record.failure)
        self._events.append(event)
        self._more.set()

    async def events(self, after: int, timeout_s: float) -> list[FleetEvent]:
        """As ``Fleet.events``."""
        if after < 0:
            return [FleetEvent(self._sequence, "newest")]
        if self._sequence <= after:
            self._more.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._more.wait()
        return [event for event in self._events if event.sequence > after]

    def views(self, base_urls: dict[str, str]) -> Iterator[JobView]:
        """The unfinished jobs, running ones first."""
        for record in sorted(self.unfinished.values(), key=lambda one: (one.state is not JobState.RUNNING, one.number)):
            yield view_of(record, base_urls)


def view_of(record: Record, base_urls: dict[str, str]) -> JobView:
    """*record* as gateways see it."""
    return JobView(
        record.job.prompt_id,
        record.state,
        record.server_id,
        base_urls.get(record.server_id or ""),
        record.client_id,
        record.number,
        record.attempts,
        record.submitted_s,
        record.ended_s,
        record.failure,
    )


def made_up_entry(record: Record) -> dict[str, Any]:
    """The history entry of a job that no server can tell of any more."""
    body = record.job.body
    shown = {key: value for key, value in (body.get("extra_data") or {}).items() if key not in SECRETS}
    extra_data = {**shown, "create_time": int(record.submitted_s * 1000)}
    if record.client_id is not None:
        extra_data["client_id"] = record.client_id
    error = {
        "prompt_id": record.job.prompt_id,
        "node_id": "",
        "node_type": "",
        "executed": [],
        "exception_message": record.failure,
        "exception_type": "ServerLost",
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
        "timestamp": int((record.ended_s or record.submitted_s) * 1000),
    }
    return {
        "prompt": [record.number, record.job.prompt_id, body.get("prompt"), extra_data, []],
        "outputs": {},
        "status": {"status_str": "error", "completed": False, "messages": [["execution_error", error]]},
        "meta": {},
    }
