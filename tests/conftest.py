"""Fixtures that start real servers."""

import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from live_server import ROOT, LiveServer  # noqa: E402
from result_places import CHECKPOINT  # noqa: E402
from store_servers import BUCKET, running_redis, running_s3  # noqa: E402


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


@pytest.fixture
def redis():
    """A Redis server of this test's own."""
    with running_redis() as server:
        yield server


@pytest.fixture
def s3(monkeypatch):
    """The endpoint of an S3 server with a bucket."""
    with running_s3() as endpoint:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield endpoint


@pytest.fixture(params=["file", "redis", "s3"])
def url(request, tmp_path):
    """Each kind of place in turn."""
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    if request.param == "redis":
        return f"redis://127.0.0.1:{request.getfixturevalue('redis').port}"
    return f"s3://{BUCKET}/there?endpoint={request.getfixturevalue('s3')}&region=us-east-1"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A small SD 1.5 of random weights."""
    path = tmp_path_factory.mktemp("checkpoint") / CHECKPOINT
    subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/make_checkpoint.py"), str(path), "--family", "sd15", "--shrink", "5", "--dtype", "fp32"],
        check=True,
        capture_output=True,
    )
    return path
