"""The file of the prompts that were begun."""

import pytest

from app.running.started_prompts import StartedPrompts, read_started


def test_ids_are_there_at_once_and_after_a_second_start(tmp_path):
    path = str(tmp_path / "started")
    assert read_started(path) is None, "without the file nothing is certain"
    started = StartedPrompts(path)
    assert read_started(path) == frozenset()
    started.note("a")
    StartedPrompts(path).note("b")
    assert read_started(path) == {"a", "b"}


def test_a_start_that_cannot_be_noted_is_an_error():
    started = StartedPrompts("/dev/full")
    with pytest.raises(OSError, match="No space"):
        started.note("a")
