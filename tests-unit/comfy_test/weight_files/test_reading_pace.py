"""Reads in the background: they give way, stop, and hurry when somebody waits."""

import ctypes
import os
import platform
import sys
import threading
import time

import pytest
import safetensors.torch
import torch

from comfy.interruption import InterruptFlag, InterruptProcessingException
from comfy.weight_files import pace, thread_priority
from comfy.weight_files.pace import BackgroundPace, ReadLanes, current_pace
from comfy.weight_files.reader import CHUNK_BYTES, WeightReader

TENSORS = {"many": torch.arange(3 * CHUNK_BYTES // 4, dtype=torch.int32)}


class Stopped(Exception):
    """What ends a load in these tests."""


def background(lanes, stopped=None, urgent=None, beside=False):
    def raise_if_stopped():
        if stopped is not None and stopped.is_set():
            raise Stopped

    return BackgroundPace(raise_if_stopped, (urgent or threading.Event()).is_set, beside, lanes)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    name = str(tmp_path_factory.mktemp("pace") / "weights.safetensors")
    safetensors.torch.save_file(TENSORS, name)
    return name


class Reading(threading.Thread):
    """Reads all of a file at a pace; ``result`` is the tensors or the error."""

    def __init__(self, path, one):
        super().__init__()
        self.path, self.one, self.result = path, one, None
        self.start()

    def run(self):
        current_pace.set(self.one)
        try:
            with WeightReader(self.path, between_chunks=self.one.check) as reader:
                self.result = reader.read(TENSORS)
        except Exception as error:
            self.result = error

    def outcome(self):
        self.join(20)
        return self.result


def is_pausing(one):
    """Wait until *one* has paused for a while."""
    until_s = time.monotonic() + 20
    while one.waits == 0 and time.monotonic() < until_s:
        time.sleep(0.001)
    return one.waits > 0


class Watched(BackgroundPace):
    """Counts its looks at whether it is stopped."""

    waits = 0

    def check(self):
        self.waits += 0 if self._lanes.is_free(0) else 1
        super().check()


def test_it_reads_what_a_read_at_once_does(path):
    read = Reading(path, background(ReadLanes())).outcome()
    assert torch.equal(read["many"], TENSORS["many"])


def test_it_pauses_while_others_read_and_the_pause_is_counted(path):
    lanes = ReadLanes()
    one = Watched(lambda: None, lambda: False, False, lanes)
    with lanes.reading():
        reading = Reading(path, one)
        assert is_pausing(one)
        time.sleep(0.1)
        assert reading.is_alive() and reading.result is None
    assert torch.equal(reading.outcome()["many"], TENSORS["many"])
    assert one.paused_s > 0.05


def test_a_paused_read_can_be_stopped(path):
    lanes, stopped = ReadLanes(), threading.Event()
    with lanes.reading():
        reading = Reading(path, background(lanes, stopped))
        stopped.set()
        assert isinstance(reading.outcome(), Stopped)


def test_a_paused_read_hurries_when_somebody_waits_for_it(path):
    lanes, urgent = ReadLanes(), threading.Event()
    with lanes.reading():
        reading = Reading(path, background(lanes, urgent=urgent))
        time.sleep(0.05)
        assert reading.is_alive()
        urgent.set()
        assert torch.equal(reading.outcome()["many"], TENSORS["many"])


def test_beside_others_it_gives_no_way_to_what_is_needed_later_and_is_given_way_to():
    lanes = ReadLanes()
    one = background(lanes, beside=True)
    with one.lane(), lanes.reading(turn=1 << 40):
        one.check()
        assert not lanes.is_free(0)
    with background(lanes).lane():
        assert lanes.is_free(0)


def test_beside_others_it_waits_for_its_turn_until_somebody_waits_for_it(path):
    lanes, urgent = ReadLanes(), threading.Event()
    with lanes.reading() as first:
        reading = Reading(path, background(lanes, urgent=urgent, beside=True))
        time.sleep(0.1)
        assert reading.is_alive()
        urgent.set()
        assert torch.equal(reading.outcome()["many"], TENSORS["many"])
        assert lanes.may_read(first, 0)


def test_reads_at_once_are_what_others_give_way_to(path, monkeypatch):
    lanes, seen = ReadLanes(), []
    monkeypatch.setattr(pace, "read_lanes", lambda: lanes)
    with WeightReader(path, between_chunks=lambda: seen.append(lanes.is_free(0))) as reader:
        reader.read(TENSORS, threads=1)  # others might leave nothing for this thread, which alone looks
    assert seen and not any(seen) and lanes.is_free(0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere priorities belong to processes")
def test_threads_that_stand_back_do_so_alone():
    mine, theirs = os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), []

    def look():
        thread_priority.stand_back()
        classes = ctypes.CDLL(None).syscall({"x86_64": 252, "aarch64": 31}.get(platform.machine(), -1), 1, 0) >> 13
        theirs.append((os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), classes))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert theirs == [(19, 3)] and os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere priorities belong to processes")
def test_a_thread_that_stood_back_is_brought_forward_as_far_as_the_system_lets(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "setpriority", lambda which, who, niceness: asked.append((who, niceness)))
    monkeypatch.setattr(thread_priority, "_syscall", lambda: lambda number, which, who, disk_class: asked.append((who, disk_class)))
    thread_priority.come_forward(12)
    assert asked == [(12, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())), (12, 0)]


def test_threads_that_stood_back_begin_nothing_more_once_somebody_waits(path, monkeypatch):
    """The first chunk of each is held; new threads read all the rest meanwhile."""
    lanes, urgent, go_on = ReadLanes(), threading.Event(), threading.Event()
    stood_back, read = set(), []
    monkeypatch.setattr(pace, "stand_back", lambda: stood_back.add(threading.get_ident()))
    monkeypatch.setattr(pace, "come_forward", lambda thread: None)
    original = WeightReader._read_chunk

    def read_chunk(reader, chunk, destinations):
        original(reader, chunk, destinations)
        read.append(threading.get_ident() in stood_back)
        if read[-1]:
            urgent.set()
            assert go_on.wait(20)

    monkeypatch.setattr(WeightReader, "_read_chunk", read_chunk)
    monkeypatch.setattr("comfy.weight_files.reader.CHUNK_BYTES", CHUNK_BYTES // 16)
    reading = Reading(path, background(lanes, urgent=urgent))
    until_s = time.monotonic() + 20
    while len(read) < 48 and time.monotonic() < until_s:
        time.sleep(0.001)
    go_on.set()
    assert torch.equal(reading.outcome()["many"], TENSORS["many"])
    assert len(read) in (48, 49) and 1 <= read.count(True) <= len(stood_back)


@pytest.mark.parametrize("beside", [False, True])
def test_threads_stand_back_unless_they_read_for_the_running_prompt(path, monkeypatch, beside):
    stood_back = []
    monkeypatch.setattr(pace, "stand_back", lambda: stood_back.append(threading.current_thread().name))
    assert torch.equal(Reading(path, background(ReadLanes(), beside=beside)).outcome()["many"], TENSORS["many"])
    assert bool(stood_back) is not beside


def test_every_request_to_stop_counts_though_it_is_consumed():
    flag = InterruptFlag()
    flag.set()
    with pytest.raises(InterruptProcessingException):
        flag.raise_if_set()
    assert (flag.is_set(), flag.requests) == (False, 1)
    flag.set(False)
    flag.set()
    assert flag.requests == 2
