"""``/api/jobs``: one list of what waits, runs and has ended, and cancelling."""

import asyncio
from typing import Any

from aiohttp import web

from app.files.json_body import read_json_object
from app.files.strict_json import json_answer, large_json_answer
from app.routes.queue import QueueHolder, integer_parameter, shown_rows
from comfy_execution.jobs import CANCEL_PENDING, CANCEL_RUNNING, JobStatus, cancel_job, get_all_jobs, get_job, validate_job_id
from comfy_execution.prompts.queue import in_order

SORT_FIELDS = ("created_at", "execution_duration")
SORT_ORDERS = ("asc", "desc")


class JobsRoutes:
    """The jobs API over ``server.prompt_queue``. Its paths carry ``/api`` already: register them undoubled."""

    def __init__(self, server: QueueHolder) -> None:
        self._server = server

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/api/jobs")(self._list)
        routes.get("/api/jobs/{job_id}")(self._detail)
        routes.post("/api/jobs/cancel")(self._cancel_many)
        routes.post("/api/jobs/{job_id}/cancel")(self._cancel_one)

    async def _list(self, request: web.Request) -> web.Response:
        limit, offset = integer_parameter(request, "limit"), max(integer_parameter(request, "offset") or 0, 0)
        if limit is not None and limit <= 0:
            raise web.HTTPBadRequest(text="limit must be a positive integer")
        running, waiting = self._rows()
        # On a worker thread: a full history takes too long for the event loop.
        jobs, total = await asyncio.to_thread(
            get_all_jobs,
            running,
            waiting,
            self._server.prompt_queue.get_history(),
            status_filter=statuses(request),
            workflow_id=request.query.get("workflow_id"),
            sort_by=choice(request, "sort_by", SORT_FIELDS, "created_at"),
            sort_order=choice(request, "sort_order", SORT_ORDERS, "desc"),
            limit=limit,
            offset=offset,
        )
        # The page refuses a list whose limit is not a number.
        pagination = {"offset": offset, "limit": total if limit is None else limit, "total": total, "has_more": offset + len(jobs) < total}
        return await large_json_answer({"jobs": jobs, "pagination": pagination})

    async def _detail(self, request: web.Request) -> web.Response:
        job_id = request.match_info["job_id"]
        history = self._server.prompt_queue.get_history(prompt_id=job_id, map_function=lambda entry: entry)
        job = get_job(job_id, *self._rows(), history)
        if job is None:
            return json_answer({"error": "Job not found"}, status=404)
        return await large_json_answer(job)

    async def _cancel_one(self, request: web.Request) -> web.Response:
        return json_answer({"cancelled": self._cancel(request.match_info["job_id"])})

    async def _cancel_many(self, request: web.Request) -> web.Response:
        job_ids = (await read_json_object(request)).get("job_ids")
        if not isinstance(job_ids, list):
            raise web.HTTPBadRequest(text="job_ids must be a list")
        invalid = [str(job_id) for job_id in job_ids if not is_job_id(job_id)]
        if invalid:
            return json_answer({"error": "job_ids must all be UUIDs", "invalid_ids": invalid}, status=400)
        cancelled = [self._cancel(job_id) for job_id in job_ids]
        return json_answer({"cancelled": any(cancelled)})

    def _rows(self) -> tuple[list[tuple], list[tuple]]:
        running, waiting = self._server.prompt_queue.get_current_queue_volatile()
        return shown_rows(running), shown_rows(in_order(waiting))

    def _cancel(self, job_id: str) -> bool:
        """Whether the job was waiting or running and has been told to stop."""
        queue = self._server.prompt_queue
        running, waiting = self._rows()
        history = queue.get_history(prompt_id=job_id, map_function=lambda entry: entry)
        outcome = cancel_job(
            job_id,
            running,
            waiting,
            history,
            queue.interrupt_if_running,
            lambda wanted: queue.delete_queue_item(lambda row: row[1] == wanted),
        )
        return outcome in (CANCEL_PENDING, CANCEL_RUNNING)


def is_job_id(value: Any) -> bool:
    """Whether *value* is a job's id as :func:`validate_job_id` wants it."""
    try:
        validate_job_id(value)
    except ValueError:
        return False
    return True


def statuses(request: web.Request) -> list[str] | None:
    """The wanted states, None for all. Raises ``HTTPBadRequest``."""
    wanted = [text for part in request.query.get("status", "").split(",") if (text := part.strip().lower())]
    unknown = [status for status in wanted if status not in JobStatus.ALL]
    if unknown:
        raise web.HTTPBadRequest(text=f"Unknown status {', '.join(unknown)}; use {', '.join(JobStatus.ALL)}")
    return wanted or None


def choice(request: web.Request, name: str, choices: tuple[str, ...], default: str) -> str:
    """One of *choices* from the query, in lower case. Raises ``HTTPBadRequest``."""
    value = request.query.get(name, default).lower()
    if value not in choices:
        raise web.HTTPBadRequest(text=f"{name} must be one of {', '.join(choices)}")
    return value
