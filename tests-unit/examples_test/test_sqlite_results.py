"""The parts of the example of a cache provider: values that come back exactly, and a table that keeps to its size."""

import pathlib
import sys

import pytest

torch = pytest.importorskip("torch")

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """The modules ``values`` and ``provider`` of the pack, without its registration."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    package = type(sys)("sqlite_results")
    package.__path__ = [str(EXAMPLES / "sqlite_results")]
    monkeypatch.setitem(sys.modules, "sqlite_results", package)
    for name in ("values", "provider"):
        monkeypatch.delitem(sys.modules, f"sqlite_results.{name}", raising=False)
    from sqlite_results import provider, values

    return values, provider


class Clock:
    """A time that tests move."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        self.now_s += 1
        return self.now_s


def test_values_survive_the_round_trip(example):
    values, _ = example
    shared = torch.arange(6, dtype=torch.float16)
    value = {"outputs": [[shared.view(2, 3), shared.view(2, 3).T], [(1, 2.5, None, True)]], "ui": {"text": ["ä"]}}
    back = values.decode(*values.encode(value))
    assert torch.equal(back["outputs"][0][0], shared.view(2, 3)) and torch.equal(back["outputs"][0][1], shared.view(2, 3).T)
    assert back["outputs"][0][0].dtype == torch.float16
    assert back["outputs"][1] == [(1, 2.5, None, True)] and back["ui"] == {"text": ["ä"]}


@pytest.mark.parametrize("value", [object(), [{1: 2}], {"deep": [torch.nn.Linear(1, 1)]}, torch.nn.Parameter(torch.zeros(1))])
def test_values_that_only_this_process_can_use_are_refused(example, value):
    values, _ = example
    with pytest.raises(values.NotPlainError, match="cannot be kept"):
        values.encode(value)


def test_the_table_drops_what_was_used_longest_ago(example, tmp_path):
    _, provider = example
    table = provider.ResultTable(str(tmp_path / "results.db"), capacity_bytes=250, clock=Clock())
    for key in ("a", "b"):
        table.keep(key, "", b"." * 100)
    assert table.find("a") == ("", b"." * 100)
    table.keep("c", "", b"." * 100)
    assert [key for key in "abc" if table.find(key)] == ["a", "c"]
    table.keep("huge", "", b"." * 300)
    assert table.find("huge") is None
    table.close()


async def test_a_damaged_file_raises_so_that_the_server_counts_a_miss(example, tmp_path):
    _, provider = example
    path = tmp_path / "results.db"
    path.write_bytes(b"not a database " * 100)
    broken = provider.SqliteProvider(str(path))
    with pytest.raises(Exception, match="not a database"):
        await broken.on_lookup(provider.Caching.CacheContext("1", "Any", "0" * 64))
