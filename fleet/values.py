"""What is said about servers, jobs and decisions in a fleet. Plain values that travel between processes; standard library only."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of weights as one server knows it.

    *folder* is the kind of folder ("checkpoints", "loras" …), *name* the path below it with forward slashes, *identity* what the file
    contains (``content_fingerprint``; None while it was not taken), *size_bytes* the file's size.
    """

    folder: str
    name: str
    identity: str | None = None
    size_bytes: int = 0

    @property
    def place(self) -> tuple[str, str]:
        """(folder, name): what a prompt can say."""
        return self.folder, self.name


@dataclass(frozen=True, slots=True)
class WarmModel:
    """A file whose weights a server has in memory: *bytes* of them, *reload_s* seconds to read them again, *tier* ``vram`` or ``ram``.

    *held*: preloaded, so among the last to go.
    """

    file: ModelFile
    bytes: int = 0
    reload_s: float = 0.0
    tier: str = "ram"
    held: bool = False


@dataclass(frozen=True, slots=True)
class EndedPrompt:
    """A prompt that a server has finished: *status* ``success`` or ``error``, *read_s* seconds spent on reading models (receipts)."""

    prompt_id: str
    status: str
    seconds: float = 0.0
    read_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ServerSummary:
    """The answer of ``GET /caches/summary``. *boot* differs after every start of the server; *version* grows with every change."""

    boot: str = ""
    version: int = 0
    warm: tuple[WarmModel, ...] = ()
    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    ended: tuple[EndedPrompt, ...] = ()
    cap_bytes: int = 0


class ServerState(enum.StrEnum):
    """What a server of the fleet can take now."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # finishes what it has, takes no more
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class ServerView:
    """One server: *base_url* without a slash at the end; *backlog_s* estimated seconds until it is idle; *restarts* since it was placed."""

    server_id: str
    base_url: str
    state: ServerState
    node_id: str = ""
    summary: ServerSummary = field(default_factory=ServerSummary)
    backlog_s: float = 0.0
    restarts: int = 0
    accelerator: str = ""


@dataclass(frozen=True, slots=True)
class InputFile:
    """An uploaded file that a prompt names. The server that runs it fetches it from *url* unless it has that content already.

    *kind*: ``input``, ``temp`` or ``output``; *digest* is blake3, hexadecimal; *size_bytes* is 0 for one that is not in the places where
    results are shared.
    """

    name: str
    subfolder: str
    kind: str
    digest: str
    url: str
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt on its way. *body*: that of ``POST /prompt``, ``prompt_id`` in it; *usage_source*: the header ``Comfy-Usage-Source``."""

    prompt_id: str
    body: Mapping[str, Any]
    inputs: tuple[InputFile, ...] = ()
    usage_source: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What ``POST /prompt`` of the chosen server answered."""

    prompt_id: str
    number: float
    node_errors: Mapping[str, Any]
    server_id: str
    base_url: str


class JobState(enum.StrEnum):
    """Where a job stands. The last four are ends, of which a job has exactly one."""

    PLACING = "placing"  # between two servers, or before the first
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"  # its server died, and whether it ran is not certain, or it was tried too often

    @property
    def is_end(self) -> bool:
        """Whether nothing more happens to the job."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.LOST)


@dataclass(frozen=True, slots=True)
class JobView:
    """One job. Times in seconds since the epoch. *failure* says why a LOST job, or a FAILED one without a history entry, ended."""

    prompt_id: str
    state: JobState
    server_id: str | None = None
    base_url: str | None = None
    client_id: str | None = None
    number: float = 0.0
    attempts: int = 1
    submitted_s: float = 0.0
    ended_s: float | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class ServerEstimate:
    """What the router thought of one server for one job: seconds of waiting, and of loading what is missing there."""

    server_id: str
    wait_s: float
    load_s: float
    missing: tuple[str, ...] = ()

    @property
    def total_s(self) -> float:
        """Seconds until the job could compute."""
        return self.wait_s + self.load_s


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a job was sent, when, and why; *estimates* of the best servers, the chosen one first."""

    prompt_id: str
    server_id: str
    reason: str
    at_s: float
    estimates: tuple[ServerEstimate, ...] = ()


@dataclass(frozen=True, slots=True)
class FleetEvent:
    """Something happened. *kind*: ``placed``, ``moved`` (to another server), ``ended`` (with *state*) or ``servers`` (the list changed)."""

    sequence: int
    kind: str
    prompt_id: str | None = None
    server_id: str | None = None
    client_id: str | None = None
    state: JobState | None = None
    failure: str = ""
