"""Locks of a store: one holder on the machine, freed by its end."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from comfy.ram_model_store import locks

HOLDER = """
import sys, time
from comfy.ram_model_store import locks
from comfy.ram_model_store.folder import StoreFolder
held = locks.lock(StoreFolder(sys.argv[1]), int(sys.argv[2]), lambda: None)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(folder):
    """Starts a process that holds a byte."""
    started = []

    def start(byte):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, folder.path, str(byte)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_byte_has_one_holder_in_a_process_and_others_are_free(folder):
    first = locks.try_lock(folder, 5)
    assert first is not None and locks.try_lock(folder, 5) is None
    other = locks.try_lock(folder, 6)
    assert other is not None
    first.release()
    first.release()
    again = locks.try_lock(folder, 5)
    assert again is not None
    again.release()
    other.release()


def test_the_death_of_a_holder_frees_what_others_wait_for(folder, holder):
    process = holder(7)
    assert locks.try_lock(folder, 7) is None
    got = []
    waiting = threading.Event()
    thread = threading.Thread(target=lambda: got.append(locks.lock(folder, 7, waiting.set)))
    thread.start()
    assert waiting.wait(30) and not got
    process.send_signal(signal.SIGKILL)
    thread.join(30)
    assert len(got) == 1 and got[0] is not None
    got[0].release()


def test_waiting_ends_when_the_check_raises_or_time_is_up(folder, holder):
    holder(8)

    def interrupted():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        locks.lock(folder, 8, interrupted)
    assert locks.lock(folder, 8, lambda: None, timeout_s=0.01) is None


def test_books_that_are_kept_locked_are_gone_without(folder, holder):
    holder(locks.BOOKS_BYTE)
    with pytest.raises(locks.StoreBusy, match="locked"), locks.books(folder, timeout_s=0.01):
        pass


def test_a_lock_leaves_nothing_but_one_file(folder):
    with locks.books(folder):
        pass
    assert os.listdir(folder.path) == [locks.NAME]


def test_parts_have_bytes_of_their_own():
    found = {locks.byte_of(f"{number:016x}-{0:016x}-{0:032x}.weights") for number in range(1000)}
    assert len(found) == 1000 and min(found) > locks.BOOKS_BYTE and max(found) < 1 << 62
