"""Being asked to stop: once, twice, and with something that hangs."""

import signal
import threading

import pytest

from app.running.stop_watch import StopWatch, busy_threads


@pytest.fixture
def watch():
    """``watch(limit_s)``: (a started watch's "asked" event, the list of statuses it ended with and an event for that)."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    watches = []

    def start(limit_s):
        asked, ended, statuses = threading.Event(), threading.Event(), []

        def end(status):
            statuses.append(status)
            ended.set()

        made = StopWatch(asked.set, limit_s, end)
        made.__enter__()
        watches.append(made)
        return asked, ended, statuses

    yield start
    signal.set_wakeup_fd(-1)
    for one, handler in before.items():
        signal.signal(one, handler)
    for made in watches:
        made._told.close()
        made._thread.join(5)
        made._heard.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_what_hangs_is_named(watch, number, caplog):
    hanging = [True]
    caplog.set_level("INFO")

    def stuck_in_here():
        while hanging[0]:
            pass

    threading.Thread(target=stuck_in_here, name="node-worker", daemon=True).start()
    asked, ended, statuses = watch(0.2)
    signal.raise_signal(number)
    assert asked.wait(5) and ended.wait(10) and statuses == [1]
    hanging[0] = False
    assert "node-worker in stuck_in_here" in caplog.text and "Not everything ended" in caplog.text


def test_a_second_signal_ends_at_once(watch, caplog):
    asked, ended, statuses = watch(300)
    signal.raise_signal(signal.SIGTERM)
    assert asked.wait(5) and not statuses
    signal.raise_signal(signal.SIGINT)
    assert ended.wait(5) and "again" in caplog.text


def test_threads_that_wait_for_work_are_not_named():
    proceed = threading.Event()
    thread = threading.Thread(target=proceed.wait, name="waiting", daemon=True)
    thread.start()
    assert not [text for text in busy_threads() if text.startswith("pool")]
    proceed.set()
    thread.join()
