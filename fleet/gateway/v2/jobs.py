"""``/api/v2/jobs``: submitting, looking, cancelling, following."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web

from app.files.json_body import read_json_object
from app.files.strict_json import json_answer, large_json_answer
from app.routes.jobs import is_job_id
from fleet.gateway.client_links import ClientLinks
from fleet.gateway.histories import Histories
from fleet.gateway.routes.files import FileRoutes
from fleet.gateway.routes.prompts import LARGE_BYTES
from fleet.gateway.server_list import ServerList
from fleet.gateway.submission import Submitting
from fleet.gateway.v2.assets import AssetStore, base_of
from fleet.gateway.v2.errors import V2Error
from fleet.gateway.v2.event_stream import EventStream
from fleet.gateway.v2.job_view import FACTS, TERMINAL, Known
from fleet.gateway.v2.stories import Stories, Story
from fleet.gateway.v2.submission import JobRequest, with_files
from fleet.interface import Fleet
from fleet.values import JobState, JobView

MOST_LISTED, LISTED = 100, 50
MOST_STREAMS = 256
STREAM_RETRY_S = 5
_STATUSES = frozenset({"queued", "running", "canceling"}) | TERMINAL


class JobRoutes:
    """v2's jobs of the whole fleet. Their messages come to this gateway's own client id, *client_id*, on every server."""

    def __init__(
        self, fleet: Fleet, submitting: Submitting, histories: Histories, files: FileRoutes, store: AssetStore, client_id: str
    ) -> None:
        self._fleet, self._submitting, self._histories, self._files, self._store = fleet, submitting, histories, files, store
        self._client_id = client_id
        self._stories = Stories()
        self._links: ClientLinks | None = None
        self._streams = 0
        self._sizes: dict[str, int] = {}

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes; they have no other twin."""
        routes.get("/api/v2/health")(self._health)
        routes.post("/api/v2/jobs")(self._submit)
        routes.get("/api/v2/jobs")(self._list)
        routes.get("/api/v2/jobs/{id}")(self._get)
        routes.get("/api/v2/jobs/{id}/workflow")(self._workflow)
        routes.get("/api/v2/jobs/{id}/events")(self._events)
        routes.post("/api/v2/jobs/{id}/cancel")(self._cancel)

    async def lifetime(self, session: aiohttp.ClientSession, servers: ServerList) -> AsyncIterator[None]:
        """Listen to all servers while the gateway runs."""
        links = self._links = ClientLinks(session, self._client_id, self._stories)
        links.announce({"supports_preview_metadata": True})
        links.follow(servers.reachable())
        servers.changed.append(lambda: links.follow(servers.reachable()))
        yield
        await links.close()

    async def _health(self, request: web.Request) -> web.Response:
        return json_answer({"status": "healthy"})

    async def _submit(self, request: web.Request) -> web.Response:
        job = JobRequest.parse(await read_json_object(request), request.headers.get("Idempotency-Key"))
        workflow = await with_files(job.workflow, self._store)
        if job.has_key and await self._fleet.find(job.prompt_id) is not None:
            raise V2Error(422, "idempotency_key_reuse", "This Idempotency-Key was used already; ask for the job that it made.")
        classes = {str(key): str(node.get("class_type")) for key, node in workflow.items() if isinstance(node, dict)}
        story = Story(len(workflow), classes, labels=job.metadata, priority=job.priority)
        facts = {"metadata": job.metadata, "priority": job.priority}
        body = {
            "prompt": workflow,
            "prompt_id": job.prompt_id,
            "client_id": self._client_id,
            "extra_data": {**job.extra_data, FACTS: facts},
        }
        if self._links is not None:
            await self._links.ready()
        self._stories.begin(job.prompt_id, story)
        try:
            await self._submitting.submit(body, is_large=(request.content_length or LARGE_BYTES) >= LARGE_BYTES)
        except BaseException:
            self._stories.drop(job.prompt_id)
            raise
        return json_answer((await self._known(job.prompt_id)).body(base_of(request)), 201)

    async def _known(self, prompt_id: str) -> Known:
        """What there is to know of a job. Raises :class:`V2Error` for one that nobody knows."""
        if not is_job_id(prompt_id):
            raise V2Error(404, "not_found", "There is no job with that id.")
        story = self._stories.get(prompt_id)
        entry, view = await self._histories.entry_and_view(prompt_id)
        if entry is None and view is None and story is None:
            raise V2Error(404, "not_found", "There is no job with that id.")
        position = None
        if view is not None and view.state in (JobState.PLACING, JobState.WAITING):
            waiting = [job.prompt_id for job in await self._fleet.jobs() if job.state in (JobState.PLACING, JobState.WAITING)]
            position = waiting.index(prompt_id) + 1 if prompt_id in waiting else None
        known = Known(prompt_id, view, entry, story, position, lambda asset_id: self._sizes.get(asset_id, 0))
        if known.status in TERMINAL:
            await self._measure(known)
        return known

    async def _measure(self, known: Known) -> None:
        """Ask for the sizes of a job's files, once."""
        new = [file for file in known.files() if file.asset_id not in self._sizes]
        sizes = await asyncio.gather(*(self._files.size_of(file.filename, file.subfolder, file.kind) for file in new))
        if len(self._sizes) > 100_000:
            self._sizes.clear()
        self._sizes |= {file.asset_id: size for file, size in zip(new, sizes, strict=True) if size is not None}

    async def _get(self, request: web.Request) -> web.Response:
        return await large_json_answer((await self._known(request.match_info["id"])).body(base_of(request)))

    async def _workflow(self, request: web.Request) -> web.Response:
        workflow = (await self._known(request.match_info["id"])).workflow()
        if workflow is None:
            raise V2Error(404, "not_found", "The workflow can be told once the job has ended.")
        return await large_json_answer({"workflow": workflow, "format": "api"})

    async def _cancel(self, request: web.Request) -> web.Response:
        known = await self._known(request.match_info["id"])
        if known.status not in TERMINAL:
            if known.story is not None:
                known.story.is_canceling = True
            await self._fleet.cancel(known.prompt_id)
            known = await self._known(known.prompt_id)
        return await large_json_answer(known.body(base_of(request)))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        known = await self._known(request.match_info["id"])
        if self._streams >= MOST_STREAMS:
            raise V2Error(429, "too_many_streams", "There are too many event streams; ask for the job instead.", None, STREAM_RETRY_S)
        self._streams += 1
        try:
            stream = EventStream(lambda: self._known(known.prompt_id), known.story or Story(), base_of(request))
            return await stream.serve(request)
        finally:
            self._streams -= 1

    async def _list(self, request: web.Request) -> web.Response:
        limit, first, statuses, labels = _filters(request)
        entries = await self._histories.entries()
        views = {view.prompt_id: view for view in await self._fleet.jobs()}
        jobs = [self._listed(prompt_id, view, None) for prompt_id, view in views.items()]
        jobs += [self._listed(prompt_id, None, entry) for prompt_id, entry in entries.items() if prompt_id not in views]
        jobs.sort(key=lambda job: (job["create_time"], job["id"]), reverse=True)
        wanted = [job for job in jobs if (not statuses or job["status"] in statuses) and _has_labels(job, labels)]
        page = {"jobs": wanted[first : first + limit], "truncated": False}
        if first + limit < len(wanted):
            page["next_cursor"] = base64.urlsafe_b64encode(str(first + limit).encode()).decode()
        return await large_json_answer(page)

    def _listed(self, prompt_id: str, view: JobView | None, entry: dict[str, Any] | None) -> dict[str, Any]:
        return Known(prompt_id, view, entry, self._stories.get(prompt_id)).summary()


def _filters(request: web.Request) -> tuple[int, int, set[str], dict[str, str]]:
    query = request.query
    limit = query.get("limit", str(LISTED))
    if not limit.isdigit() or not 1 <= int(limit) <= MOST_LISTED:
        raise V2Error(400, "invalid_request", f"'limit' must be a number from 1 to {MOST_LISTED}.")
    try:
        first = int(base64.urlsafe_b64decode(query["cursor"])) if "cursor" in query else 0
    except (ValueError, binascii.Error):
        raise V2Error(400, "invalid_cursor", "The cursor is not one of this list.") from None
    statuses = {status.strip() for status in query.get("status", "").split(",") if status.strip()}
    if statuses - _STATUSES:
        raise V2Error(400, "invalid_request", f"Unknown status {', '.join(sorted(statuses - _STATUSES))}.")
    labels = {key[len("metadata[") : -1]: value for key, value in query.items() if key.startswith("metadata[") and key.endswith("]")}
    return int(limit), max(0, first), statuses, labels


def _has_labels(job: dict[str, Any], labels: dict[str, str]) -> bool:
    own = job.get("metadata")
    return not labels or (isinstance(own, dict) and all(own.get(key) == value for key, value in labels.items()))
