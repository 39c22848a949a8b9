"""``Fleet`` over a fixed list of servers: each job goes to the server with the fewest, and what happens to it is asked of that server."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from fleet.books import Work
from fleet.gateway.server_socket import ServerSocket
from fleet.interface import DuplicateJob, FleetError, NoServer, PromptRefused, QueueFull
from fleet.job_table import JobRecord, JobTable
from fleet.lost_jobs import ended_state, lost_entry
from fleet.plain.server_calls import ServerCalls
from fleet.plain.watch import ServerWatch
from fleet.values import Accepted, Decision, FleetEvent, InputFile, Job, JobState, JobView, ServerEstimate, ServerState, ServerView
from serverless.server_api import ServerAnswer, ServerUnreachable

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
RETRY_AFTER_S = 5
# Refusals that another server may not share: it may have the model, the node or the file.
_LOCAL_REASONS = frozenset({"value_not_in_list", "custom_validation_failed", "missing_node_type"})


class StaticFleet:
    """Made from ``{server id: base URL}``; ``start`` it on the loop that uses it, ``close`` it there. See ``Fleet`` for its methods."""

    def __init__(self, urls: Mapping[str, str], most_per_server: int = 100) -> None:
        self._urls = {server_id: url.rstrip("/") for server_id, url in urls.items()}
        self._most_per_server = most_per_server
        self._table = JobTable()
        self._calls = {server_id: ServerCalls(url) for server_id, url in self._urls.items()}
        self._watches: dict[str, ServerWatch] = {}
        self._sockets: list[ServerSocket] = []
        self._session: aiohttp.ClientSession | None = None
        # (server, kind, subfolder, name) -> digest of what was put there.
        self._files: dict[tuple[str, str, str, str], str] = {}
        self._moving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to watch the servers; returns once each was tried."""
        self._session = aiohttp.ClientSession(trust_env=False)
        client_id = f"fleet-{uuid.uuid4().hex}"
        for server_id, url in self._urls.items():
            watch = ServerWatch(server_id, self._calls[server_id], self._table, self._lost, self._changed)
            self._watches[server_id] = watch
            socket = ServerSocket(self._session, server_id, url, client_id, watch)
            socket.connected = socket.disconnected = watch.look_soon
            self._sockets.append(socket)
            watch.start()
        await asyncio.gather(*(watch.looked.wait() for watch in self._watches.values()))

    async def close(self) -> None:
        """End every connection; the servers go on."""
        for task in list(self._moving):
            task.cancel()
        closing = [watch.close() for watch in self._watches.values()] + [socket.close() for socket in self._sockets]
        await asyncio.gather(*closing, return_exceptions=True)
        await asyncio.gather(*(calls.api.close() for calls in self._calls.values()))
        if self._session is not None:
            await self._session.close()

    async def submit(self, job: Job) -> Accepted:
        known = self._table.find(job.prompt_id)
        if known is not None:
            raise DuplicateJob(known.view())
        client_id = job.body.get("client_id")
        record = JobRecord(
            job.prompt_id, job, Work(job.prompt_id, ()), client_id=None if client_id is None else str(client_id), submitted_s=time.time()
        )
        self._table.unfinished[job.prompt_id] = record
        try:
            return await self._place(record)
        except BaseException:
            if self._table.unfinished.get(job.prompt_id) is record:
                del self._table.unfinished[job.prompt_id]
            raise

    async def _place(self, record: JobRecord, is_new: bool = True) -> Accepted:
        """Send a job to the best server, or the next best when that is gone or lacks what it needs. Limits are for new jobs."""
        refusal: PromptRefused | None = None
        while True:
            try:
                server_id = self._choose(record, is_new)
            except NoServer:
                if refusal is not None:
                    raise refusal from None
                raise
            record.server_id, record.base_url, record.attempts = server_id, self._urls[server_id], record.attempts + 1
            try:
                return await self._send(record, server_id)
            except PromptRefused as error:
                refusal = refusal or error
                if not _is_local(error):
                    raise
            except ServerUnreachable as error:
                log.warning("Job %s was not taken by server %s: %s", record.prompt_id, server_id, error)
                if await self._was_taken(record, server_id, error):
                    return self._accepted(record, server_id, {})
            record.excluded |= {server_id}

    def _choose(self, record: JobRecord, is_new: bool) -> str:
        up = [server_id for server_id, watch in self._watches.items() if watch.is_up and server_id not in record.excluded]
        if not up or record.attempts >= max(MOST_ATTEMPTS, len(self._urls)):
            raise NoServer("no server of the fleet can take the job: " + ("all are down" if not up else "it was tried too often"))
        loads = {server_id: self._count(server_id) for server_id in up}
        server_id = min(up, key=lambda one: loads[one])
        if is_new and loads[server_id] >= self._most_per_server:
            raise QueueFull(RETRY_AFTER_S)
        estimates = tuple(ServerEstimate(one, float(loads[one]), 0.0) for one in sorted(up, key=lambda one: loads[one]))
        reason = f"fewest jobs: {loads[server_id]}"
        self._table.decisions.append(Decision(record.prompt_id, server_id, reason, time.time(), estimates))
        return server_id

    def _count(self, server_id: str) -> int:
        return sum(1 for _ in self._table.at(server_id))

    async def _send(self, record: JobRecord, server_id: str) -> Accepted:
        job, calls = record.job, self._calls[server_id]
        if job is None:
            raise FleetError("the job has ended meanwhile")
        try:
            for file in job.inputs:
                await self._bring(file, server_id)
            status, body = await calls.submit(dict(job.body), job.usage_source)
        except ServerAnswer as error:
            raise PromptRefused(502, json.dumps({"error": f"an input file could not be stored: {error}"}).encode()) from None
        if status != 200:
            raise PromptRefused(status, body)
        return self._accepted(record, server_id, json.loads(body))

    def _accepted(self, record: JobRecord, server_id: str, told: dict[str, Any]) -> Accepted:
        record.number = float(told.get("number") or 0)
        if record.state is JobState.PLACING:
            record.state = JobState.WAITING
            self._table.tell("placed", record)
        self._watches[server_id].look_soon()
        return Accepted(record.prompt_id, record.number, told.get("node_errors") or {}, server_id, self._urls[server_id])

    async def _was_taken(self, record: JobRecord, server_id: str, error: ServerUnreachable) -> bool:
        """Whether a server whose answer was lost has the job; not if nobody listened there. Raises ``FleetError`` if it cannot say."""
        if error.is_refused:
            return False
        try:
            where, _ = await self._calls[server_id].find(record.prompt_id)
        except (ServerUnreachable, ServerAnswer):
            raise FleetError(f"server {server_id} was lost while it was given the job; whether it runs it is not known") from None
        return where != "unknown"

    async def _bring(self, file: InputFile, server_id: str) -> None:
        """Have *file* on the server, unless it has that content under that name."""
        key = (server_id, file.kind, file.subfolder, file.name)
        if self._files.get(key) == file.digest:
            return
        assert self._session is not None
        try:
            async with self._session.get(file.url) as answer:
                if answer.status != 200:
                    raise FleetError(f"the input file {file.name} cannot be fetched from {file.url}: status {answer.status}")
                content = await answer.read()
        except aiohttp.ClientError as error:
            raise FleetError(f"the input file {file.name} cannot be fetched from {file.url}: {error}") from error
        await self._calls[server_id].put_file(file.name, file.subfolder, file.kind, content)
        self._files[key] = file.digest

    def _lost(self, server_id: str, records: list[JobRecord], why: str) -> None:
        """The server forgot these jobs or is gone: those that certainly did not run are sent elsewhere, the others are lost."""
        self._files = {key: digest for key, digest in self._files.items() if key[0] != server_id}
        # What waited behind a job that ran has not begun: a server runs one at a time and says so in order.
        something_ran = any(one.state is JobState.RUNNING for one in records)
        for record in records:
            if record.is_cancelled:
                self._table.end(record, JobState.CANCELLED, None)
            elif record.state is JobState.WAITING and something_ran and record.attempts < MOST_ATTEMPTS:
                record.state = JobState.PLACING
                record.excluded = frozenset({server_id})
                task = asyncio.get_running_loop().create_task(self._move(record), name=f"move-{record.prompt_id}")
                self._moving.add(task)
                task.add_done_callback(self._moving.discard)
            else:
                doing = "ran it" if record.state is JobState.RUNNING else "was about to run it"
                self._give_up(record, f"Server {server_id} died while it {doing}: {why}. Send the job again")

    async def _move(self, record: JobRecord) -> None:
        try:
            await self._place(record, is_new=False)
            self._table.tell("moved", record)
        except PromptRefused as error:
            self._give_up(record, f"Its server died, and another one refused it: {error.body.decode('utf-8', 'replace')[:1000]}")
        except FleetError as error:
            self._give_up(record, f"Its server died, and it could not be sent to another one: {error}")

    def _give_up(self, record: JobRecord, failure: str) -> None:
        self._table.end(record, JobState.LOST, lost_entry(record, failure), failure)

    def _changed(self) -> None:
        self._table.tell("servers")

    async def find(self, prompt_id: str) -> JobView | None:
        record = self._table.find(prompt_id)
        return None if record is None else record.view()

    async def jobs(self) -> list[JobView]:
        return [record.view() for record in self._table.in_order()]

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        record = self._table.ended.get(prompt_id)
        return None if record is None else record.entry

    async def note_end(self, prompt_id: str, server_id: str, entry: dict[str, Any]) -> None:
        record = self._table.unfinished.get(prompt_id)
        if record is not None and record.server_id == server_id:
            self._table.end(record, ended_state(entry), entry)

    async def histories(self, max_items: int | None = None, offset: int = -1) -> dict[str, dict[str, Any]]:
        return self._table.histories(max_items, offset)

    async def forget(self, prompt_ids: Sequence[str] | None) -> None:
        for server_id, ids in self._table.forget(prompt_ids).items():
            try:
                await self._calls[server_id].api.post("/history", {"delete": ids})
            except (ServerUnreachable, ServerAnswer) as error:
                log.warning("Server %s keeps %d entries of its history: %s", server_id, len(ids), error)

    async def cancel(self, prompt_id: str) -> bool:
        record = self._table.unfinished.get(prompt_id)
        if record is None or record.server_id is None:
            return False
        record.is_cancelled = True
        try:
            done = await self._calls[record.server_id].cancel(prompt_id)
        except (ServerUnreachable, ServerAnswer) as error:
            raise FleetError(f"server {record.server_id} cannot be asked to stop the job: {error}") from error
        self._watches[record.server_id].look_soon()
        return done

    async def interrupt_all(self) -> None:
        for server_id, calls in self._calls.items():
            try:
                await calls.api.post("/interrupt", {})
            except (ServerUnreachable, ServerAnswer) as error:
                log.warning("Server %s cannot be interrupted: %s", server_id, error)

    async def servers(self) -> list[ServerView]:
        return [
            ServerView(
                server_id,
                url,
                ServerState.READY if self._watches[server_id].is_up else ServerState.GONE,
                backlog_s=float(self._count(server_id)),
                restarts=self._watches[server_id].restarts,
            )
            for server_id, url in self._urls.items()
        ]

    async def decisions(self, limit: int = 100) -> list[Decision]:
        return list(self._table.decisions)[-limit:][::-1]

    async def events(self, after: int, timeout_s: float = 20.0) -> list[FleetEvent]:
        return await self._table.events(after, timeout_s)


def _is_local(refusal: PromptRefused) -> bool:
    """Whether another server may take what this one refused."""
    if refusal.status != 400:
        return refusal.status in (502, 503)
    try:
        told = json.loads(refusal.body)
        kinds = {told["error"]["type"]}
        kinds |= {one["type"] for node in (told.get("node_errors") or {}).values() for one in node["errors"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(kinds & _LOCAL_REASONS)
