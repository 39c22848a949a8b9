"""What a gateway asks of the fleet, and the errors it must answer with. Standard library only: gateways are tested without Ray."""

from collections.abc import Sequence
from typing import Any, Protocol

from fleet.values import Accepted, Decision, FleetEvent, Job, JobView, ServerView


class FleetError(RuntimeError):
    """The fleet cannot do what was asked; the message says why and what to do."""


class QueueFull(FleetError):
    """Every server has as many jobs as it may: answer 429 with ``Retry-After`` of *retry_after_s* (whole seconds, at least 1)."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"every server of the fleet has as many jobs as it takes; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type["QueueFull"], tuple[int]]:
        return QueueFull, (self.retry_after_s,)


class NoServer(FleetError):
    """No server is there to take a job, or none but those where it failed: answer 503."""


class PromptRefused(FleetError):
    """The server did not take the prompt: answer its *status* (400, 413 …) with *body*, JSON text in UTF-8, unchanged."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the server refused the prompt with status {status}")
        self.status, self.body = status, body

    def __reduce__(self) -> tuple[type["PromptRefused"], tuple[int, bytes]]:
        return PromptRefused, (self.status, self.body)


class DuplicateJob(FleetError):
    """A job of this id is known already, so nothing was queued; *known* is that job."""

    def __init__(self, known: JobView) -> None:
        super().__init__(f"a job with the id {known.prompt_id} is {known.state} already")
        self.known = known

    def __reduce__(self) -> tuple[type["DuplicateJob"], tuple[JobView]]:
        return DuplicateJob, (self.known,)


class Fleet(Protocol):
    """The fleet as gateways see it. Any number of gateways share one; every call may cross processes, so it may raise ``FleetError``.

    Messages about a job (``executing``, ``progress``, previews …) are sent by its server to the job's ``client_id``: a gateway opens
    ``/ws?clientId=…`` on every server of :meth:`servers` for each of its clients, and looks at the list again at each ``servers``
    event. A job that ended LOST has no server to say so; the ``ended`` event does, and the gateway tells the client.
    """

    async def submit(self, job: Job) -> Accepted:
        """Send *job* to the server that will finish it soonest; returns when that server has validated and queued it.

        Raises ``PromptRefused``, ``QueueFull``, ``NoServer`` or ``DuplicateJob``.
        """

    async def find(self, prompt_id: str) -> JobView | None:
        """The job, whatever its state; None for an unknown or forgotten one."""

    async def jobs(self) -> list[JobView]:
        """The jobs that have not ended: running ones first, then those that wait, in the order of their numbers."""

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The entry that ``GET /history/{id}`` of the job's server held when it ended; one made up for a LOST job; None else.

        It is kept here, so it outlives the server. Its files are at the job's ``base_url`` (:meth:`find`).
        """

    async def note_end(self, prompt_id: str, server_id: str, entry: dict[str, Any]) -> None:
        """Keep *entry*, which server *server_id* has in its history, as the end of the job, if that is there and has no other end.

        Whoever has seen it says so before telling anybody, so that a server that dies next does not take the end along.
        """

    async def histories(self, max_items: int | None = None, offset: int = -1) -> dict[str, dict[str, Any]]:
        """Entries by prompt id, oldest first; the parameters mean what they mean in ``GET /history``."""

    async def forget(self, prompt_ids: Sequence[str] | None) -> None:
        """Take ended jobs out of the history, on their servers too; None: all of them."""

    async def cancel(self, prompt_id: str) -> bool:
        """Withdraw a waiting job, or have a running one interrupted; whether there was such a job. Its end comes as an event."""

    async def interrupt_all(self) -> None:
        """Interrupt whatever runs, on every server."""

    async def servers(self) -> list[ServerView]:
        """Every server with its last summary, in the order in which they joined."""

    async def decisions(self, limit: int = 100) -> list[Decision]:
        """The newest decisions, newest first."""

    async def events(self, after: int, timeout_s: float = 20.0) -> list[FleetEvent]:
        """The events with a sequence number above *after*; waits up to *timeout_s* for the first. Start with ``after=-1``: the newest
        number alone is returned then, at once. A gap in the numbers means that events were dropped: ask for everything anew."""
