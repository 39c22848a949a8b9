"""Work that blocks, on worker threads and with a time limit, so that neither a slow disk nor a dead mount holds up the event loop."""

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

from app.files.seldom import Seldom

log = logging.getLogger(__name__)
Value = TypeVar("Value")

# So many threads may wait for disks that never answer before others have to wait as well.
WORKER_THREADS = 64
READ_LIMIT_S = 30.0
WRITE_LIMIT_S = 300.0

_seldom = Seldom()


class WorkAborted(Exception):
    """The work tried to end its thread or the process."""


async def off_loop(work: Callable[..., Value], *arguments: object, limit_s: float = READ_LIMIT_S) -> Value:
    """What ``work(*arguments)`` returns or raises; it runs on one of the loop's worker threads.

    ``SystemExit`` and its like, which would end the loop, arrive as :class:`WorkAborted`. Raises ``HTTPServiceUnavailable`` after
    *limit_s* seconds; the thread is left behind, for a read cannot be taken back.
    """
    running = asyncio.get_running_loop().run_in_executor(None, functools.partial(_kept_here, work, arguments))
    done, _ = await asyncio.wait({running}, timeout=limit_s)
    if done:
        return running.result()
    running.add_done_callback(_forget)
    name = getattr(work, "__qualname__", type(work).__name__)
    if _seldom.is_due(name):
        log.warning("%s did not end within %.0f s; check whether the disk or a mount hangs", name, limit_s)
    raise web.HTTPServiceUnavailable(text=f"The disk did not answer within {limit_s:.0f} s; the server's log says what was asked of it.")


def _kept_here(work: Callable[..., Value], arguments: tuple[object, ...]) -> Value:
    try:
        return work(*arguments)
    except Exception:
        raise
    except BaseException as error:
        raise WorkAborted(f"{type(error).__name__}: {error}") from error


def _forget(running: "asyncio.Future[Value]") -> None:
    if not running.cancelled():
        running.exception()
