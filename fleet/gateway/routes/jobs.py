"""``/api/jobs``: one list of what waits, runs and has ended anywhere in the fleet, and cancelling."""

import asyncio
from typing import Any

from aiohttp import web

from app.files.json_body import read_json_object
from app.files.strict_json import json_answer, large_json_answer
from app.routes.jobs import SORT_FIELDS, SORT_ORDERS, choice, is_job_id, statuses
from app.routes.queue import integer_parameter
from comfy_execution.jobs import JobStatus, get_all_jobs, get_job
from fleet.gateway.histories import Histories
from fleet.interface import Fleet

_ENDED = frozenset(JobStatus.ALL) - {JobStatus.PENDING, JobStatus.IN_PROGRESS}


class JobsRoutes:
    """The jobs API. Its paths carry ``/api`` already: register them undoubled."""

    def __init__(self, fleet: Fleet, histories: Histories) -> None:
        self._fleet, self._histories = fleet, histories

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
        wanted = statuses(request)
        running, waiting = await self._rows() if wanted is None or set(wanted) - _ENDED else ([], [])
        jobs, total = await asyncio.to_thread(
            get_all_jobs,
            running,
            waiting,
            await self._histories.entries() if wanted is None or set(wanted) & _ENDED else {},
            status_filter=wanted,
            workflow_id=request.query.get("workflow_id"),
            sort_by=choice(request, "sort_by", SORT_FIELDS, "created_at"),
            sort_order=choice(request, "sort_order", SORT_ORDERS, "desc"),
            limit=limit,
            offset=offset,
        )
        pagination = {"offset": offset, "limit": total if limit is None else limit, "total": total, "has_more": offset + len(jobs) < total}
        return await large_json_answer({"jobs": jobs, "pagination": pagination})

    async def _detail(self, request: web.Request) -> web.Response:
        job_id = request.match_info["job_id"]
        entry = await self._histories.entry(job_id)
        rows: tuple[list[Any], list[Any]] = ([], []) if entry is not None else await self._rows()
        job = get_job(job_id, *rows, {} if entry is None else {job_id: entry})
        return json_answer({"error": "Job not found"}, status=404) if job is None else await large_json_answer(job)

    async def _cancel_one(self, request: web.Request) -> web.Response:
        return json_answer({"cancelled": await self._fleet.cancel(request.match_info["job_id"])})

    async def _cancel_many(self, request: web.Request) -> web.Response:
        job_ids = (await read_json_object(request)).get("job_ids")
        if not isinstance(job_ids, list):
            raise web.HTTPBadRequest(text="job_ids must be a list")
        invalid = [str(job_id) for job_id in job_ids if not is_job_id(job_id)]
        if invalid:
            return json_answer({"error": "job_ids must all be UUIDs", "invalid_ids": invalid}, status=400)
        cancelled = await asyncio.gather(*(self._fleet.cancel(job_id) for job_id in job_ids))
        return json_answer({"cancelled": any(cancelled)})

    async def _rows(self) -> tuple[list[Any], list[Any]]:
        running, waiting = await self._histories.rows()
        return [tuple(row) for row in running], [tuple(row) for row in waiting]
