"""A circuit breaker: a provider that fails again and again is left alone for a while, then tried with one call."""

import threading
from collections.abc import Callable

FAILURES_TO_OPEN = 3
FIRST_PAUSE_S = 15.0
LONGEST_PAUSE_S = 240.0


class CircuitBreaker:
    """Counts failures in a row. *closed*: calls go through; *open*: none does; *half-open*: one call is on its way to find out.

    Each ``allows()`` that said yes is answered by exactly one of ``succeed``, ``fail`` and ``abandon``. A failed try doubles the pause.
    Any thread; never blocks.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        failures_to_open: int = FAILURES_TO_OPEN,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        """*clock* gives seconds that only grow."""
        self._clock = clock
        self._failures_to_open = failures_to_open
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._lock = threading.Lock()
        self._failures = 0
        self._pause_s = first_pause_s
        self._open_until_s: float | None = None
        self._is_probing = False

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half-open``."""
        with self._lock:
            if self._open_until_s is None:
                return "closed"
            return "half-open" if self._is_probing or self._clock() >= self._open_until_s else "open"

    def allows(self) -> bool:
        """Whether a call may be made now. In the half-open state only the first who asks may."""
        if self._open_until_s is None:
            return True
        with self._lock:
            if self._open_until_s is None:
                return True
            if self._is_probing or self._clock() < self._open_until_s:
                return False
            self._is_probing = True
            return True

    def succeed(self) -> None:
        """A call did what it should: closed."""
        if not self._failures and self._open_until_s is None and not self._is_probing:
            return
        with self._lock:
            self._failures = 0
            self._pause_s = self._first_pause_s
            self._open_until_s = None
            self._is_probing = False

    def fail(self) -> bool:
        """A call failed; whether that opened the circuit."""
        with self._lock:
            self._failures += 1
            was_probe, self._is_probing = self._is_probing, False
            if was_probe:
                self._pause_s = min(self._pause_s * 2, self._longest_pause_s)
            elif self._open_until_s is not None or self._failures < self._failures_to_open:
                return False
            self._open_until_s = self._clock() + self._pause_s
            return True

    def abandon(self) -> None:
        """A call ended without showing whether the other side works."""
        with self._lock:
            self._is_probing = False
