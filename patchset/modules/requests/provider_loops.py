"""An event loop for each cache provider, on a thread of its own, that lives as long as the provider.

Prompts have a loop each, which ends with them.
"""

import asyncio
import logging
import threading
import weakref
from typing import Any

log = logging.getLogger(__name__)
_loops: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()


def loop_of(provider: Any) -> asyncio.AbstractEventLoop:
    """The running loop of *provider*, started by the first call. Any thread."""
    with _lock:
        loop = _loops.get(id(provider))
        if loop is None:
            loop = _loops[id(provider)] = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(loop,), name=f"cache-provider-{type(provider).__name__}", daemon=True).start()
            weakref.finalize(provider, _end, id(provider)).atexit = False
        return loop


def _end(identity: int) -> None:
    with _lock:
        loop = _loops.pop(identity)
    loop.call_soon_threadsafe(loop.stop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
            break
        except BaseException:  # SystemExit in a provider's task would end the loop for all that comes after
            log.warning("%s tried to end its thread", threading.current_thread().name, exc_info=True)
    loop.close()
