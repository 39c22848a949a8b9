"""Checks of submitted prompts off the server's loop: packs' code takes part, and may be slow, hang or try to end the process."""

import asyncio
import contextlib
import contextvars
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)
Value = TypeVar("Value")

CHECK_LIMIT_S = 60.0
# So long a check may keep those behind it waiting.
TURN_S = 5.0
# Threads that checks were left behind on and that have not ended since.
MAX_LEFT_BEHIND = 32
_FRAMES_SHOWN = 6


class CheckFailed(Exception):
    """There is no verdict: the check took too long (*status* 503) or raised (500)."""

    def __init__(self, message: str, details: str, status: int) -> None:
        super().__init__(message)
        self.details = details
        self.status = status

    def as_error(self) -> dict[str, Any]:
        """The ``error`` object of the answer."""
        return {"type": "prompt_check_failed", "message": str(self), "details": self.details, "extra_info": {}}


class PromptChecking:
    """Runs one check after the other in the order of the requests, each on a thread with a loop of its own. Used from the server's loop.

    A check that takes longer than *turn_s* lets the next one begin beside it; after *limit_s* nobody waits for it any more.
    """

    def __init__(self, *, limit_s: float = CHECK_LIMIT_S, turn_s: float = TURN_S) -> None:
        self._limit_s = limit_s
        self._turn_s = turn_s
        self._last: asyncio.Future[None] | None = None
        self._left_behind: set[threading.Thread] = set()

    async def run(self, check: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """What ``await check()`` returns. Raises ``CheckFailed`` for all that it raises, ``SystemExit`` included, and after the limit."""
        ahead = self._last
        mine = self._last = asyncio.get_running_loop().create_future()
        try:
            if ahead is not None:
                await asyncio.wait({ahead}, timeout=self._turn_s)
            return await self._on_a_thread(check)
        finally:
            mine.set_result(None)

    async def _on_a_thread(self, check: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        self._left_behind = {thread for thread in self._left_behind if thread.is_alive()}
        if len(self._left_behind) >= MAX_LEFT_BEHIND:
            raise CheckFailed("Too many checks of earlier prompts hang", "the server's log says where; restart it", 503)
        running = _Running(check)
        running.thread.start()
        try:
            await asyncio.wait({running.outcome}, timeout=self._limit_s)
        finally:
            if not running.outcome.done():
                self._left_behind.add(running.thread)
        if not running.outcome.done():
            log.warning("A prompt was not checked within %.0f s and is refused. The check is at:\n%s", self._limit_s, running.place())
            details = "INPUT_TYPES or VALIDATE_INPUTS of one of its nodes may hang; the server's log says where"
            raise CheckFailed(f"Checking the prompt took longer than {self._limit_s:.0f} s", details, 503)
        value, error = running.outcome.result()
        if error is not None:
            log.error("The check of a prompt raised", exc_info=error)
            raise CheckFailed("The prompt could not be checked", "the server's log says why", 500)
        return value


class _Running(Generic[Value]):
    """One check on its thread; ``outcome`` gets what it returned and None, or None and what it raised."""

    def __init__(self, check: Callable[[], Coroutine[Any, Any, Value]]) -> None:
        self._check = check
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Any] = self._loop.create_future()
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=context.run, args=(self._work,), name="prompt-check", daemon=True)

    def place(self) -> str:
        """Where the thread is now."""
        frame = sys._current_frames().get(self.thread.ident or 0)
        return "".join(traceback.format_stack(frame)[-_FRAMES_SHOWN:]) if frame is not None else "(the thread has ended)\n"

    def _work(self) -> None:
        try:
            asyncio.run(self._await())
        except BaseException as error:
            self._tell(None, error)

    async def _await(self) -> None:
        """Tells before the loop is closed, which may have to wait for what the check has left on it."""
        self._tell(await self._check(), None)

    def _tell(self, value: Any, error: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the server's loop may have ended meanwhile
            self._loop.call_soon_threadsafe(self._take, value, error)

    def _take(self, value: Any, error: BaseException | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result((value, error))
