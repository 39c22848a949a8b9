"""What waits to be sent to one WebSocket client: in order, bounded, and never in the way of other clients."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

from comfy.units import MIB

log = logging.getLogger(__name__)

# From here on a newer report of progress replaces an older one of the same kind that still waits.
RELAXED_FRAMES = 256
RELAXED_BYTES = 8 * MIB
# A client this far behind is not coming back; it is cut off and may connect again.
MAX_FRAMES = 100_000
MAX_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: text or bytes. Frames with an equal *topic* that is not None stand in for each other, the newest wins."""

    payload: str | bytes
    topic: Hashable = None


class Socket(Protocol):
    """What an outbox needs of ``aiohttp.web.WebSocketResponse``."""

    async def send_str(self, data: str) -> None:
        """Send a text frame."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""


class Outbox:
    """The frames that wait for one socket, and the task that sends them. Used on the server's loop only.

    ``put`` never blocks. While few frames wait all are kept; beyond ``RELAXED_*`` frames with a topic replace their
    predecessors; beyond ``MAX_*`` everything is dropped and the client is cut off.
    """

    def __init__(self, socket: Socket, name: str, cut_off: Callable[[], object]) -> None:
        """*name* is for the log; *cut_off* is called once when the client is hopelessly behind, to end its connection."""
        self.socket = socket
        self.waiting_bytes = 0
        self._name = name
        self._cut_off = cut_off
        self._waiting: OrderedDict[int, Frame] = OrderedDict()
        self._newest_by_topic: dict[Hashable, int] = {}
        self._next_number = 0
        self._more = asyncio.Event()
        self._open = True
        self._writer = asyncio.get_running_loop().create_task(self._write(), name=f"outbox-{name}")

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, frame: Frame) -> None:
        """Send *frame* after all that wait already. Nothing happens once the outbox is closed."""
        if not self._open:
            return
        if frame.topic is not None and (len(self._waiting) >= RELAXED_FRAMES or self.waiting_bytes >= RELAXED_BYTES):
            self._forget(self._newest_by_topic.get(frame.topic))
        self._waiting[self._next_number] = frame
        if frame.topic is not None:
            self._newest_by_topic[frame.topic] = self._next_number
        self._next_number += 1
        self.waiting_bytes += len(frame.payload)
        if len(self._waiting) > MAX_FRAMES or self.waiting_bytes > MAX_BYTES:
            self._overflowed()
        self._more.set()

    def finish(self) -> None:
        """Take no more frames; what waits is still sent."""
        self._open = False
        self._more.set()

    async def close(self) -> None:
        """Drop what waits and end the task."""
        self.finish()
        self._clear()
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)

    def _forget(self, number: int | None) -> None:
        frame = None if number is None else self._waiting.pop(number, None)
        if frame is not None:
            self.waiting_bytes -= len(frame.payload)

    def _clear(self) -> None:
        self._waiting.clear()
        self._newest_by_topic.clear()
        self.waiting_bytes = 0

    def _overflowed(self) -> None:
        log.warning(
            "Client %s does not take its messages (%d wait, %d bytes) and is disconnected",
            self._name,
            len(self._waiting),
            self.waiting_bytes,
        )
        self._clear()
        self._open = False
        self._cut_off()

    def _take(self) -> Frame:
        number, frame = self._waiting.popitem(last=False)
        self.waiting_bytes -= len(frame.payload)
        if frame.topic is not None and self._newest_by_topic.get(frame.topic) == number:
            del self._newest_by_topic[frame.topic]
        return frame

    async def _write(self) -> None:
        while self._open or self._waiting:
            while self._waiting:
                if not await self._send(self._take()):
                    self._open = False
                    self._clear()
            self._more.clear()
            if self._open:
                await self._more.wait()

    async def _send(self, frame: Frame) -> bool:
        """Whether the frame went out."""
        try:
            if isinstance(frame.payload, str):
                await self.socket.send_str(frame.payload)
            else:
                await self.socket.send_bytes(frame.payload)
        except (ConnectionError, RuntimeError) as error:
            log.debug("Client %s went away: %s", self._name, error)
            return False
        return True
