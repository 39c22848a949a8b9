"""The one flag that asks the running prompt to stop, and the exception that carries the request through a node."""

import itertools
import threading


class InterruptProcessingException(BaseException):
    """Raised inside a node at a cancellation point after the user asked to stop.

    It derives from ``BaseException`` so that a node's own ``except Exception`` does not swallow it.
    """


class InterruptFlag:
    """A request to stop, set from any thread and consumed by the thread that runs nodes.

    *requests* grows with each, so that those who do not consume it notice one as well.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._requests = itertools.count(1)
        self.requests = 0

    def set(self, value: bool = True) -> None:
        """Ask the running prompt to stop, or withdraw the request."""
        if value:
            self.requests = next(self._requests)
            self._event.set()
        else:
            self._event.clear()

    def is_set(self) -> bool:
        """Whether a stop was asked for and not yet served."""
        return self._event.is_set()

    def raise_if_set(self) -> None:
        """Consume the request and raise ``InterruptProcessingException`` if there is one."""
        if self._event.is_set():
            self._event.clear()
            raise InterruptProcessingException()


interrupt_flag = InterruptFlag()
