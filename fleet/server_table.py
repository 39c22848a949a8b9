"""The servers of the fleet as they report themselves, and what is asked of them directly."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fleet.books import FleetBooks, Work
from fleet.job_table import JobRecord, JobTable
from fleet.lost_jobs import ended_state, lost_entry
from fleet.messages import ServerReport
from fleet.needs import Catalogue
from fleet.routing import cheapest_to_lose
from fleet.server_http import ServerHttp
from fleet.values import EndedPrompt, JobState, ModelFile, ServerState, ServerSummary, ServerView
from serverless.server_api import ServerAnswer, ServerUnreachable

log = logging.getLogger(__name__)

SILENT_S = 15.0


class ServerTable:
    """Keeps *books* and *table* in step with what servers say. Lives on one loop; ``close`` it there."""

    def __init__(self, books: FleetBooks, table: JobTable, clock: Callable[[], float] = time.monotonic) -> None:
        self._books, self._table, self._clock = books, table, clock
        self.reports: dict[str, ServerReport] = {}
        self.catalogue = Catalogue()
        self._heard_s: dict[str, float] = {}
        self._http: dict[str, ServerHttp] = {}
        self._warned: set[tuple[str, str]] = set()
        # Found on a server, with nobody who follows them: jobs of the dispatcher before this one.
        self._adopted: dict[str, JobRecord] = {}
        self._draining: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End the connections."""
        for server_id in list(self._http):
            self._disconnect(server_id)
        await asyncio.gather(*self._closing)

    def ready(self) -> list[str]:
        """The servers that take jobs."""
        now_s = self._clock()
        return [
            one
            for one, report in self.reports.items()
            if report.state is ServerState.READY and one not in self._draining and now_s - self._heard_s[one] < SILENT_S
        ]

    def drain(self, server_id: str) -> bool:
        """Have a server get no more jobs; whether it has none any more."""
        self._draining.add(server_id)
        return next(self._table.at(server_id), None) is None

    def cheapest_to_lose(self) -> str | None:
        """The server whose loss costs least; None without any."""
        books = [self._books.servers[one] for one in self.ready()]
        return cheapest_to_lose(books, self._books.copies, self._clock())

    def base_url(self, server_id: str) -> str | None:
        """Where a server is."""
        report = self.reports.get(server_id)
        return None if report is None else report.base_url

    async def take(self, report: ServerReport) -> None:
        """Note what a server says of itself."""
        before = self.reports.get(report.server_id)
        if report.files is None and before is not None:
            report = replace(report, files=before.files)
        self._heard_s[report.server_id] = self._clock()
        is_new = before is None or before.base_url != report.base_url
        if is_new or (before is not None and before.summary.boot != report.summary.boot and not report.summary.boot):
            # Nothing is warm on it; what was sent is settled by those who follow it.
            self._open_book(report)
        if report.state is ServerState.GONE:
            self.remove(report.server_id)
            return
        self.reports[report.server_id] = report
        self._take_files(report, None if before is None else before.files)
        if report.summary.boot:
            self._books.report(report.server_id, report.summary, self._clock())
            self._note_running(report)
            await self._settle_adopted(report)
        if is_new or before is None or (before.state, before.restarts) != (report.state, report.restarts):
            self._table.tell("servers")

    def _open_book(self, report: ServerReport) -> None:
        book = self._books.servers.get(report.server_id)
        if book is None:
            self._books.add(report.server_id, report.files or (), report.summary.cap_bytes)
        else:
            self._books.report(report.server_id, ServerSummary(cap_bytes=book.cap_bytes), self._clock())

    def _take_files(self, report: ServerReport, before: tuple[ModelFile, ...] | None) -> None:
        if report.files is None or (report.files == before and before is not None):
            return
        book = self._books.servers[report.server_id]
        known = {place: file for place, file in book.files.items() if file.identity is not None}
        book.files = {file.place: _with_identity(file, known.get(file.place)) for file in report.files}
        for file in report.files:
            self.catalogue.add(file.place)
        for place, one, other in self._books.conflicts():
            if place not in self._warned:
                self._warned.add(place)
                log.warning(
                    "%s is another file on server %s than on %s: a job that names it computes with what lies where it runs, and is not "
                    "sent on to a server with other contents. Give the files names of their own, or the servers the same ones",
                    "/".join(place),
                    other,
                    one,
                )

    def _note_running(self, report: ServerReport) -> None:
        for prompt_id in report.summary.running:
            record = self._table.unfinished.get(prompt_id)
            if record is not None and record.state is JobState.WAITING:
                record.state = JobState.RUNNING

    async def _settle_adopted(self, report: ServerReport) -> None:
        """Take over jobs that nobody here has sent, and give those their end that have left the server's queue."""
        present = (*report.summary.running, *report.summary.waiting)
        for prompt_id in present:
            if self._table.find(prompt_id) is None:
                self._adopt(report, prompt_id)
        gone = [record for record in self._adopted.values() if record.server_id == report.server_id and record.prompt_id not in present]
        for record in gone:
            del self._adopted[record.prompt_id]
            try:
                where, entry = await self._of(report.server_id).where(record.prompt_id)
            except (ServerUnreachable, ServerAnswer) as error:
                where, entry = str(error), None
            if entry is not None:
                self._table.end(record, ended_state(entry), entry)
            else:
                failure = f"it is on its server no longer, which was restarted or cancelled it ({where})"
                self._table.end(record, JobState.LOST, lost_entry(record, failure), failure)

    def _adopt(self, report: ServerReport, prompt_id: str) -> None:

        record = JobRecord(
            prompt_id, None, Work(prompt_id, ()), JobState.WAITING, report.server_id, report.base_url, submitted_s=time.time()
        )
        record.state = JobState.RUNNING if prompt_id in report.summary.running else JobState.WAITING
        self._table.unfinished[prompt_id] = self._adopted[prompt_id] = record

    def job_ended(self, record: JobRecord, entry: dict[str, Any]) -> None:
        """Learn from the end of a job that was followed."""
        if record.server_id not in self._books.servers:
            return
        times = [one[1]["timestamp"] for one in (entry.get("status") or {}).get("messages") or () if "timestamp" in (one[1] or {})]
        read_s = sum(receipt.get("seconds", 0.0) for receipt in entry.get("models") or () if receipt.get("tier") == "disk")
        seconds = (times[-1] - times[0]) / 1000 if times else 0.0
        ended = EndedPrompt(record.prompt_id, (entry.get("status") or {}).get("status_str", "error"), seconds, read_s)
        self._books.end(record.server_id, ended, self._clock())

    def lost(self, server_id: str) -> None:
        """The replica of a server is gone."""
        report = self.reports.get(server_id)
        if report is not None and report.state is not ServerState.GONE:
            self.reports[server_id] = replace(report, state=ServerState.GONE)
            self._table.tell("servers")

    def present(self, server_ids: frozenset[str]) -> None:
        """Those servers are there and no others: what is told of those that were heard of before and are gone for long is dropped."""
        for server_id in [one for one in self.reports if one not in server_ids]:
            if self._clock() - self._heard_s[server_id] > 2 * SILENT_S:
                self.remove(server_id)

    def remove(self, server_id: str) -> None:
        """A server is gone for good."""
        if self.reports.pop(server_id, None) is not None:
            self._heard_s.pop(server_id, None)
            self._draining.discard(server_id)
            self._disconnect(server_id)
            self._books.remove(server_id)
            self._table.tell("servers")
        for record in [one for one in self._adopted.values() if one.server_id == server_id]:
            del self._adopted[record.prompt_id]
            failure = "its server is gone"
            self._table.end(record, JobState.LOST, lost_entry(record, failure), failure)

    def views(self) -> list[ServerView]:
        """All servers, in the order in which they joined."""
        now_s = self._clock()
        found = []
        for one, report in self.reports.items():
            state = report.state if now_s - self._heard_s[one] < SILENT_S else ServerState.GONE
            if state is ServerState.READY and one in self._draining:
                state = ServerState.DRAINING
            wait_s = self._books.servers[one].wait_s(now_s) if one in self._books.servers else 0.0
            view = ServerView(one, report.base_url, state, report.node_id, report.summary, wait_s, report.restarts, report.accelerator)
            found.append(view)
        return found

    async def cancel(self, server_id: str, prompt_id: str) -> bool:
        """Have a server withdraw or interrupt a prompt; whether it could be asked."""
        try:
            await self._of(server_id).cancel(prompt_id)
        except (ServerUnreachable, ServerAnswer) as error:
            log.warning("Server %s cannot be asked to stop job %s: %s", server_id, prompt_id, error)
            return False
        return True

    async def interrupt_all(self) -> None:
        """Have every server interrupt what it runs."""
        await self._ask_all({one: lambda http: http.interrupt() for one in self.ready()})

    async def forget(self, by_server: dict[str, list[str]]) -> None:
        """Have servers forget prompts that ended."""
        await self._ask_all({one: _forgetting(ids) for one, ids in by_server.items() if one in self.reports})

    async def _ask_all(self, calls: dict[str, Callable[[ServerHttp], Any]]) -> None:
        answers = await asyncio.gather(*(call(self._of(one)) for one, call in calls.items()), return_exceptions=True)
        for server_id, answer in zip(calls, answers):
            if isinstance(answer, Exception):
                log.warning("Server %s did not do what was asked: %s", server_id, answer)

    def _of(self, server_id: str) -> ServerHttp:
        report = self.reports[server_id]
        if server_id in self._http and self._http[server_id].base_url != report.base_url:
            self._disconnect(server_id)
        if server_id not in self._http:
            self._http[server_id] = ServerHttp(report.base_url)
        return self._http[server_id]

    def _disconnect(self, server_id: str) -> None:
        """End the connections to a server, if there are any."""
        http = self._http.pop(server_id, None)
        if http is not None:
            task = asyncio.get_running_loop().create_task(http.close(), name=f"disconnect-{server_id}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _with_identity(file: ModelFile, known: ModelFile | None) -> ModelFile:
    return replace(file, identity=known.identity) if known is not None and known.size_bytes == file.size_bytes else file


def _forgetting(prompt_ids: list[str]) -> Callable[[ServerHttp], Any]:
    return lambda http: http.forget(prompt_ids)
