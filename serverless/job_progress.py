"""Reports the progress of a prompt to its caller."""

import time
from collections.abc import Callable
from typing import Any

from serverless.server_events import Event

MIN_INTERVAL_S = 0.5

ProgressReport = Callable[[dict[str, Any]], None]


class ProgressReporter:
    """Turns the server's messages into ``{"type": "progress", "value", "max", "percent", "node"}``, at most two a second.

    The last step of a node is always reported; so is the sum of all nodes where a server tells only that.
    """

    def __init__(self, report: ProgressReport, original_id: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._original_id = original_id
        self._clock = clock
        self._next_s = 0.0
        self._tells_steps = False
        self.node: str | None = None

    def take(self, event: Event) -> None:
        """Look at one message of the prompt."""
        if event.kind == "executing" and event.data.get("node") is not None:
            self.node = self._original_id(str(event.data["node"]))
        elif event.kind == "progress":
            self._tells_steps = True
            node = event.data.get("node")
            self._tell(event.data.get("value"), event.data.get("max"), self.node if node is None else self._original_id(str(node)))
        elif event.kind == "progress_state" and not self._tells_steps:
            states = {node: state for node, state in (event.data.get("nodes") or {}).items() if isinstance(state, dict)}
            running = [self._original_id(str(node)) for node, state in states.items() if state.get("state") == "running"]
            self._tell(
                sum(_number(state.get("value")) for state in states.values()),
                sum(_number(state.get("max")) for state in states.values()),
                running[-1] if running else self.node,
            )

    def _tell(self, value: Any, maximum: Any, node: str | None) -> None:
        value, maximum = _number(value), _number(maximum)
        now_s = self._clock()
        if maximum <= 0 or (now_s < self._next_s and value < maximum):
            return
        self._next_s = now_s + MIN_INTERVAL_S
        self._report({"type": "progress", "value": value, "max": maximum, "percent": round(100 * value / maximum, 1), "node": node})


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
