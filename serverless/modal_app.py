"""The worker on Modal, restored from a snapshot in which the server runs and holds its models: ``modal deploy serverless/modal_app.py``.

Needs the package modal on the machine that deploys. docs/howto/modal-snapshot.md says what to change.
"""

import json
import os
import pathlib
import subprocess
import time
import urllib.request
from typing import Any

import modal

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOME = "/comfyui"
PORT = 8000
WARM_UP = "examples/starter.json"
START_TIMEOUT_S = 600
IGNORED = [".git", ".venv", "**/__pycache__", "docs", "tests", "tests-unit", "output", "temp", "user"]

app = modal.App("keepwarm-worker")
image = (
    modal.Image.debian_slim(python_version="3.11")
    .apt_install("libgl1", "libglib2.0-0", "libgoogle-perftools4")
    .add_local_dir(ROOT, HOME, copy=True, ignore=IGNORED)
    .run_commands(f"pip install --no-cache-dir -r {HOME}/requirements.txt 'obstore>=0.6' -c {HOME}/constraints.txt")
    .env({"SERVER_FLAGS": f"--ram-model-cache-mb 24000 --extra-model-paths-config {HOME}/serverless/docker/extra_model_paths.yaml"})
)
models = modal.Volume.from_name("models", create_if_missing=True)


def post(path: str, body: Any) -> Any:
    """The JSON answer of the worker on this machine."""
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as answer:
        return json.load(answer)


def wait_until_up(process: "subprocess.Popen[bytes]") -> None:
    """Return when the worker has reached the server. Raises ``RuntimeError`` when it ends or takes too long."""
    ends_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5) as answer:
                if json.load(answer)["server_connected"]:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the server did not come up; exit status {process.poll()}")


@app.cls(
    image=image,
    gpu="L40S",
    volumes={"/runpod-volume": models},
    timeout=1800,
    scaledown_window=300,
    max_containers=4,
    enable_memory_snapshot=True,
    experimental_options={"enable_gpu_snapshot": True},
)
@modal.concurrent(max_inputs=20)
class Worker:
    """One container: a server, a worker, and the worker's routes for the outside."""

    @modal.enter(snap=True)
    def start_and_warm_up(self) -> None:
        """Start, and run one job, so that its models are in the snapshot that is taken next."""
        environment = {**os.environ, "WORKER_PORT": str(PORT)}
        self.process = subprocess.Popen(["bash", "serverless/docker/start.sh", "http"], cwd=HOME, env=environment)
        wait_until_up(self.process)
        workflow = json.loads(pathlib.Path(HOME, WARM_UP).read_text(encoding="utf-8"))
        told = post("/runsync", {"input": {"workflow": workflow, "report": True}})
        if told["status"] != "COMPLETED":
            raise RuntimeError(f"the warm-up failed: {told.get('error')}")

    @modal.enter(snap=False)
    def look(self) -> None:
        """Check the worker after each restore; it reconnects by itself if the socket did not survive."""
        wait_until_up(self.process)

    @modal.web_server(PORT, startup_timeout=START_TIMEOUT_S)
    def serve(self) -> None:
        """Nothing to do: the worker listens already."""

    @modal.exit()
    def stop(self) -> None:
        """End the server and the worker."""
        self.process.terminate()
        self.process.wait(30)
