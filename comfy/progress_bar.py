"""``ProgressBar``: how nodes and samplers tell how far they are, throttled, to whoever set the hook."""

import time
from collections.abc import Callable
from typing import Any

MIN_INTERVAL_S = 0.1
MIN_CHANGE = 0.005


class ProgressHookState:
    """The receiver of progress reports and whether terminal bars are wanted; one instance per process, set by ``main.py``."""

    def __init__(self) -> None:
        self.enabled = True
        self.hook: Callable[..., None] | None = None


hook_state = ProgressHookState()


def set_progress_bar_enabled(enabled: bool) -> None:
    """Say whether samplers may draw bars on the terminal."""
    hook_state.enabled = enabled


def set_progress_bar_global_hook(function: Callable[..., None] | None) -> None:
    """Send the reports of bars made from now on to ``function(value, total, preview, node_id=…)``; None: to nobody.

    The function may raise to cancel the work. If it has a method ``current_node_id()``, bars made without a node id ask it.
    """
    hook_state.hook = function


class ProgressBar:
    """Progress of one piece of work of *total* steps, reported for *node_id* (default: the node that makes the bar).

    Belongs to the thread that updates it. A report is passed on when it is the first, carries a preview or reaches the total,
    else at most every 100 ms and for at least half a percent.
    """

    def __init__(self, total: float, node_id: str | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.current: float = 0
        self.hook = hook_state.hook
        current_node_id = getattr(self.hook, "current_node_id", None)
        if node_id is None and current_node_id is not None:
            node_id = current_node_id()
        self.node_id = node_id
        self._clock = clock
        self._sent: tuple[float, float] | None = None

    def update(self, value: float) -> None:
        """Advance by *value* steps."""
        self.update_absolute(self.current + value)

    def update_absolute(self, value: float, total: float | None = None, preview: Any = None) -> None:
        """Set the position, and the total if given; *preview* is ``(format, PIL image, longest side or None)``.

        Raises what the hook raises, which is how a running node is interrupted.
        """
        if total is not None:
            self.total = total
        self.current = min(value, self.total)
        if self.hook is None:
            return
        now_s = self._clock()
        if preview is None and not self._is_due(now_s):
            return
        self._sent = now_s, self.current
        self.hook(self.current, self.total, preview, node_id=self.node_id)

    def _is_due(self, now_s: float) -> bool:
        if self._sent is None or self.current >= self.total:
            return True
        sent_s, sent_value = self._sent
        return now_s - sent_s >= MIN_INTERVAL_S and self.current - sent_value >= MIN_CHANGE * self.total
