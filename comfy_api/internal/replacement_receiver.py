"""Connects the API, which does not know the server, with the server that receives node replacements."""

from collections.abc import Callable
from typing import Any

Receive = Callable[[Any], None]


class ReplacementReceiver:
    """Passes ``io.NodeReplace`` objects on. The server's constructor connects it; packs use it while they load."""

    def __init__(self) -> None:
        self._receive: Receive | None = None

    def connect(self, receive: Receive | None) -> None:
        """Pass replacements to *receive* from now on, or to nobody if it is None."""
        self._receive = receive

    def deliver(self, replacement: Any) -> bool:
        """Pass *replacement* on; returns whether a receiver was connected."""
        if self._receive is None:
            return False
        self._receive(replacement)
        return True


replacement_receiver = ReplacementReceiver()
