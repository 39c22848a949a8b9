"""Blocking work: its value, its errors, its time limit, and what is said about it."""

import threading

import pytest
from aiohttp import web

from app.files import off_loop as module
from app.files.off_loop import WorkAborted, off_loop
from app.files.seldom import Seldom


async def test_the_value_or_the_error_comes_back():
    assert await off_loop(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await off_loop(divmod, 7, 0)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
async def test_work_cannot_end_the_loop(error):
    def leave():
        raise error

    with pytest.raises(WorkAborted, match=type(error).__name__):
        await off_loop(leave)


async def test_work_that_does_not_end_is_left_behind_and_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(module, "_seldom", Seldom())
    ended = threading.Event()

    def hang():
        ended.wait(30)
        raise OSError("too late to matter")

    for _ in range(3):
        with pytest.raises(web.HTTPServiceUnavailable) as refused:
            await off_loop(hang, limit_s=0.01)
        assert "did not answer" in refused.value.text
    ended.set()
    assert caplog.text.count("did not end within") == 1


def test_each_kind_is_logged_once_a_minute():
    now_s = [0.0]
    seldom = Seldom(lambda: now_s[0])
    assert [seldom.is_due("a"), seldom.is_due("a"), seldom.is_due("b")] == [True, False, True]
    now_s[0] = 60.0
    assert seldom.is_due("a")
