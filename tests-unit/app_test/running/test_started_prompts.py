"""The file of the prompts that were begun."""

import os
import threading

import pytest

from app.running.started_prompts import StartedPrompts, read_started


def test_ids_are_there_after_two_servers_and_certain_only_when_both_are_gone(tmp_path):
    path = str(tmp_path / "started")
    assert read_started(path) is None, "without the file nothing is certain"
    first, second = StartedPrompts(path), StartedPrompts(path)
    first.note("a")
    second.note("b")
    os.close(first._descriptor)  # as the death of its process does
    assert read_started(path) is None and read_started(path, 0.05) is None
    os.close(second._descriptor)
    assert read_started(path) == {"a", "b"}


def test_a_server_that_is_about_to_die_is_waited_for(tmp_path):
    path = str(tmp_path / "started")
    started = StartedPrompts(path)
    started.note("a")
    threading.Timer(0.05, os.close, [started._descriptor]).start()
    assert read_started(path, 10) == {"a"}


def test_a_start_that_cannot_be_noted_is_an_error():
    started = StartedPrompts("/dev/full")
    with pytest.raises(OSError, match="No space"):
        started.note("a")
