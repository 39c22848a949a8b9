"""Errors of packs' code of every kind, ``SystemExit`` included, and those that are meant for the caller and must not be kept from it."""

import asyncio
import threading


def is_for_the_caller(error: BaseException) -> bool:
    """Whether *error* asks this thread or task itself to stop: Ctrl-C on the main thread, or the cancelling of the running task."""
    if isinstance(error, KeyboardInterrupt):
        return threading.current_thread() is threading.main_thread()
    return isinstance(error, asyncio.CancelledError) and _is_cancelled()


def _is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0
