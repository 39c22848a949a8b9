"""The worker as RunPod runs it: jobs, progress, cancelling and refreshing through the SDK's own loop."""

import random

import pytest
from live_server import LiveServer
from model_workflows import node
from runpod_platform import RunPodPlatform, start_on_platform
from test_worker_faults import SLEEPER, sleeping, until_running

WAIT_S = 60


@pytest.fixture
def platform():
    """A platform of this test's own."""
    pytest.importorskip("runpod", reason="the worker's tests run through RunPod's SDK: pip install -r requirements-runpod.txt")
    platform = RunPodPlatform()
    yield platform
    platform.close()


@pytest.fixture
def slow_server(tmp_path):
    """A server with a node that takes its time."""
    (tmp_path / "server" / "custom_nodes").mkdir(parents=True)
    (tmp_path / "server" / "custom_nodes" / "sleeper.py").write_text(SLEEPER, encoding="utf-8")
    live = LiveServer(tmp_path / "server")
    yield live
    live.stop()


def test_jobs_progress_cancelling_and_refreshing(platform, slow_server, tmp_path):
    process = start_on_platform(platform, tmp_path, f"127.0.0.1:{slow_server.port}", REFRESH_WORKER="true")
    try:
        platform.send("to-cancel", {"workflow": sleeping(300)})
        cancelled = until_running(slow_server)
        assert platform.progress.get(timeout=WAIT_S)[1]["output"]["node"] == "7"
        foreign = slow_server.post("/prompt", {"prompt": sleeping(0.2)})[1]["prompt_id"]
        platform.stop("to-cancel")
        platform.send(
            "to-finish",
            {
                "workflow": {
                    "7": node("EmptyImage", width=8, height=8, batch_size=1, color=random.randrange(2**24)),
                    "8": node("SaveImage", images=["7", 0], filename_prefix="done"),
                }
            },
        )
        job_id, result = platform.results.get(timeout=WAIT_S)
        assert job_id == "to-finish" and result["stopPod"] is True and result["output"]["images"]
        assert platform.results.empty(), "a cancelled job reports nothing"
        assert process.wait(WAIT_S) == 0, "the worker ends after a job when it is to be refreshed"
        history = slow_server.get("/history")
        assert history[cancelled]["status"]["status_str"] == "error"
        assert history[foreign]["status"]["status_str"] == "success", "nobody else's prompt was interrupted"
    finally:
        process.kill()
        process.wait()
        print((tmp_path / "worker.log").read_text(encoding="utf-8", errors="replace")[-4000:])
