"""Fixtures that start real servers."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from live_server import LiveServer  # noqa: E402


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server for all tests that need no flags of their own."""
    live = LiveServer(tmp_path_factory.mktemp("server"))
    yield live
    live.stop()


@pytest.fixture
def start_server(tmp_path):
    """Starts servers with flags: ``start_server("--cache-lru", "3")``; all are stopped afterwards."""
    started = []

    def start(*flags, name="server", **more):
        live = LiveServer(tmp_path / name, *flags, **more)
        started.append(live)
        return live

    yield start
    for live in started:
        live.stop()
