"""The order in which preloading begins: what a config names first has the first claim on the room."""

import contextlib
import threading
from collections.abc import Callable, Iterator

# Weights of one byte each may be computed with as four bytes each: what a file can take in memory at most.
BYTES_PER_FILE_BYTE = 4


class LoadsInOrder:
    """Lets loads begin in their order, and side by side only while the room is large enough for all of them. Any thread."""

    def __init__(self, room_bytes: Callable[[], int | None]) -> None:
        self._room_bytes = room_bytes
        self._changed = threading.Condition()
        self._next = 0
        self._running: dict[int, int] = {}

    @contextlib.contextmanager
    def turn(self, place: int, file_bytes: int) -> Iterator[None]:
        """A block for the load in *place* (from 0, each once) of files with *file_bytes*; waits until it may begin."""
        with self._changed:
            self._changed.wait_for(lambda: place == self._next and self._may_begin(file_bytes))
            self._next += 1
            self._running[place] = file_bytes
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                del self._running[place]
                self._changed.notify_all()

    def _may_begin(self, file_bytes: int) -> bool:
        if not self._running:
            return True
        room_bytes = self._room_bytes()
        return room_bytes is None or BYTES_PER_FILE_BYTE * (sum(self._running.values()) + file_bytes) <= room_bytes
