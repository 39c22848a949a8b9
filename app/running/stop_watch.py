"""Ending the process when it is asked to, whatever hangs in it."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

# Service managers and containers are asked to wait at least this long and a little more.
STOP_LIMIT_S = 4.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FORCED_STATUS = 1


class StopWatch:
    """Hears SIGINT and SIGTERM on a thread of its own, so that a main thread that hangs does not keep them from being heard.

    The first one calls *stop*; if the process has not ended *limit_s* later, or a second one comes, it is ended at once, and one line
    says what was still at work. Entered (``with``) on the main thread, around serving. Code that never gives up the interpreter's lock
    cannot be ended this way.
    """

    def __init__(self, stop: Callable[[], object], limit_s: float = STOP_LIMIT_S, end: Callable[[int], object] = os._exit) -> None:
        self._stop = stop
        self._limit_s = limit_s
        self._end = end
        self._heard, self._told = socket.socketpair()
        self._told.setblocking(False)
        self._thread = threading.Thread(target=self._listen, name="stop-watch", daemon=True)

    def __enter__(self) -> "StopWatch":
        # Python writes the number of each signal into this socket from the signal handler itself.
        signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
        for one in _SIGNALS:
            signal.signal(one, _GoOn())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The handlers stay: what follows, closing and the threads' ends, may hang as well."""

    def _listen(self) -> None:
        if not self._next_signal(None):
            return
        log.info("Asked to stop")
        self._stop()
        again = self._next_signal(self._limit_s)
        why = "Asked to stop again" if again else f"Not everything ended within {self._limit_s} s"
        log.warning("%s; leaving %s", why, ", ".join(busy_threads()) or "nothing known")
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        self._end(_FORCED_STATUS)

    def _next_signal(self, timeout_s: float | None) -> bool:
        """Whether one of the two signals came; a timeout or a closed socket is none."""
        self._heard.settimeout(timeout_s)
        try:
            while numbers := self._heard.recv(64):
                if any(number in _SIGNALS for number in numbers):
                    return True
        except OSError:
            return False
        return False


def busy_threads() -> list[str]:
    """The other threads with the function that each is in; those that wait for work are left out."""
    frames, here = sys._current_frames(), threading.get_ident()
    found = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is None or thread.ident == here or frame.f_code.co_filename.endswith(("thread.py", "selectors.py", "queue.py")):
            continue
        found.append(f"{thread.name} in {frame.f_code.co_name} ({os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno})")
    return found


class _GoOn:
    """Stands in for the default handler, which would end the process.

    ``raises_nothing`` tells that a ``KeyboardInterrupt`` on the main thread comes from some code and not from the user.
    """

    raises_nothing = True

    def __call__(self, number: int, frame: object) -> None:
        """Do nothing: the watch hears the signal on its own thread."""
