"""Clocks after a restore: on another machine the monotonic one may stand earlier than when the snapshot was taken."""

import asyncio
import time
from collections.abc import Callable

BEAT_S = 5.0


class Clocks:
    """Notes the monotonic clock now and then, and puts what an event loop has planned where it belongs if the clock went back.

    A clock that jumped ahead makes what is planned due at once, which is right.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest_s = clock()

    async def keep_time(self) -> None:
        """Note the clock until cancelled."""
        while True:
            self._latest_s = max(self._latest_s, self._clock())
            await asyncio.sleep(BEAT_S)

    def take_anew(self, loop: asyncio.AbstractEventLoop) -> float:
        """Bring *loop*, on which this is called, up to date; returns by how many seconds the clock went back at least."""
        back_s = self._latest_s - self._clock()
        self._latest_s = self._clock()
        if back_s <= 0:
            return 0.0
        # The loop's own list of timers has no other way in; all are moved alike, so it stays a heap.
        for timer in getattr(loop, "_scheduled", ()):
            timer._when -= back_s
        return back_s
