"""A provider's own thread: nothing that runs on its loop ends it."""

import asyncio
import threading

import pytest

from comfy_execution.providers.thread import ProviderThread


class Rogue(BaseException):
    """No ``Exception``, and none of those that Python knows."""


def raising(error):
    def leave():
        raise error

    return leave


@pytest.mark.parametrize("leave", [None, raising(SystemExit(3)), raising(KeyboardInterrupt()), raising(Rogue())])
def test_a_callback_that_leaves_the_loop_ends_neither_it_nor_what_waits_on_it(leave):
    thread = ProviderThread("provider-thread-under-test")

    async def work():
        loop = asyncio.get_running_loop()
        loop.call_soon(leave or loop.stop)
        await asyncio.sleep(0.01)
        return loop

    loops = [thread.submit(work()).result(5) for _ in range(2)]
    assert loops[0] is loops[1] and loops[0].is_running()
    thread.close(5)
    assert loops[0].is_closed() and "provider-thread-under-test" not in {one.name for one in threading.enumerate()}
