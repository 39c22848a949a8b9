"""Jobs: one view over what runs, what waits and what is in the history, as the jobs API shows it.

Pure functions over queue rows ``(number, prompt_id, prompt, extra_data, output_ids, …)`` and history entries. Nothing here
locks or keeps state; callers pass snapshots. A row or entry with odd contents never breaks the list it is part of.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from comfy_execution.prompts.job_outputs import (
    get_outputs_summary,
    has_3d_extension,
    is_previewable,
    normalize_output_item,
    normalize_outputs,
)

__all__ = [
    "CANCEL_PENDING",
    "CANCEL_RUNNING",
    "CANCEL_TERMINAL",
    "CANCEL_UNKNOWN",
    "JobStatus",
    "apply_sorting",
    "cancel_job",
    "classify_job_for_cancel",
    "get_all_jobs",
    "get_job",
    "get_outputs_summary",
    "has_3d_extension",
    "is_previewable",
    "normalize_history_item",
    "normalize_output_item",
    "normalize_outputs",
    "normalize_queue_item",
    "validate_job_id",
]

CANCEL_RUNNING, CANCEL_PENDING = "running", "pending"
CANCEL_TERMINAL, CANCEL_UNKNOWN = "terminal", "unknown"

_END_EVENTS = frozenset({"execution_success", "execution_error", "execution_interrupted"})
_ERROR_DEFAULTS = {"node_id": "", "node_type": "", "exception_message": "", "exception_type": "", "traceback": []}


class JobStatus:
    """The states of a job, as the jobs API spells them."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ALL = [PENDING, IN_PROGRESS, COMPLETED, FAILED, CANCELLED]


def validate_job_id(value: Any) -> str:
    """Return *value* if it is a UUID in lower-case hyphenated form; raise ``ValueError`` otherwise.

    Ids are compared as written everywhere, so another spelling of the same UUID is refused rather than rewritten.
    """
    canonical = None
    if isinstance(value, str):
        try:
            canonical = str(uuid.UUID(value))
        except ValueError:
            canonical = None
    if canonical is None or canonical != value:
        raise ValueError(f"a job id is a UUID such as 'a1b2c3d4-e5f6-7a89-b0c1-d2e3f4a5b6c7', got {value!r:.80}")
    return canonical


def _mapping(value: Any) -> Mapping:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> Any:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _without_none(fields: dict) -> dict:
    return {name: value for name, value in fields.items() if value is not None}


def _origin(extra_data: Any) -> tuple[Any, str | None]:
    """When the job was made (ms or None) and the id of the workflow it came from."""
    extra = _mapping(extra_data)
    workflow_id = _mapping(_mapping(extra.get("extra_pnginfo")).get("workflow")).get("id")
    return _number(extra.get("create_time")), None if workflow_id is None else str(workflow_id)


def normalize_queue_item(item: tuple, status: str) -> dict:
    """The job of a queue row. *status* is ``pending`` or ``in_progress``; only the short fields exist yet."""
    number, prompt_id, _, extra_data = item[:4]
    created_ms, workflow_id = _origin(extra_data)
    return _without_none(
        {
            "id": prompt_id,
            "status": status,
            "priority": number,
            "create_time": created_ms or 0,
            "outputs_count": 0,
            "workflow_id": workflow_id,
        }
    )


def _times_and_end(status: Any) -> tuple[Any, Any, str | None, Any]:
    """Start (ms), end (ms), name of the closing event and its data, from the messages of a history entry."""
    started_ms = ended_ms = closing = closing_data = None
    messages = _mapping(status).get("messages") or ()
    for message in messages:
        if not isinstance(message, (list, tuple)) or len(message) < 2 or not isinstance(message[1], Mapping):
            continue
        name, data = message[0], message[1]
        if name == "execution_start":
            started_ms = _number(data.get("timestamp"))
        elif name in _END_EVENTS:
            ended_ms, closing, closing_data = _number(data.get("timestamp")), name, data
    return started_ms, ended_ms, closing, closing_data


def _finished_status(status: Any, closing: str | None) -> str:
    if _mapping(status).get("status_str") != "error":
        return JobStatus.COMPLETED
    return JobStatus.CANCELLED if closing == "execution_interrupted" else JobStatus.FAILED


def _entry_head(history_item: Mapping) -> dict:
    """The fields by which finished jobs are filtered and sorted; cheap, looks at no output."""
    row: Sequence = history_item.get("prompt") or ()
    created_ms, workflow_id = _origin(row[3] if len(row) > 3 else None)
    started_ms, ended_ms, closing, closing_data = _times_and_end(history_item.get("status"))
    return {
        "status": _finished_status(history_item.get("status"), closing),
        "priority": row[0] if row else None,
        "create_time": created_ms if created_ms is not None else started_ms or 0,
        "execution_start_time": started_ms,
        "execution_end_time": ended_ms,
        "execution_error": {**_ERROR_DEFAULTS, **closing_data} if closing == "execution_error" else None,
        "workflow_id": workflow_id,
    }


