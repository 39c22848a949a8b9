"""Going on whatever is raised by code that is not ours: nodes, packs' replacements of our functions, values' own methods.

Such code may raise anything, ``KeyboardInterrupt`` and ``SystemExit`` included; none of it may end a thread or a loop of ours. What is
meant for us, a cancellation of our own task or Ctrl-C on the main thread, passes.
"""

import asyncio
import logging
import signal
import threading
from types import TracebackType

from comfy_execution.executor.results import printable

log = logging.getLogger(__name__)


def is_ctrl_c(error: BaseException) -> bool:
    """Whether *error* is the user's Ctrl-C: Python raises it on the main thread and nowhere else.

    Not there either while the server listens to signals itself (``StopWatch``).
    """
    if not issubclass(type(error), KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    return not getattr(signal.getsignal(signal.SIGINT), "raises_nothing", False)


def is_own_end(error: BaseException, task: "asyncio.Task | None") -> bool:
    """Whether *error* ends the coroutine of *task* at the wish of whoever runs it, and not of code that it called.

    A node may raise ``CancelledError`` or ``GeneratorExit`` like anything else; then nobody has asked *task* to end.
    """
    if is_ctrl_c(error):
        return True
    if not issubclass(type(error), asyncio.CancelledError | GeneratorExit):
        return False
    return task is None or task.cancelling() > 0 or task.get_loop().is_closed()


def log_failure(logger: logging.Logger, message: str, error: BaseException) -> None:
    """Log *message*, the error's text and its traceback. Never raises, even if the error cannot be shown."""
    text = f"{message}: {printable(error)}"
    try:
        logger.error("%s", text, exc_info=error)
    except BaseException as broken:
        if is_ctrl_c(broken):
            raise
        logger.error("%s (its traceback cannot be shown)", text)


class Isolation:
    """``with Isolation("what is being done") as attempt:`` logs whatever the block raises and goes on; ``attempt.error`` keeps it.

    For blocks that do not await. Ctrl-C on the main thread passes.
    """

    def __init__(self, what: str, logger: logging.Logger = log) -> None:
        self.error: BaseException | None = None
        self._what = what
        self._logger = logger

    def __enter__(self) -> "Isolation":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if error is None or is_ctrl_c(error):
            return False
        self.error = error
        log_failure(self._logger, f"{self._what} failed; the server goes on", error)
        return True
