"""Saying a thing of one kind at most once a minute, however often somebody makes it happen."""

import time
from collections.abc import Callable, Hashable

INTERVAL_S = 60.0
_MAX_KINDS = 1000


class Seldom:
    """Remembers when each kind was last said. One thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_s: dict[Hashable, float] = {}

    def is_due(self, kind: Hashable) -> bool:
        """Whether *kind* has not been said for ``INTERVAL_S``; if so it now counts as said."""
        now_s = self._clock()
        if now_s - self._last_s.get(kind, -INTERVAL_S) < INTERVAL_S:
            return False
        if len(self._last_s) >= _MAX_KINDS:
            self._last_s.clear()
        self._last_s[kind] = now_s
        return True
