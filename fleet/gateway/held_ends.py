"""Ends are noted before they are told: what a server says from a job's end on is held back until the fleet has that job's history.

A server that is killed a moment after an end would else take the only record of it along, and a client that heard of success would be
told afterwards that the job is lost.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})
# A server writes its history between the message of the outcome and the last one, ``executing`` without a node.
LAST_MESSAGE_S = 2.0
Link = tuple[str, str]
Note = Callable[[str, str], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class _Message:
    """*ends*: the id of the prompt whose end this tells; *is_last*: the history has it by now."""

    deliver: Callable[[], None]
    ends: str | None = None
    is_last: bool = False


@dataclass(slots=True)
class _Held:
    messages: deque[_Message] = field(default_factory=deque)
    more: asyncio.Event = field(default_factory=asyncio.Event)


class HeldEnds:
    """Between servers and clients, in the order in which servers speak. On the gateway's loop; ``close`` it there.

    *note* is awaited with (prompt id, server id): it has the fleet note the end, and is false when the server cannot tell of it any more,
    so that the end will be told by the fleet; then what the server said of it is dropped.
    """

    def __init__(self, note: Note, last_message_s: float = LAST_MESSAGE_S) -> None:
        self._note, self._last_message_s = note, last_message_s
        self._held: dict[Link, _Held] = {}
        self._working: set[asyncio.Task[None]] = set()

    def take(self, link: Link, kind: str, data: Any, deliver: Callable[[], None]) -> None:
        """A message of *link*'s (client, server): *deliver* is called at once, or once the end that it tells or follows is noted."""
        ends = _ended_by(kind, data)
        held = self._held.get(link)
        if held is None:
            if ends is None:
                deliver()
                return
            held = self._held[link] = _Held()
            task = asyncio.get_running_loop().create_task(self._work(link, held), name=f"held-ends-{link[1]}")
            self._working.add(task)
            task.add_done_callback(self._working.discard)
        held.messages.append(_Message(deliver, ends, kind == "executing" and ends is not None))
        held.more.set()

    async def close(self) -> None:
        """Deliver nothing more."""
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)

    async def _work(self, link: Link, held: _Held) -> None:
        """Note one end after the other, and deliver what lies between, until nothing is left."""
        settled: dict[str, bool] = {}
        try:
            while held.messages:
                prompt_id = held.messages[0].ends
                if prompt_id is not None and prompt_id not in settled:
                    await self._last_message(held, prompt_id)
                    settled = {prompt_id: await self._noted(prompt_id, link[1])}
                message = held.messages.popleft()
                if message.ends is None or settled[message.ends]:
                    _deliver(message)
        finally:
            del self._held[link]

    async def _last_message(self, held: _Held, prompt_id: str) -> None:
        """Return when the last message of that prompt is there, or has not come for long."""
        try:
            async with asyncio.timeout(self._last_message_s):
                while not any(message.is_last and message.ends == prompt_id for message in held.messages):
                    held.more.clear()
                    await held.more.wait()
        except TimeoutError:
            pass

    async def _noted(self, prompt_id: str, server_id: str) -> bool:
        try:
            return await self._note(prompt_id, server_id)
        except Exception:
            log.exception("Whether the end of job %s on server %s was noted is not known; it is told all the same", prompt_id, server_id)
            return True


def _deliver(message: _Message) -> None:
    """One message that cannot be delivered must not keep the others."""
    try:
        message.deliver()
    except Exception:
        log.exception("A message could not be delivered")


def _ended_by(kind: str, data: Any) -> str | None:
    """The prompt whose end a message tells."""
    if not isinstance(data, Mapping) or not isinstance(data.get("prompt_id"), str):
        return None
    is_end = kind in ENDS or (kind == "executing" and data.get("node") is None)
    return str(data["prompt_id"]) if is_end else None
