"""Waits until a prompt has ended, by message or by history."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serverless.server_api import ServerAnswer, ServerApi, ServerUnreachable
from serverless.server_events import BACK, LOST, Event

log = logging.getLogger(__name__)

POLL_WITHOUT_SOCKET_S = 0.5
FIRST_QUIET_POLL_S = 0.25
POLL_AFTER_END_S = 0.05
END_PATIENCE_S = 2.0
REFUSED_PATIENCE_S = 1.0

ENDS = frozenset({"execution_error", "execution_interrupted"})


class PromptLost(RuntimeError):
    """The server does not know the prompt any more, or is gone; the message says which."""


@dataclass(frozen=True, slots=True)
class PromptEnd:
    """*entry*: the prompt's history entry, with ``outputs`` and ``status``. *ended_s*: when it was known, on the monotonic clock."""

    entry: dict[str, Any]
    ended_s: float
    ran: tuple[str, ...] = ()

    def messages(self, kind: str) -> list[dict[str, Any]]:
        """The data of the messages of one kind that the server noted."""
        noted = (self.entry.get("status") or {}).get("messages") or ()
        return [
            message[1]
            for message in noted
            if isinstance(message, list | tuple) and len(message) == 2 and message[0] == kind and isinstance(message[1], dict)
        ]


@dataclass(frozen=True, slots=True)
class Patience:
    """*poll_interval_s*: how often the history is asked beside a working socket. *unreachable_s*: how long a server may not answer."""

    poll_interval_s: float = 3.0
    unreachable_s: float = 15.0
    refused_s: float = REFUSED_PATIENCE_S


class PromptWait:
    """One prompt that was queued.

    The socket announces the end at once; the history is read on a timer, more often while the socket is silent or lost.
    """

    def __init__(
        self,
        api: ServerApi,
        prompt_id: str,
        events: "asyncio.Queue[Event]",
        patience: Patience,
        on_event: Callable[[Event], None] = lambda event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._prompt_id = prompt_id
        self._events = events
        self._patience = patience
        self._on_event = on_event
        self._clock = clock
        self._has_socket = True
        self._is_heard_of = False
        self._quiet_pause_s = FIRST_QUIET_POLL_S
        self._end_told_s: float | None = None
        self._end_event: Event | None = None
        self._unreachable_since_s: float | None = None
        self._ran: list[str] = []

    async def end(self, ask_now: bool = False) -> PromptEnd:
        """Return when the prompt has ended, well or not. *ask_now*: it may have ended before this call. Raises ``PromptLost``."""
        next_poll_s = self._clock() + (0.0 if ask_now else self._pause_s())
        while True:
            event = await self._next_event(next_poll_s - self._clock())
            if event is not None and not self._take(event):
                continue
            found = await self._poll()
            if found is not None:
                return found
            next_poll_s = self._clock() + self._pause_s()

    async def _next_event(self, timeout_s: float) -> Event | None:
        if timeout_s <= 0:
            return None if self._events.empty() else self._events.get_nowait()
        try:
            return await asyncio.wait_for(self._events.get(), timeout_s)
        except TimeoutError:
            return None

    def _take(self, event: Event) -> bool:
        """Note what *event* says; whether the server should be asked now."""
        self._on_event(event)
        if event is LOST or event is BACK:
            self._has_socket, self._is_heard_of = event is BACK, False
            return True
        self._is_heard_of = True
        if event.kind == "executing" and event.data.get("node") is not None:
            self._ran.append(str(event.data["node"]))
            return False
        if event.kind in ENDS:
            self._end_event = event
        elif event.kind != "executing":
            return False
        if self._end_told_s is None:
            self._end_told_s = self._clock()
        return True

    def _pause_s(self) -> float:
        if self._end_told_s is not None:
            return POLL_AFTER_END_S
        if not self._has_socket:
            return min(POLL_WITHOUT_SOCKET_S, self._patience.poll_interval_s)
        if self._is_heard_of:
            return self._patience.poll_interval_s
        # Nothing is said of the prompt: it waits, or somebody else has connected under the same client id.
        pause_s = min(self._quiet_pause_s, self._patience.poll_interval_s)
        self._quiet_pause_s *= 1.5
        return pause_s

    async def _poll(self) -> PromptEnd | None:
        try:
            entry = await self._find()
        except (ServerUnreachable, ServerAnswer) as error:
            self._check_reachable(error)
            return None
        self._unreachable_since_s = None
        if entry is None:
            return None
        return PromptEnd(entry, self._end_told_s or self._clock(), tuple(dict.fromkeys(self._ran)))

    async def _find(self) -> dict[str, Any] | None:
        """The history entry, None while the prompt waits or runs. A prompt goes from the queue to the history in one step."""
        entry = await self._api.history_entry(self._prompt_id)
        if entry is not None or await self._api.is_queued(self._prompt_id):
            return entry
        entry = await self._api.history_entry(self._prompt_id)
        if entry is not None:
            return entry
        if self._end_told_s is None:
            raise PromptLost(
                f"The ComfyUI server does not know prompt {self._prompt_id} any more: it was restarted while the prompt "
                "waited or ran, or its queue was cleared. Send the job again"
            )
        if self._clock() - self._end_told_s < END_PATIENCE_S:
            return None
        if self._end_event is not None:
            return {"outputs": {}, "status": {"status_str": "error", "messages": [[self._end_event.kind, self._end_event.data]]}}
        raise PromptLost(f"Prompt ID {self._prompt_id} not found in history after execution.")

    def _check_reachable(self, error: ServerUnreachable | ServerAnswer) -> None:
        now_s = self._clock()
        if self._unreachable_since_s is None:
            self._unreachable_since_s = now_s
            log.warning("The server cannot be asked about prompt %s: %s", self._prompt_id, error)
        is_refused = isinstance(error, ServerUnreachable) and error.is_refused
        waited_s = now_s - self._unreachable_since_s
        if is_refused and waited_s >= self._patience.refused_s:
            raise PromptLost(
                "WebSocket communication error: the ComfyUI server died while the prompt ran: nobody listens at its address "
                f"any more ({error})"
            )
        is_busy = isinstance(error, ServerUnreachable) and error.is_busy
        if waited_s >= self._patience.unreachable_s and not is_busy:
            raise PromptLost(f"HTTP communication error with ComfyUI: no answer for {waited_s:.0f} s ({error})")
