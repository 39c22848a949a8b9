"""A job as v2 shows it, from what the fleet, the history and this gateway know."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fleet.gateway.v2.outputs import OutputFile, output_files
from fleet.gateway.v2.stories import Story
from fleet.values import JobState, JobView

KEPT = timedelta(hours=24)
TERMINAL = frozenset({"succeeded", "failed", "canceled", "expired"})
# Where a job's labels and priority are kept with its prompt.
FACTS = "comfy_v2"
_STATES = {
    JobState.PLACING: "queued",
    JobState.WAITING: "queued",
    JobState.RUNNING: "running",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "canceled",
    JobState.LOST: "failed",
}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one job; *position* is its place among those that wait, *sizes* the bytes of its files by asset id."""

    prompt_id: str
    view: JobView | None = None
    entry: dict[str, Any] | None = None
    story: Story | None = None
    position: int | None = None
    sizes: Callable[[str], int] = lambda asset_id: 0

    @property
    def status(self) -> str:
        """As v2 spells it."""
        if self.entry is not None and not (self.view is not None and self.view.state is JobState.LOST):
            return _status_of(self.entry)
        if self.view is None:
            return "expired"
        status = _STATES[self.view.state]
        if status == "queued" and self.story is not None and self.story.started is not None:
            status = "running"
        return "canceling" if status in ("queued", "running") and self.story is not None and self.story.is_canceling else status

    @property
    def created(self) -> datetime:
        """When it was submitted."""
        if self.story is not None:
            return self.story.created
        if self.view is not None:
            return datetime.fromtimestamp(self.view.submitted_s, UTC)
        return _time_ms(self._extra_data().get("create_time")) or datetime.now(UTC)

    @property
    def labels(self) -> Any:
        """The metadata that it was submitted with."""
        return self.story.labels if self.story is not None else self._facts().get("metadata")

    def files(self) -> list[OutputFile]:
        """What it has made so far."""
        outputs = (self.entry or {}).get("outputs") if self.entry is not None else self.story.outputs if self.story is not None else {}
        return list(output_files(self.prompt_id, outputs or {}))

    def body(self, base: str) -> dict[str, Any]:
        """The ``Job`` of the API; *base* is where the client reached the gateway."""
        started, ended = self._times()
        status = self.status
        path = f"{base}/api/v2/jobs/{self.prompt_id}"
        body: dict[str, Any] = {
            "id": self.prompt_id,
            "status": status,
            "created_at": self.created.isoformat(),
            "started_at": started.isoformat() if started is not None else None,
            "completed_at": ended.isoformat() if ended is not None else None,
            "expires_at": (self.created + KEPT).isoformat(),
            "queue_position": self.position if status == "queued" else None,
            "progress": self._progress(status),
            "outputs": [output_body(file, base, self.sizes(file.asset_id)) for file in self.files()],
            "error": self._error() if status == "failed" else None,
            "metrics": {"queue_ms": _ms(self.created, started), "execution_ms": _ms(started, ended)},
            "outputs_reused": any(_messages(self.entry, "execution_cached", "nodes")),
            "urls": {"self": path, "events": f"{path}/events", "cancel": f"{path}/cancel"},
        }
        priority = self.story.priority if self.story is not None else self._facts().get("priority")
        more = {"metadata": self.labels, "priority": priority}
        return body | {key: value for key, value in more.items() if value is not None}

    def summary(self) -> dict[str, Any]:
        """The lighter shape in which lists hold it."""
        _, ended = self._times()
        changed = ended or self.created
        item = {"id": self.prompt_id, "status": self.status, "create_time": self.created.isoformat(), "update_time": changed.isoformat()}
        return item if self.labels is None else {**item, "metadata": self.labels}

    def _progress(self, status: str) -> dict[str, Any] | None:
        if status in ("running", "canceling"):
            return (self.story or Story()).progress()
        if status == "succeeded":
            nodes = len(self.workflow() or {})
            return {"value": 1.0, "nodes_done": nodes, "nodes_total": nodes}
        return None

    def workflow(self) -> dict[str, Any] | None:
        """The prompt that ran; None before its history is there."""
        row: list[Any] = (self.entry or {}).get("prompt") or []
        return row[2] if len(row) > 2 and isinstance(row[2], dict) else None

    def _extra_data(self) -> dict[str, Any]:
        row: list[Any] = (self.entry or {}).get("prompt") or []
        return row[3] if len(row) > 3 and isinstance(row[3], dict) else {}

    def _facts(self) -> dict[str, Any]:
        facts = self._extra_data().get(FACTS)
        return facts if isinstance(facts, dict) else {}

    def _times(self) -> tuple[datetime | None, datetime | None]:
        started = self.story.started if self.story is not None else None
        ended = None
        for kind, data in _all_messages(self.entry):
            if kind == "execution_start":
                started = _time_ms(data.get("timestamp")) or started
            elif kind in ("execution_success", "execution_error", "execution_interrupted"):
                ended = _time_ms(data.get("timestamp")) or ended
        if ended is None and self.view is not None and self.view.ended_s is not None:
            ended = datetime.fromtimestamp(self.view.ended_s, UTC)
        return started, ended

    def _error(self) -> dict[str, Any]:
        if self.view is not None and self.view.state is JobState.LOST:
            return {"code": "server_lost", "message": self.view.failure, "node_id": None, "class_type": None, "traceback": None}
        for kind, data in _all_messages(self.entry):
            if kind == "execution_error":
                traceback = data.get("traceback")
                return {
                    "code": "node_execution_error",
                    "message": str(data.get("exception_message") or ""),
                    "node_id": _text(data.get("node_id")),
                    "class_type": _text(data.get("node_type")),
                    "traceback": "".join(map(str, traceback)) if isinstance(traceback, list) else None,
                }
        message = (self.view.failure if self.view is not None else "") or "the job failed without saying why"
        return {"code": "execution_failed", "message": message, "node_id": None, "class_type": None, "traceback": None}


def output_body(file: OutputFile, base: str, size_bytes: int) -> dict[str, Any]:
    """The ``Output`` of the API."""
    return {
        "node_id": file.node_id,
        "name": file.filename,
        "type": file.media,
        "content_type": file.content_type,
        "size_bytes": size_bytes,
        "id": file.asset_id,
        "hash": None,
        "url": f"{base}/api/v2/assets/{file.asset_id}/content",
        "url_expires_at": (datetime.now(UTC) + KEPT).isoformat(),
        "job_id": file.prompt_id,
    }


def _status_of(entry: dict[str, Any]) -> str:
    if (entry.get("status") or {}).get("status_str") != "error":
        return "succeeded"
    return "canceled" if any(kind == "execution_interrupted" for kind, _ in _all_messages(entry)) else "failed"


def _all_messages(entry: dict[str, Any] | None) -> Iterable[tuple[str, dict[str, Any]]]:
    for message in ((entry or {}).get("status") or {}).get("messages") or ():
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict):
            yield str(message[0]), message[1]


def _messages(entry: dict[str, Any] | None, wanted: str, member: str) -> Iterable[Any]:
    return (data.get(member) for kind, data in _all_messages(entry) if kind == wanted)


def _time_ms(value: Any) -> datetime | None:
    return datetime.fromtimestamp(value / 1000, UTC) if isinstance(value, int | float) and value > 0 else None


def _ms(since: datetime | None, until: datetime | None) -> int | None:
    return None if since is None or until is None else max(0, round((until - since).total_seconds() * 1000))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
