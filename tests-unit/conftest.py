"""What holds for all unit tests."""

import gc
import sys
from collections.abc import Iterator

import pytest

from comfy.cli_args import args


def pytest_collection_finish() -> None:
    """Take what was imported out of garbage collections: tests that force one would else walk through all of torch each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_stays_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``--verify-unpatch`` is on: a test fails when un-patching leaves something in a module. One that does so on purpose takes it over."""
    monkeypatch.setattr(args, "verify_unpatch", True, raising=False)
    yield
    loaded = sys.modules.get("comfy.patching.tripwire")
    if loaded is not None:
        tripwire = loaded.tripwire()
        leaks, tripwire.leaks = tripwire.leaks, 0
        assert not leaks, "un-patching left something behind, see the log"
