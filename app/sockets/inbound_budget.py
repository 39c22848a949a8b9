"""How much a WebSocket client may send: clients of this server have little to say."""

import time
from collections.abc import Callable

FRAMES_PER_S, MOST_FRAMES = 100.0, 1000.0
BYTES_PER_S, MOST_BYTES = float(1 << 20), float(16 << 20)


class InboundBudget:
    """Frames and bytes that one client still has; both grow with time, up to a limit."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._then_s = clock()
        self._frames, self._bytes = MOST_FRAMES, MOST_BYTES

    def spend(self, size_bytes: int) -> bool:
        """Take a frame of *size_bytes* off; False when there is not that much."""
        now_s = self._clock()
        passed_s, self._then_s = now_s - self._then_s, now_s
        self._frames = min(MOST_FRAMES, self._frames + passed_s * FRAMES_PER_S) - 1
        self._bytes = min(MOST_BYTES, self._bytes + passed_s * BYTES_PER_S) - size_bytes
        return self._frames >= 0 and self._bytes >= 0
