"""A moment in which no prompt runs, for what must not happen beside one."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

LOOK_AGAIN_S = 0.05
Result = TypeVar("Result")


def between_prompts(queue: Any, act: Callable[[], Result]) -> Result:
    """What *act* returns, called between two prompts of *queue*, the server's ``PromptQueue``. Any thread but the server's loop.

    On the thread that runs prompts where the queue can do that, else here, with the queue locked.
    """
    ask = getattr(queue, "between_prompts", None)
    if ask is None:
        return with_queue_locked(queue, act)
    outcome: Future[Result] = Future()

    def call() -> None:
        try:
            outcome.set_result(act())
        except BaseException as error:
            outcome.set_exception(error)

    ask(call)
    return outcome.result()


def with_queue_locked(
    queue: Any, act: Callable[[], Result], entered: Callable[[], object] = lambda: None, sleep: Callable[[float], None] = time.sleep
) -> Result:
    """What *act* returns, called once no prompt runs; until then it is *entered* at each look. Meanwhile who puts a prompt waits, too."""
    while True:
        with queue.mutex:
            entered()
            if not queue.currently_running:
                return act()
        sleep(LOOK_AGAIN_S)
