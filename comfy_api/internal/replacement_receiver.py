"""Who is told of node replacements: the server says so when it is made, and the API, which does not know the server, asks here."""

from collections.abc import Callable
from typing import Any

Receive = Callable[[Any], None]


class ReplacementReceiver:
    """Passes ``io.NodeReplace`` objects on. Connected by the server's constructor, used by packs while they load."""

    def __init__(self) -> None:
        self._receive: Receive | None = None

    def connect(self, receive: Receive | None) -> None:
        """Pass replacements to *receive* from now on; None: to nobody."""
        self._receive = receive

    def deliver(self, replacement: Any) -> bool:
        """Pass one on; whether there was anybody to take it."""
        if self._receive is None:
            return False
        self._receive(replacement)
        return True


replacement_receiver = ReplacementReceiver()
