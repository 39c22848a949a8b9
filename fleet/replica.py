"""One place of the fleet: a server, kept running, and the jobs that are sent to it."""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from fleet.follower import Follower
from fleet.messages import MayHaveRun, NotRun, Outcome, Refused, Reply, SentJob, ServerReport, Taken
from fleet.server_http import ServerHttp
from fleet.shared_uploads import SharedUploads, places_in
from fleet.supervisor import ServerPlan, Supervisor
from fleet.values import InputFile, ModelFile, ServerState, ServerSummary
from serverless.server_api import ServerAnswer, ServerUnreachable

log = logging.getLogger(__name__)

REPORT_EVERY_S = 2.0
REPORT_LIMIT_S = 5.0
Report = Callable[[ServerReport], Awaitable[None]]


class Replica:
    """Starts its server in :meth:`start`; everything else on the same loop.

    *report* is awaited with what the dispatcher should know, after every change and every two seconds; what it raises is logged.
    """

    def __init__(self, server_id: str, node_id: str, plan: ServerPlan, report: Report, accelerator: str = "") -> None:
        self._server_id, self._node_id, self._accelerator = server_id, node_id, accelerator
        self._report = report
        self.supervisor = Supervisor(plan, self._came_up, self._died)
        self._http = ServerHttp(self.supervisor.base_url)
        self._follower = Follower(self._http, self._take_summary)
        self._state = ServerState.STARTING
        self._summary = ServerSummary()
        self._files: tuple[ModelFile, ...] | None = None
        self._shared = SharedUploads(places_in(plan.flags, {**os.environ, **plan.environment}))
        self._brought: dict[tuple[str, str, str], str] = {}
        self._reporter: asyncio.Task[None] | None = None
        self._report_soon = asyncio.Event()

    async def start(self) -> None:
        """Return when the server answers. Raises ``RuntimeError`` when it cannot be started."""
        await self.supervisor.start()
        self._follower.start()
        self._reporter = asyncio.create_task(self._keep_reporting(), name="replica-reports")

    async def stop(self) -> None:
        """Take no more jobs, and end the server."""
        self._state = ServerState.DRAINING
        self._report_soon.set()
        if self._reporter is not None:
            self._reporter.cancel()
            await asyncio.gather(self._reporter, return_exceptions=True)
        await self._follower.close()
        await self.supervisor.stop()
        await self._http.close()
        await self._shared.close()
        self._state = ServerState.GONE
        await self._say(self._current())

    def drain(self) -> None:
        """Take no more jobs."""
        self._state = ServerState.DRAINING
        self._report_soon.set()

    @property
    def jobs(self) -> int:
        """How many jobs are here."""
        return self._follower.count

    async def run(self, sent: SentJob) -> AsyncIterator[Reply]:
        """Have the server take the job, and follow it to its end: Taken and an outcome, or one reply that it was not taken."""
        if sent.tried:
            yield MayHaveRun("it was sent to another server before")
            return
        if self._state is not ServerState.READY:
            yield NotRun(f"its server is {self._state}")
            return
        outcome = self._follower.follow(sent.prompt_id)
        try:
            reply = await self._submit(sent, outcome)
            yield reply
            if isinstance(reply, Taken):
                yield await outcome
        finally:
            self._follower.drop(sent.prompt_id)

    async def _submit(self, sent: SentJob, outcome: "asyncio.Future[Outcome]") -> Reply:
        try:
            for file in sent.inputs:
                await self._bring(file)
        except (ServerAnswer, ServerUnreachable) as error:
            return NotRun(f"an input file could not be brought there: {error}")
        try:
            status, body = await self._http.submit(sent.body, sent.usage_source)
        except ServerUnreachable as error:
            return await self._fate(sent, outcome, error)
        if status != 200:
            return Refused(status, body)
        self._follower.queued(sent.prompt_id)
        told = json.loads(body)
        return Taken(self._server_id, self._http.base_url, float(told.get("number") or 0), told.get("node_errors") or {})

    async def _fate(self, sent: SentJob, outcome: "asyncio.Future[Outcome]", error: ServerUnreachable) -> Reply:
        """What became of a job when the answer to its submission was lost: the server knows, or its notes do once it is dead."""
        if error.is_refused:
            return NotRun("nobody listens at its server's address")
        while not outcome.done():
            try:
                where, _ = await self._http.where(sent.prompt_id)
            except (ServerUnreachable, ServerAnswer):
                await asyncio.wait({outcome}, timeout=0.2)
                continue
            if where == "unknown":
                return NotRun(f"its server never got it: {error}")
            self._follower.queued(sent.prompt_id)
            return Taken(self._server_id, self._http.base_url, float(sent.body.get("number") or 0))
        return outcome.result()

    async def _bring(self, file: InputFile) -> None:
        key = (file.kind, file.subfolder, file.name)
        if self._brought.get(key) != file.digest:
            await self._http.bring(file, await self._shared.fetch(file.digest, file.size_bytes))
            self._brought[key] = file.digest

    async def _came_up(self) -> None:
        self._brought.clear()
        if self._state is not ServerState.DRAINING:
            self._state = ServerState.READY
        self._follower.look_soon()
        self._report_soon.set()

    async def _died(self, reason: str) -> None:
        if self._state is not ServerState.DRAINING:
            self._state = ServerState.STARTING
        self._summary = ServerSummary()
        await self._say(self._current())
        await self._follower.server_died(str(self.supervisor.started_path), reason)

    async def _take_summary(self, summary: ServerSummary, files: tuple[ModelFile, ...] | None) -> None:
        self._summary = summary
        self._files = files if files is not None else self._files
        self._report_soon.set()

    def _current(self) -> ServerReport:
        supervisor = self.supervisor
        return ServerReport(
            self._server_id,
            supervisor.base_url,
            self._state,
            self._node_id,
            str(supervisor.started_path),
            supervisor.restarts,
            self._accelerator,
            self._summary,
            self._files,
        )

    async def _keep_reporting(self) -> None:
        while True:
            # Not by wait_for, which, before Python 3.12, swallows a cancellation that comes with what it waits for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_EVERY_S):
                    await self._report_soon.wait()
            self._report_soon.clear()
            await self._say(self._current())

    async def _say(self, report: ServerReport) -> None:
        try:
            async with asyncio.timeout(REPORT_LIMIT_S):
                await self._report(report)
        except Exception as error:
            log.warning("The fleet's dispatcher does not hear of server %s: %s %s", self._server_id, type(error).__name__, error)
