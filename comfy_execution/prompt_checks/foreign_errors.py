"""Errors of packs' code of every kind, ``SystemExit`` included, and those that are meant for the caller and must not be kept from it."""

import asyncio

from comfy_execution.executor.isolation import is_ctrl_c, is_own_end


def is_for_the_caller(error: BaseException) -> bool:
    """Whether *error* asks this thread or task itself to stop: Ctrl-C on the main thread, or the cancelling of the running task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return is_ctrl_c(error) if task is None else is_own_end(error, task)
