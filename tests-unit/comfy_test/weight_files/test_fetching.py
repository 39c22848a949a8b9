"""The system begins to fetch what it is asked for, and goes back to its own reading ahead."""

import os

import pytest

from comfy.weight_files import fetching
from comfy.weight_files.fetching import fetch, fetched_as_asked
from comfy.weight_files.page_cache import can_drop_pages

MIDDLE = 50_000


@pytest.fixture
def file(tmp_path):
    """An open file of 100,000 bytes."""
    (tmp_path / "weights").write_bytes(bytes(2 * MIDDLE))
    number = os.open(tmp_path / "weights", os.O_RDONLY)
    yield number
    os.close(number)


@pytest.fixture
def advice(monkeypatch):
    """What the system is advised: [(file, start, bytes, advice), …]."""
    if not can_drop_pages():
        pytest.skip("asks Linux")
    given = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *one: given.append(one))
    return given


@pytest.mark.parametrize(("there", "asked"), [(1, False), (0, True), (None, True)], ids=["there", "absent", "unknown"])
def test_what_is_not_there_is_fetched(file, advice, monkeypatch, there, asked):
    questions = []
    monkeypatch.setattr(fetching, "cached_pages", lambda *question: questions.append(question) or there)
    fetch(file, 10, 2 * MIDDLE - 10)
    assert questions == [(file, MIDDLE + 1, MIDDLE)]
    assert advice == ([(file, 10, 2 * MIDDLE - 20, os.POSIX_FADV_WILLNEED)] if asked else [])


def test_the_system_reads_ahead_again_afterwards_also_after_an_error(file, advice):
    with pytest.raises(KeyError), fetched_as_asked(file):
        assert advice == [(file, 0, 0, os.POSIX_FADV_RANDOM)]
        raise KeyError
    assert advice[1:] == [(file, 0, 0, os.POSIX_FADV_NORMAL)]


def test_where_there_is_no_such_advice_nothing_happens(file, advice, monkeypatch):
    monkeypatch.setattr(fetching, "can_drop_pages", lambda: False)
    with fetched_as_asked(file):
        fetch(file, 0, 10)
    assert advice == []
