"""Follows the jobs of one server to their ends: listens for changes of its queue, and reads its summary and history."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from app.running.started_prompts import read_started
from fleet.messages import Ended, MayHaveRun, NotRun, Outcome, Withdrawn
from fleet.server_http import ServerHttp
from fleet.values import ModelFile, ServerSummary
from serverless.server_api import ServerAnswer, ServerUnreachable

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
RECONNECT_S = 0.2
SUMMARY_PAUSE_S = 0.02
Summaries = Callable[[ServerSummary, tuple[ModelFile, ...] | None], Awaitable[None]]


@dataclass(slots=True)
class _Followed:
    outcome: "asyncio.Future[Outcome]"
    is_queued: bool = False


class Follower:
    """Of the server behind *http*; *on_summary* is awaited with each new summary. ``start`` once, ``close`` once, on one loop."""

    def __init__(self, http: ServerHttp, on_summary: Summaries) -> None:
        self._http, self._on_summary = http, on_summary
        self._followed: dict[str, _Followed] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._last = ServerSummary()

    def start(self) -> None:
        """Begin to listen."""
        self._tasks = [asyncio.create_task(self._listen(), name="follower-socket"), asyncio.create_task(self._look_on(), name="follower")]

    async def close(self) -> None:
        """Stop listening; jobs that are followed get no outcome."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def count(self) -> int:
        """How many jobs are followed."""
        return len(self._followed)

    def follow(self, prompt_id: str) -> "asyncio.Future[Outcome]":
        """What will become of *prompt_id*, which is about to be sent; say :meth:`queued` when the server has it."""
        followed = self._followed[prompt_id] = _Followed(asyncio.get_running_loop().create_future())
        return followed.outcome

    def queued(self, prompt_id: str) -> None:
        """The server has the prompt: it is in its queue, or has left it again."""
        if prompt_id in self._followed:
            self._followed[prompt_id].is_queued = True
            self._changed.set()

    def drop(self, prompt_id: str) -> None:
        """Follow *prompt_id* no longer."""
        self._followed.pop(prompt_id, None)

    async def server_died(self, started_path: str, reason: str) -> None:
        """Tell what became of the followed jobs, of which the server, now dead, has noted those it began."""
        started = await asyncio.to_thread(read_started, started_path)
        for prompt_id in list(self._followed):
            if started is None:
                self._settle(
                    prompt_id, MayHaveRun(f"{reason}; {started_path} cannot be read, so it is not known whether the job had begun")
                )
            elif prompt_id in started:
                self._settle(prompt_id, MayHaveRun(f"{reason} while it ran the job, or just after"))
            else:
                self._settle(prompt_id, NotRun(reason))

    def look_soon(self) -> None:
        """Read the summary now."""
        self._changed.set()

    async def _listen(self) -> None:
        """Each message that the server sends to everybody tells of a change of its queue."""
        url = f"ws{self._http.base_url.removeprefix('http')}/ws?clientId=fleet-{uuid.uuid4().hex}"
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with self._http.api.session.ws_connect(url, max_msg_size=0) as socket:
                    self._changed.set()
                    async for _ in socket:
                        self._changed.set()
            await asyncio.sleep(RECONNECT_S)

    async def _look_on(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self._look()
            except (ServerUnreachable, ServerAnswer) as error:
                log.debug("The summary cannot be read: %s", error)
            except Exception:
                log.exception("A look at the server on %s failed", self._http.base_url)
            await asyncio.sleep(SUMMARY_PAUSE_S)

    async def _look(self) -> None:
        told = await self._http.summary()
        if told is not None:
            self._last = told[0]
        present = {*self._last.running, *self._last.waiting}
        for prompt_id, followed in list(self._followed.items()):
            if followed.is_queued and prompt_id not in present:
                where, entry = await self._http.where(prompt_id)
                if where == "ended" and entry is not None:
                    self._settle(prompt_id, Ended(entry))
                elif where == "unknown":
                    self._settle(prompt_id, Withdrawn())
        if told is not None:
            await self._on_summary(*told)

    def _settle(self, prompt_id: str, outcome: Outcome) -> None:
        followed = self._followed.pop(prompt_id, None)
        if followed is not None and not followed.outcome.done():
            followed.outcome.set_result(outcome)
