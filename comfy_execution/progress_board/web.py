"""Progress on the wire: snapshots of the whole prompt, coalesced and within a byte budget, and previews, to the prompt's owner.

The frontend replaces its map by every ``progress_state``, so each one is complete; sending one per change would cost bytes that
grow with the square of the graph. A change is therefore shown within a quarter of a second while snapshots are small, and
snapshots of large graphs are spaced so that they cost at most ``BYTES_PER_S`` after a burst of ``BURST_BYTES``.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from comfy_execution.progress_board.state import NodeProgressState, NodeState, ProgressHandler, ProgressRegistry, get_progress_state
from comfy_execution.server_protocol import ExecutionServer
from comfy_execution.utils import get_executing_context
from protocol import BinaryEventTypes

MIN_INTERVAL_S = 0.25
BURST_BYTES = 700_000
BYTES_PER_S = 64_000
# A node's record without its ids, as JSON.
_RECORD_BYTES = 150

CallLater = Callable[[float, Callable[[], None]], Any]


def _call_later_on_a_thread(delay_s: float, function: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(delay_s, function)
    timer.daemon = True
    timer.start()
    return timer


class WebUIProgressHandler(ProgressHandler):
    """Sends ``progress_state`` and previews to the client that owns the prompt; not sent when there is none.

    Reports may come from any thread. *call_later* runs a function after a delay in seconds on any thread and returns a handle
    with ``cancel()``; it sends what was held back when nothing else happens for a while.
    """

    def __init__(
        self, server_instance: ExecutionServer, call_later: CallLater = _call_later_on_a_thread, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__("webui")
        self.server_instance = server_instance
        self.registry: ProgressRegistry | None = None
        self._owner: str | None = None
        self._call_later = call_later
        self._clock = clock
        self._lock = threading.Lock()
        self._is_stale = False
        self._timer: Any = None
        self._next_s = 0.0
        self._budget_bytes = float(BURST_BYTES)
        self._budget_s = 0.0

    def set_registry(self, registry: ProgressRegistry) -> None:
        """Begin with *registry*; the server's client at this moment is the owner of everything it reports."""
        self.registry = registry
        self._owner = getattr(self.server_instance, "client_id", None)

    def start_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """Show that the node runs."""
        self._changed()

    def update_handler(
        self, node_id: str, value: float, max_value: float, state: NodeProgressState, prompt_id: str, image: Any = None
    ) -> None:
        """Show how far the node is, and its preview at once."""
        self._changed()
        if image is not None and self._owner is not None:
            self._send_preview(node_id, prompt_id, image)

    def finish_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """Show that the node ended."""
        self._changed()

    def reset(self) -> None:
        """Send the last state, if it was not yet sent."""
        with self._lock:
            self._cancel_timer_locked()
            if self._is_stale:
                self._send_locked()

    def _changed(self) -> None:
        if self._owner is None or self.registry is None:
            return
        with self._lock:
            self._is_stale = True
            if self._timer is not None:
                return
            wait_s = self._next_s - self._clock()
            if wait_s <= 0:
                self._send_locked()
            else:
                self._timer = self._call_later(wait_s, self._timed_out)

    def _timed_out(self) -> None:
        with self._lock:
            self._timer = None
            if self._is_stale:
                self._send_locked()

    def _cancel_timer_locked(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send_locked(self) -> None:
        snapshot, size_bytes = self._snapshot()
        self._is_stale = False
        now_s = self._clock()
        earned_bytes = (now_s - self._budget_s) * BYTES_PER_S
        self._budget_bytes = min(self._budget_bytes + earned_bytes, BURST_BYTES) - size_bytes
        self._budget_s = now_s
        # The next snapshot will be about as large: wait until it fits.
        shortage_bytes = max(size_bytes - self._budget_bytes, 0)
        self._next_s = now_s + max(MIN_INTERVAL_S, shortage_bytes / BYTES_PER_S)
        self.server_instance.send_sync("progress_state", snapshot, self._owner)

    def _snapshot(self) -> tuple[dict, int]:
        """All nodes that are not pending, and roughly how many bytes that is as JSON."""
        assert self.registry is not None
        prompt_id, size_bytes, nodes = self.registry.prompt_id, 100, {}
        # A copy in one step: other threads add nodes meanwhile, and a list of the items may be interrupted by a collection.
        for node_id, entry in self.registry.nodes.copy().items():
            if entry["state"] is not NodeState.Pending:
                nodes[node_id] = {
                    "value": entry["value"],
                    "max": entry["max"],
                    "state": entry["state"].value,
                    **self._origin(node_id, prompt_id),
                }
                size_bytes += _RECORD_BYTES + len(prompt_id) + 4 * len(node_id)
        return {"prompt_id": prompt_id, "nodes": nodes}, size_bytes

    def _origin(self, node_id: str, prompt_id: str) -> dict:
        assert self.registry is not None
        dynprompt = self.registry.dynprompt
        return {
            "node_id": node_id,
            "prompt_id": prompt_id,
            "display_node_id": dynprompt.get_display_node_id(node_id),
            "parent_node_id": dynprompt.get_parent_node_id(node_id),
            "real_node_id": dynprompt.get_real_node_id(node_id),
        }

    def _send_preview(self, node_id: str, prompt_id: str, image: Any) -> None:
        sockets = getattr(self.server_instance, "sockets_metadata", {})
        flags = sockets.get(self._owner, {}).get("feature_flags", {})
        if flags.get("supports_preview_metadata") is True:
            event, payload = BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, (image, self._origin(node_id, prompt_id))
        else:
            event, payload = BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, image
        self.server_instance.send_sync(event, payload, self._owner)


class ProgressHook:
    """Receives the reports of ``ProgressBar``: a cancellation point, the registry's news and a ``progress`` message.

    *check_interrupt* raises when the user asked to stop. Reports made outside a running prompt go to nobody.
    """

    def __init__(self, server: ExecutionServer, check_interrupt: Callable[[], None]) -> None:
        self._server = server
        self._check_interrupt = check_interrupt

    @staticmethod
    def current_node_id() -> str | None:
        """The node whose call this is, if any."""
        context = get_executing_context()
        return None if context is None else context.node_id

    def __call__(self, value: float, total: float, preview: Any = None, prompt_id: str | None = None, node_id: str | None = None) -> None:
        """Report *value* of *total* for a node (default: the one being called, else the one the server saw last)."""
        self._check_interrupt()
        registry = get_progress_state()
        node_id = node_id or self.current_node_id() or self._server.last_node_id
        if node_id is None:
            return
        registry.update_progress(node_id, value, total, preview)
        if self._server.client_id is not None and not registry.is_closed:
            message = {"value": value, "max": total, "prompt_id": prompt_id or registry.prompt_id, "node": node_id}
            self._server.send_sync("progress", message, self._server.client_id)
