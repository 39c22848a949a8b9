"""Which errors of packs' code must not be kept from the caller."""

import asyncio
import threading

import pytest

from comfy_execution.prompt_checks.foreign_errors import is_for_the_caller


@pytest.mark.parametrize(
    "error", [SystemExit(), GeneratorExit(), BaseExceptionGroup("", [SystemExit()]), ValueError(), asyncio.CancelledError()]
)
def test_what_packs_raise_is_theirs(error):
    assert not is_for_the_caller(error)


def test_ctrl_c_is_for_the_main_thread_alone():
    found = []
    thread = threading.Thread(target=lambda: found.append(is_for_the_caller(KeyboardInterrupt())))
    thread.start()
    thread.join()
    assert found == [False] and is_for_the_caller(KeyboardInterrupt())


async def test_a_task_that_is_cancelled_ends():
    found = []

    async def work():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError as error:
            found.append(is_for_the_caller(error))

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert not is_for_the_caller(asyncio.CancelledError())
    task.cancel()
    await task
    assert found == [True]
