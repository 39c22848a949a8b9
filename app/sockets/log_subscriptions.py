"""Which clients follow the log, and sending them what is new."""

import shutil
import threading
from collections.abc import Callable
from typing import Any

from app.logger import LogEntry

Send = Callable[[str, dict[str, Any], str], object]


def terminal_size() -> dict[str, int]:
    """The console's ``cols`` and ``rows`` (80 by 24 without one)."""
    size = shutil.get_terminal_size()
    return {"cols": size.columns, "rows": size.lines}


class LogSubscriptions:
    """Sends ``logs`` messages to the clients that asked for them.

    *send* is ``send_sync(event, data, client_id)`` and must be callable from any thread; *is_connected* tells whether a client
    id has a socket. ``publish`` runs on whichever thread flushed a stream.
    """

    def __init__(self, send: Send, is_connected: Callable[[str], bool]) -> None:
        self._send = send
        self._is_connected = is_connected
        self._lock = threading.Lock()
        self._clients: set[str] = set()
        self._last_size: dict[str, int] | None = None

    def subscribe(self, client_id: str) -> None:
        """Send new entries to *client_id* until it leaves."""
        with self._lock:
            self._clients.add(client_id)

    def unsubscribe(self, client_id: str) -> None:
        """Stop sending to *client_id*."""
        with self._lock:
            self._clients.discard(client_id)

    def publish(self, entries: list[LogEntry]) -> None:
        """Send *entries* to every subscriber that is still connected, with the console's size if it changed; forget the rest."""
        with self._lock:
            clients = list(self._clients)
        if not clients or not entries:
            return
        size = terminal_size()
        changed, self._last_size = (size if size != self._last_size else None), size
        for client_id in clients:
            if self._is_connected(client_id):
                self._send("logs", {"entries": entries, "size": changed}, client_id)
            else:
                self.unsubscribe(client_id)
