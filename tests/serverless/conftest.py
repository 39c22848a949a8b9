"""The worker in front of real servers, behind RunPod's own local server."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from model_workflows import with_starters  # noqa: E402
from worker_process import WorkerProcess  # noqa: E402


@pytest.fixture(scope="session")
def model_server(server):
    """The shared server, with the starter checkpoints."""
    return with_starters(server)


@pytest.fixture(scope="session")
def worker(model_server, tmp_path_factory):
    """A worker for the shared server, with no settings of its own."""
    pytest.importorskip("runpod", reason="the worker's tests run through RunPod's SDK: pip install -r requirements-runpod.txt")
    process = WorkerProcess(tmp_path_factory.mktemp("worker"), f"127.0.0.1:{model_server.port}")
    yield process
    process.stop()


@pytest.fixture
def start_worker(tmp_path):
    """Starts workers: ``start_worker(host, {"NAME": "value"})``; all are stopped afterwards."""
    pytest.importorskip("runpod", reason="the worker's tests run through RunPod's SDK: pip install -r requirements-runpod.txt")
    started = []

    def start(host, environment=None):
        process = WorkerProcess(tmp_path, host, environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()
