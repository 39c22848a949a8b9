"""The head of the fleet: takes jobs, decides where they go, follows them, and sends them again where that is certainly right."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fleet.books import FleetBooks, Work
from fleet.interface import DuplicateJob, FleetError, NoServer, PromptRefused, QueueFull
from fleet.job_table import JobRecord, JobTable
from fleet.lost_jobs import ended_state, lost_entry
from fleet.messages import Ended, MayHaveRun, NotRun, Refused, Reply, SentJob, Taken, Withdrawn
from fleet.needs import kind_of
from fleet.routing import DEFAULT_WEIGHTS, Choice, Weights, choose
from fleet.server_table import ServerTable
from fleet.values import Accepted, Decision, FleetEvent, Job, JobState, JobView, ServerView

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
FIRST_REPLY_S = 120.0
Began = Callable[[str, str], Awaitable[frozenset[str] | None]]


class Sender(Protocol):
    """Carries jobs to servers. It asks :meth:`Dispatcher.place` where to; breaking off with an exception, the replica is gone."""

    def send(self, sent: SentJob) -> AsyncIterator[Reply]:
        """The replies of the replica that was chosen."""


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """*most_per_server* jobs wait or run at a server at most; a job is tried *most_attempts* times."""

    most_per_server: int = 100
    most_attempts: int = MOST_ATTEMPTS
    weights: Weights = DEFAULT_WEIGHTS


class Dispatcher:
    """The ``Fleet`` itself, on one loop. *sender* carries jobs; *began* reads, on the node and from the path given, the ids of the prompts
    that a dead server had begun (None: not known).
    """

    def __init__(self, sender: Sender, began: Began, settings: DispatchSettings | None = None) -> None:
        self._sender, self._began, self._settings = sender, began, settings or DispatchSettings()
        self.books = FleetBooks()
        self.table = JobTable()
        self.servers_known = ServerTable(self.books, self.table)
        self._following: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Follow no job any longer."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        await self.servers_known.close()

    # Taking jobs

    async def submit(self, job: Job) -> Accepted:
        known = self.table.find(job.prompt_id)
        if known is not None:
            raise DuplicateJob(known.view())
        prompt = job.body.get("prompt")
        needs = self.servers_known.catalogue.needs(prompt) if isinstance(prompt, dict) else ()
        work = Work(job.prompt_id, needs, kind_of(prompt, needs) if isinstance(prompt, dict) else "")
        client_id = job.body.get("client_id")
        record = JobRecord(job.prompt_id, job, work, client_id=None if client_id is None else str(client_id), submitted_s=time.time())
        self.table.unfinished[job.prompt_id] = record
        try:
            return await self._place(record, "placed")
        except BaseException:
            # Whoever waited gets the error; nothing else is to be told of a job that was never taken.
            if self.table.unfinished.get(job.prompt_id) is record:
                del self.table.unfinished[job.prompt_id]
            raise

    async def _place(self, record: JobRecord, event: str) -> Accepted:
        """Send *record* until a server has taken it. Raises what ``submit`` raises."""
        refusal: PromptRefused | None = None
        while True:
            try:
                self._check_room(record)
            except FleetError:
                if refusal is not None:
                    raise refusal from None
                raise
            record.attempts += 1
            sent = self._sent(record)
            replies = self._sender.send(sent)
            reply = await self._first(replies, sent)
            if isinstance(reply, Taken):
                return self._take(record, replies, reply, event)
            self._withdraw(sent)
            if isinstance(reply, Refused):
                refusal = PromptRefused(reply.status, reply.body)
                raise refusal
            if isinstance(reply, MayHaveRun | Ended | Withdrawn):
                raise FleetError(f"the job was not confirmed, and it may have run: {getattr(reply, 'reason', 'it has ended')}")
            log.warning("Job %s did not run on server %s: %s", record.prompt_id, sent.server_id, reply.reason)
            record.excluded |= {sent.server_id} if sent.server_id else frozenset()

    def _check_room(self, record: JobRecord) -> None:
        """Raises ``NoServer`` or ``QueueFull`` where no server can take *record*."""
        if record.attempts >= self._settings.most_attempts:
            raise NoServer(f"the job was sent to {record.attempts} servers, and none could run it")
        fitting = [one for one in self._eligible(record.excluded, None) if self._fits(record, one)]
        if not fitting:
            raise NoServer("no server of the fleet can take the job now: they are starting, or lost, or do not have its models")
        if not any(self._has_room(server_id) for server_id in fitting):
            now_s = time.monotonic()
            waits = [self.books.servers[one].wait_s(now_s) / max(1, len(self.books.servers[one].sent)) for one in fitting]
            raise QueueFull(max(1, math.ceil(min(waits))))

    def _fits(self, record: JobRecord, server_id: str) -> bool:
        """Whether the server has the job's files, with the contents that they had where the job was sent first."""
        book = self.books.servers[server_id]
        if not book.can_run(record.work.needs):
            return False
        first = record.contents
        return all(first.get(place) is None or book.files[place].identity in (None, first[place]) for place in record.work.needs)

    def _has_room(self, server_id: str) -> bool:
        return len(self.books.servers[server_id].sent) < self._settings.most_per_server

    def _eligible(self, excluded: Collection[str], present: Collection[str] | None) -> list[str]:
        ready = self.servers_known.ready()
        return [one for one in ready if one not in excluded and (present is None or one in present)]

    def _sent(self, record: JobRecord) -> SentJob:
        assert record.job is not None
        excluded = record.excluded | {one for one in self.books.servers if not self._fits(record, one)}
        job, work = record.job, record.work
        return SentJob(job.prompt_id, dict(job.body), work.needs, work.kind, job.inputs, job.usage_source, frozenset(excluded))

    def place(self, sent: SentJob, present: Collection[str] | None = None) -> str | None:
        """Choose the server for *sent* among those *present* (None: all) and note it; None when none can take it now."""
        now_s = time.monotonic()
        if sent.server_id is not None:
            sent.tried = (*sent.tried, sent.server_id)
            self._withdraw(sent)
        able = {one for one in self._eligible(sent.excluded, present) if self._has_room(one)}
        record = self.table.unfinished.get(sent.prompt_id)
        work = record.work if record is not None else Work(sent.prompt_id, sent.needs, sent.kind)
        for books in (self.books.candidates(sent.needs, now_s), list(self.books.servers.values())):
            choice = choose(work, [book for book in books if book.server_id in able], now_s, self._settings.weights, self.books.copies)
            if choice is not None:
                self._note(sent, work, choice, now_s)
                return choice.server_id
        return None

    def _note(self, sent: SentJob, work: Work, choice: Choice, now_s: float) -> None:
        sent.server_id = choice.server_id
        wanted = sent.body.get("number")
        number = float(wanted) if isinstance(wanted, int | float) else time.time() + choice.delay_s
        if wanted is None and sent.body.get("front") is not True:
            sent.body["number"] = number
        self.books.send(choice.server_id, work, now_s)
        record = self.table.unfinished.get(sent.prompt_id)
        if record is not None:
            record.server_id, record.number = choice.server_id, number
            record.base_url = self.servers_known.base_url(choice.server_id)
            files = self.books.servers[choice.server_id].files
            record.contents = {place: files[place].identity for place in work.needs if place in files}
        self.table.decisions.append(Decision(sent.prompt_id, choice.server_id, choice.reason, time.time(), choice.estimates))

    def _withdraw(self, sent: SentJob) -> None:
        if sent.server_id is not None:
            self.books.withdraw(sent.server_id, sent.prompt_id, time.monotonic())

    # Following jobs

    async def _first(self, replies: AsyncIterator[Reply], sent: SentJob) -> Reply:
        """The first reply; when there is none, what can be found out."""
        try:
            async with asyncio.timeout(FIRST_REPLY_S):
                reply = await anext(replies)
        except TimeoutError:
            reply = MayHaveRun(f"server {sent.server_id} did not answer for {FIRST_REPLY_S:.0f} s")
        except Exception as error:
            return await self._aftermath(sent.prompt_id, sent.server_id, error)
        if sent.tried:
            found = [await self._aftermath(sent.prompt_id, server_id, None) for server_id in sent.tried]
            return next((one for one in found if not isinstance(one, NotRun)), found[-1])
        return reply

    async def _aftermath(self, prompt_id: str, server_id: str | None, error: Exception | None) -> NotRun | MayHaveRun:
        """Whether a job ran on a server whose replica is gone."""
        reason = f"server {server_id} was lost" + (f" ({type(error).__name__})" if error is not None else "")
        log.warning("Job %s: %s: %s", prompt_id, reason, error)
        report = self.servers_known.reports.get(server_id or "")
        if report is None:
            return NotRun(reason) if server_id is None else MayHaveRun(reason)
        self.servers_known.lost(report.server_id)
        begun = await self._began(report.node_id, report.started_path)
        if begun is None:
            return MayHaveRun(f"{reason}, and whether it had begun the job is not known")
        return MayHaveRun(f"{reason} while it ran the job, or just after") if prompt_id in begun else NotRun(reason)

    def _take(self, record: JobRecord, replies: AsyncIterator[Reply], taken: Taken, event: str) -> Accepted:
        record.server_id, record.base_url, record.number = taken.server_id, taken.base_url, taken.number
        if record.state is JobState.PLACING:
            record.state = JobState.WAITING
        if not record.state.is_end:
            self.table.tell(event, record)
        task = asyncio.get_running_loop().create_task(self._follow(record, replies), name=f"follow-{record.prompt_id}")
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return Accepted(record.prompt_id, taken.number, taken.node_errors, taken.server_id, taken.base_url)

    async def _follow(self, record: JobRecord, replies: AsyncIterator[Reply]) -> None:
        """Give *record* its end, or send it on."""
        try:
            outcome: Reply = await anext(replies)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            outcome = await self._aftermath(record.prompt_id, record.server_id, error)
        if record.server_id is not None and not isinstance(outcome, Ended):
            self.books.withdraw(record.server_id, record.prompt_id, time.monotonic())
        if record.state.is_end:
            return  # a gateway has seen it
        if isinstance(outcome, Ended):
            self.servers_known.job_ended(record, outcome.entry)
            self.table.end(record, ended_state(outcome.entry), outcome.entry)
        elif isinstance(outcome, Withdrawn) or record.is_cancelled:
            self.table.end(record, JobState.CANCELLED, None, "it was cancelled before it ran")
        elif isinstance(outcome, NotRun):
            await self._send_on(record, outcome.reason)
        else:
            self._lose(record, getattr(outcome, "reason", "its server was lost"))

    async def _send_on(self, record: JobRecord, reason: str) -> None:
        """Send a job that certainly did not run to another server than the one that was lost."""
        record.excluded |= {record.server_id} if record.server_id else frozenset()
        record.state, lost = JobState.PLACING, record.server_id
        log.info("Job %s is sent to another server than %s: %s", record.prompt_id, lost, reason)
        if record.job is None:
            self._lose(
                record, f"{reason}; the job had not begun, but what it was is not known any more, as the dispatcher was restarted since"
            )
            return
        try:
            await self._place(record, "moved")
        except PromptRefused as error:
            self._lose(record, f"{reason}, and another server refused it: {error.body.decode('utf-8', 'replace')[:1000]}")
        except FleetError as error:
            self._lose(record, f"{reason}, and it could not be sent on: {error}")

    def _lose(self, record: JobRecord, failure: str) -> None:
        self.table.end(record, JobState.LOST, lost_entry(record, failure), failure)

    # What gateways ask besides

    async def find(self, prompt_id: str) -> JobView | None:
        record = self.table.find(prompt_id)
        return None if record is None else record.view()

    async def jobs(self) -> list[JobView]:
        return [record.view() for record in self.table.in_order()]

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        record = self.table.ended.get(prompt_id)
        return None if record is None else record.entry

    async def note_end(self, prompt_id: str, server_id: str, entry: dict[str, Any]) -> None:
        record = self.table.unfinished.get(prompt_id)
        if record is not None and record.server_id == server_id:
            self.servers_known.job_ended(record, entry)
            self.table.end(record, ended_state(entry), entry)

    async def histories(self, max_items: int | None = None, offset: int = -1) -> dict[str, dict[str, Any]]:
        return self.table.histories(max_items, offset)

    async def forget(self, prompt_ids: Sequence[str] | None) -> None:
        await self.servers_known.forget(self.table.forget(prompt_ids))

    async def cancel(self, prompt_id: str) -> bool:
        record = self.table.unfinished.get(prompt_id)
        if record is None or record.server_id is None:
            return False
        record.is_cancelled = True
        return await self.servers_known.cancel(record.server_id, prompt_id)

    async def interrupt_all(self) -> None:
        await self.servers_known.interrupt_all()

    async def servers(self) -> list[ServerView]:
        return self.servers_known.views()

    async def decisions(self, limit: int = 100) -> list[Decision]:
        return list(self.table.decisions)[-limit:][::-1]

    async def events(self, after: int, timeout_s: float = 20.0) -> list[FleetEvent]:
        return await self.table.events(after, timeout_s)
