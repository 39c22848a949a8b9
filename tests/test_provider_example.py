"""The example of a cache provider, ``examples/sqlite_results``, in real servers."""

import shutil

import pytest
from live_server import ROOT
from result_places import light_workflow, pixels

pytest.importorskip("torch")


def install(base):
    """Copy the example into the server's packs, as its text says."""
    folder = base / "custom_nodes" / "sqlite_results"
    if not folder.exists():
        shutil.copytree(ROOT / "examples" / "sqlite_results", folder, ignore=shutil.ignore_patterns("__pycache__"))


def test_a_restarted_server_finds_the_results_that_the_example_kept(start_server, tmp_path):
    install(tmp_path / "server")
    first = start_server()
    made = first.run(light_workflow())
    assert sorted(made.executed) == sorted(light_workflow())
    picture = pixels(made.file_bytes())
    assert first.stop() == 0
    assert (tmp_path / "server" / "user" / "sqlite_results.db").is_file()
    second = start_server()
    served = second.run(light_workflow())
    assert served.executed == ["save"]
    assert pixels(served.file_bytes()) == picture
    (numbers,) = second.get("/caches")["results"]["providers"]
    assert (numbers["name"], numbers["hits"], numbers["misses"], numbers["errors"]) == ("SqliteProvider", 1, 0, 0)
    assert len(second.run(light_workflow(color=7)).executed) == 4
