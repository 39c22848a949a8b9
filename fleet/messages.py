"""What the fleet's dispatcher and the servers' supervisors say to each other. Plain values; standard library only."""

from dataclasses import dataclass, field
from typing import Any

from fleet.needs import Place
from fleet.values import InputFile, ModelFile, ServerState, ServerSummary


@dataclass(slots=True)
class SentJob:
    """A job on its way to a server. The router fills in *server_id* and the number in *body*, and puts servers it has been sent to before
    into *tried* when it is asked again: then nobody may run it until it is known that those did not."""

    prompt_id: str
    body: dict[str, Any]
    needs: tuple[Place, ...] = ()
    kind: str = ""
    inputs: tuple[InputFile, ...] = ()
    usage_source: str | None = None
    excluded: frozenset[str] = frozenset()
    server_id: str | None = None
    tried: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """The server has checked and queued the job."""

    server_id: str
    base_url: str
    number: float
    node_errors: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """The server answered ``POST /prompt`` with an error."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has ended; *entry* is that of the server's history."""

    entry: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The job was taken out of the server's queue."""


@dataclass(frozen=True, slots=True)
class NotRun:
    """The job did not run here, that is certain."""

    reason: str


@dataclass(frozen=True, slots=True)
class MayHaveRun:
    """The server died, and it had begun the job, or nobody knows."""

    reason: str


Outcome = Ended | Withdrawn | NotRun | MayHaveRun
Reply = Taken | Refused | Ended | Withdrawn | NotRun | MayHaveRun


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What a supervisor says of its server, after each change and every few seconds.

    *started_path*: the file on node *node_id* with the prompts that this server, or those before it in its place, have begun. *files*: what
    is in its model folders; None: as before.
    """

    server_id: str
    base_url: str
    state: ServerState
    node_id: str
    started_path: str
    restarts: int = 0
    accelerator: str = ""
    summary: ServerSummary = field(default_factory=ServerSummary)
    files: tuple[ModelFile, ...] | None = None
