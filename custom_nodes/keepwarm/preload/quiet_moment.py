"""A moment in which no prompt runs, for what must not happen beside one."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

LOOK_AGAIN_S = 0.05


@contextlib.contextmanager
def quiet_moment(queue: Any, entered: Callable[[], object] = lambda: None, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Wait until no prompt of *queue* runs; in the block none begins, and who puts one waits. Calls *entered* at once, or where it waits.

    Any thread but the server's loop; *queue* is the server's ``PromptQueue``.
    """
    while True:
        with queue.mutex:
            entered()
            if not queue.currently_running:
                yield
                return
        sleep(LOOK_AGAIN_S)
