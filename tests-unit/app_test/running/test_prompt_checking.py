"""Checks off the server's loop: their order, their limit, and that nothing they raise gets out."""

import asyncio
import threading
import time

import pytest

from app.running import prompt_checking
from app.running.prompt_checking import CheckFailed, PromptChecking


async def test_the_check_runs_on_a_thread_and_loop_of_its_own():
    seen = []

    async def check():
        await asyncio.sleep(0)
        seen.append((threading.current_thread(), asyncio.get_running_loop()))
        return "verdict"

    assert await PromptChecking().run(check) == "verdict"
    ((thread, loop),) = seen
    assert thread is not threading.current_thread() and loop is not asyncio.get_running_loop()


async def test_the_loop_goes_on_while_a_check_blocks():
    ended = threading.Event()

    async def check():
        return ended.wait(30)

    running = asyncio.create_task(PromptChecking().run(check))
    await asyncio.sleep(0.01)
    ended.set()
    assert await running is True


async def test_checks_take_turns_in_the_order_of_their_requests():
    log = []
    checking = PromptChecking()

    async def check(name):
        log.append(f"{name} begins")
        await asyncio.sleep(0.02)
        log.append(f"{name} ends")

    await asyncio.gather(*(checking.run(lambda name=name: check(name)) for name in "abc"))
    assert log == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), ValueError("bad"), StopIteration()]
)
async def test_whatever_a_check_raises_is_an_answer(error, caplog):
    async def check():
        raise error

    checking = PromptChecking()
    with pytest.raises(CheckFailed) as failed:
        await checking.run(check)
    assert failed.value.status == 500 and "raised" in caplog.text
    assert failed.value.as_error()["type"] == "prompt_check_failed"

    async def good():
        return 1

    assert await checking.run(good) == 1


async def test_a_task_that_a_check_started_cannot_end_the_process():
    async def leave():
        raise SystemExit(1)

    async def check():
        task = asyncio.create_task(leave())
        await asyncio.sleep(1)
        return task

    with pytest.raises(CheckFailed, match="could not be checked"):
        await PromptChecking().run(check)


async def test_a_check_that_hangs_is_refused_and_the_place_is_logged(caplog):
    ended = threading.Event()

    async def hang():
        ended.wait(30)

    try:
        with pytest.raises(CheckFailed, match="took longer than 0 s") as failed:
            await PromptChecking(limit_s=0.05).run(hang)
    finally:
        ended.set()
    assert failed.value.status == 503 and "ended.wait(30)" in caplog.text


async def test_one_that_hangs_keeps_others_for_a_turn_only(monkeypatch):
    ended = threading.Event()
    checking = PromptChecking(turn_s=0.05)

    async def hang():
        ended.wait(30)

    async def good():
        return 1

    hanging = asyncio.create_task(checking.run(hang))
    await asyncio.sleep(0)
    started_s = time.monotonic()
    assert await asyncio.gather(checking.run(good), checking.run(good)) == [1, 1]
    assert time.monotonic() - started_s < 20 and not hanging.done()
    ended.set()
    await hanging


async def test_threads_left_behind_are_counted(monkeypatch):
    monkeypatch.setattr(prompt_checking, "MAX_LEFT_BEHIND", 2)
    ended = threading.Event()
    checking = PromptChecking(limit_s=0.02)
    threads = []

    async def hang():
        threads.append(threading.current_thread())
        ended.wait(30)

    for _ in range(2):
        with pytest.raises(CheckFailed, match="took longer"):
            await checking.run(hang)
    with pytest.raises(CheckFailed, match="Too many checks"):
        await checking.run(hang)
    ended.set()
    for thread in threads:
        thread.join(30)
    with pytest.raises(CheckFailed, match="raised|could not"):
        await checking.run(failing)


async def failing():
    raise OSError("gone")
