"""Whether several files are read faster side by side than one after the other: found out while they are read.

Volumes that limit each connection, and disks that one file cannot keep busy, gain. A disk that one file keeps busy gains nothing: there
reading side by side only delays the file that is needed first. No system tells which is which, so it is tried: the bytes per second of one
file alone are measured, then those of all together.
"""

from __future__ import annotations

import time
from collections.abc import Callable

CHUNKS_TO_SETTLE = 4  # reads that were under way when the way of reading changed
CHUNKS_MEASURED = 8
LEAST_S = 0.1
MUST_GAIN = 1.25  # a little more does not pay for the delay of what is needed first
FIRST_PAUSE, LONGEST_PAUSE = 256, 4096  # chunks between two trials, which cost a second on a slow disk


class ReadingTogether:
    """Tells whether to read together now. Its owner calls it under a lock; *clock* counts seconds.

    In turn until it was measured. From then on what was faster, and that is tried again after 256 chunks, after 512 more, and so on, as
    long as it stays the same.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.is_on = False
        self._gains, self._clock = False, clock
        self._pause, self._until_trial = FIRST_PAUSE, 0
        self._alone_rate = 0.0
        self._restart(False)

    def readers_changed(self) -> None:
        """Another file is needed first now, or another number of files is read: what is being measured is measured anew."""
        self._restart(self._gains and self._until_trial > 0)

    def note(self, size_bytes: int, others: int) -> None:
        """A chunk has been read: of the file that is needed first, or, while :attr:`is_on`, of any. *others* files could be read beside."""
        if self._until_trial > 0:
            self._until_trial -= 1
            if not self._until_trial:
                self._restart(False)
            return
        self._chunks += 1
        if self._chunks <= CHUNKS_TO_SETTLE:
            self._since_s, self._bytes = self._clock(), 0
            return
        self._bytes += size_bytes
        seconds = self._clock() - self._since_s
        if self._chunks < CHUNKS_TO_SETTLE + CHUNKS_MEASURED or seconds < LEAST_S:
            return
        rate = self._bytes / seconds
        if self.is_on:
            self._decide(rate >= MUST_GAIN * self._alone_rate)
        elif others:
            self._alone_rate = rate
            self._restart(True)
        else:
            self._restart(False)

    def _restart(self, together: bool) -> None:
        self.is_on = together
        self._chunks, self._bytes, self._since_s = 0, 0, 0.0

    def _decide(self, gains: bool) -> None:
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if gains is self._gains else FIRST_PAUSE
        self._gains, self._until_trial = gains, self._pause
        self._restart(gains)
