"""The second phase: when it runs, what it takes anew, and what it leaves alone."""

import asyncio
import os
import random
import shutil
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from comfy.ram_model_cache.weights_key import weights_key
from custom_nodes.keepwarm.preload.clocks import Clocks
from custom_nodes.keepwarm.preload.file_marks import FileMarks
from custom_nodes.keepwarm.preload.phases import Phases
from custom_nodes.keepwarm.preload.quiet_moment import between_prompts, with_queue_locked


class Queue:
    """What is asked of a prompt queue."""

    def __init__(self):
        self.mutex, self.currently_running = threading.RLock(), {}


class Preloading:
    """A process's preloading without models."""

    preloader = None
    settings = {"auto_gpu_load": False, "verbose": False}

    def __init__(self):
        self.renewed, self.warmed = 0, 0
        self.providers = [self]

    def renew(self):
        self.renewed += 1

    async def warm_up(self):
        self.warmed += 1
        return True


@pytest.fixture
def server():
    made = SimpleNamespace(prompt_queue=Queue(), handlers=[])
    made.add_on_prompt_handler = made.handlers.append
    return made


async def begun(server, waits):
    preloading = Preloading()
    phases = Phases(preloading)
    phases.join(server, waits)
    await phases.begin()
    return preloading, phases


def test_a_locked_queue_waits_for_the_prompt_and_keeps_the_next_one_out():
    queue, order = Queue(), []
    queue.currently_running[1] = "prompt"

    def sleep(seconds):
        order.append("waited")
        queue.currently_running.clear()

    def other():
        with queue.mutex:
            order.append("next prompt")

    def act():
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.05)
        order.append("in it")
        return thread

    with_queue_locked(queue, act, sleep=sleep).join()
    assert order == ["waited", "in it", "next prompt"]


def test_a_queue_that_can_calls_it_on_the_thread_that_runs_prompts():
    calls = []

    def ask(call):
        calls.append(threading.Thread(target=call))
        calls[-1].start()

    queue = SimpleNamespace(between_prompts=ask)
    assert between_prompts(queue, threading.get_ident) == calls[0].ident
    with pytest.raises(KeyError):
        between_prompts(queue, lambda: {}["gone"])


async def test_the_second_phase_takes_random_state_and_connections_anew_each_time(server):
    preloading, phases = await begun(server, waits=True)
    random.seed(5)
    frozen = random.getstate()
    drawn = set()
    for count in (1, 2):
        random.setstate(frozen)
        told = await asyncio.to_thread(phases.restored)
        assert told["restored"] == preloading.renewed == count
        drawn.add(random.random())
    random.setstate(frozen)
    assert len(drawn | {random.random()}) == 3
    assert preloading.warmed == 1, "the warm-up belongs to the first restore of a process"


async def test_the_second_phase_waits_for_the_prompt_that_runs(server):
    _, phases = await begun(server, waits=False)
    server.prompt_queue.currently_running[1] = "prompt"
    restored = asyncio.create_task(asyncio.to_thread(phases.restored))
    await asyncio.sleep(0.2)
    assert not restored.done()
    server.prompt_queue.currently_running.clear()
    assert (await asyncio.wait_for(restored, 5))["restored"] == 1


async def test_a_prompt_before_the_restore_was_told_begins_the_second_phase(server, caplog):
    preloading, phases = await begun(server, waits=True)
    (before_prompt,) = server.handlers
    assert before_prompt({"prompt": {}}) == {"prompt": {}}
    with server.prompt_queue.mutex:  # as putting the prompt does: it waits for the second phase
        assert preloading.renewed == 1
    for _ in range(100):
        if preloading.warmed:
            break
        await asyncio.sleep(0.05)
    assert preloading.warmed == 1 and "the second phase begins now" in caplog.text
    before_prompt({"prompt": {}})
    assert preloading.renewed == 1


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
async def test_the_signal_begins_it_too(server):
    before = signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        preloading, _ = await begun(server, waits=True)
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(100):
            if preloading.warmed:
                break
            await asyncio.sleep(0.05)
        assert preloading.renewed == 1
    finally:
        signal.signal(signal.SIGUSR1, before)


async def test_timers_are_due_when_they_should_be_although_the_clock_went_back():
    loop, now = asyncio.get_running_loop(), [1e6]
    clocks = Clocks(lambda: now[0])
    fired = asyncio.Event()
    loop.call_later(1000.0, fired.set)
    now[0] -= 999.9
    assert clocks.take_anew(loop) == pytest.approx(999.9)
    await asyncio.wait_for(fired.wait(), 5)
    now[0] += 50
    assert clocks.take_anew(loop) == 0.0


def test_a_file_on_another_mount_is_the_same_and_a_changed_one_is_not(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(os.urandom(5000))
    marks, key = FileMarks(), weights_key("vae", [str(file)])
    assert not marks.is_same(str(file)), "it was not marked"
    marks.take([str(file), str(tmp_path / "gone")])
    assert marks.renamed(key) == key and marks.renamed("no such key") == "no such key"
    shutil.copy2(file, tmp_path / "copy")
    os.replace(tmp_path / "copy", file)  # another inode and time of change, as on another mount
    assert not key.is_current()
    assert marks.is_same(str(file)) and marks.renamed(key) == weights_key("vae", [str(file)]) != key
    times = os.stat(file)
    file.write_bytes(os.urandom(5000))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not marks.is_same(str(file)) and marks.renamed(key) == key