def normalize_history_item(prompt_id: str, history_item: dict, include_outputs: bool = False) -> dict:
    """The job of a history entry; *include_outputs* adds outputs, status and workflow for the detail view."""
    outputs = _mapping(history_item.get("outputs"))
    outputs_count, preview = get_outputs_summary(outputs)
    job = _without_none({"id": prompt_id, **_entry_head(history_item), "outputs_count": outputs_count, "preview_output": preview})
    if include_outputs:
        row: Sequence = history_item.get("prompt") or ()
        job["outputs"] = normalize_outputs(outputs)
        job["execution_status"] = history_item.get("status")
        job["workflow"] = {"prompt": row[2] if len(row) > 2 else None, "extra_data": row[3] if len(row) > 3 else None}
    return job


def _sort_value(job: Mapping, sort_by: str) -> float:
    if sort_by == "execution_duration":
        started_ms, ended_ms = job.get("execution_start_time"), job.get("execution_end_time")
        return ended_ms - started_ms if started_ms and ended_ms else 0
    return job.get("create_time") or 0


def apply_sorting(jobs: list[dict], sort_by: str, sort_order: str) -> list[dict]:
    """A sorted copy: by ``created_at`` or ``execution_duration``, ``asc`` or ``desc``; missing times count as 0."""
    return sorted(jobs, key=lambda job: _sort_value(job, sort_by), reverse=sort_order == "desc")


def get_job(prompt_id: str, running: list, queued: list, history: dict) -> dict | None:
    """The job with this id (detail view when finished), or None."""
    if prompt_id in history:
        return normalize_history_item(prompt_id, history[prompt_id], include_outputs=True)
    for rows, status in ((running, JobStatus.IN_PROGRESS), (queued, JobStatus.PENDING)):
        for row in rows:
            if row[1] == prompt_id:
                return normalize_queue_item(row, status)
    return None


def get_all_jobs(
    running: list,
    queued: list,
    history: dict,
    status_filter: Iterable[str] | None = None,
    workflow_id: str | None = None,
    sort_by: str = "created_at",
    sort_order: str = "desc",
    limit: int | None = None,
    offset: int = 0,
) -> tuple[list[dict], int]:
    """One page of the jobs that pass the filters, and how many pass in all.

    Outputs are summed up for the jobs of the page only, so a page over 10,000 finished prompts stays cheap.
    """
    wanted = set(JobStatus.ALL if status_filter is None else status_filter)
    found: list[dict] = []
    for rows, status in ((running, JobStatus.IN_PROGRESS), (queued, JobStatus.PENDING)):
        if status in wanted:
            found.extend(normalize_queue_item(row, status) for row in rows)
    if wanted - {JobStatus.IN_PROGRESS, JobStatus.PENDING}:
        heads = ({"id": key, **_entry_head(entry), "in_history": True} for key, entry in history.items())
        found.extend(head for head in heads if head["status"] in wanted)
    if workflow_id:
        found = [job for job in found if job.get("workflow_id") == workflow_id]
    first = max(offset, 0)
    page = apply_sorting(found, sort_by, sort_order)[first : None if limit is None else first + limit]
    jobs = [normalize_history_item(job["id"], history[job["id"]]) if "in_history" in job else job for job in page]
    return jobs, len(found)


def classify_job_for_cancel(prompt_id: str, running: list, queued: list, history: dict) -> str:
    """Where the job is: one of ``CANCEL_RUNNING``, ``CANCEL_PENDING``, ``CANCEL_TERMINAL``, ``CANCEL_UNKNOWN``."""
    if any(row[1] == prompt_id for row in running):
        return CANCEL_RUNNING
    if any(row[1] == prompt_id for row in queued):
        return CANCEL_PENDING
    return CANCEL_TERMINAL if prompt_id in history else CANCEL_UNKNOWN


def cancel_job(
    prompt_id: str, running: list, queued: list, history: dict, interrupt: Callable[[str], bool], dequeue: Callable[[str], bool]
) -> str:
    """Stop the job wherever it is, and say what really happened (a ``CANCEL_*`` value).

    *interrupt* and *dequeue* take the id and return whether they acted; both must be atomic, because the snapshots may be
    stale: a job seen waiting may run by now (then it is interrupted), one seen running may be done (then nothing happens).
    """
    place = classify_job_for_cancel(prompt_id, running, queued, history)
    if place == CANCEL_PENDING and dequeue(prompt_id):
        return CANCEL_PENDING
    if place in (CANCEL_PENDING, CANCEL_RUNNING):
        return CANCEL_RUNNING if interrupt(prompt_id) else CANCEL_UNKNOWN
    return place
