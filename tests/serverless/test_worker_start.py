"""The images' start script with a real server, and the client on the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from live_server import ROOT, free_port
from model_workflows import node


def ended(pid):
    """Whether a process is gone, or waits to be collected."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
            return stream.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("kill", ["server", "script"])
def test_server_and_worker_start_and_end_together(tmp_path, kill):
    if shutil.which("bash") is None or not os.path.isdir("/proc/self"):
        pytest.skip("needs bash and /proc")
    server_port, worker_port, pid_file = free_port(), free_port(), tmp_path / "server.pid"
    workflow = tmp_path / "workflow.json"
    workflow.write_text(
        json.dumps(
            {
                "1": node("EmptyImage", width=8, height=8, batch_size=1, color=0),
                "2": node("SaveImage", images=["1", 0], filename_prefix="started"),
            }
        ),
        encoding="utf-8",
    )
    with (tmp_path / "start.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", str(ROOT / "serverless/docker/start.sh"), "http"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "CPU_ONLY": "true",
                "SERVER_PORT": str(server_port),
                "WORKER_PORT": str(worker_port),
                "PYTHON": sys.executable,
                "COMFY_PID_FILE": str(pid_file),
                "SERVER_FLAGS": f"--base-directory {tmp_path / 'base'}",
            },
        )
    try:
        url, client = f"http://127.0.0.1:{worker_port}", [sys.executable, str(ROOT / "serverless/send_request.py"), str(workflow)]
        for _ in range(600):
            done = subprocess.run(
                [*client, "--url", url, "--output", str(tmp_path / "out"), "--kind", "runpod"], capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                break
            assert process.poll() is None and "Connection refused" in done.stderr, done.stderr + (tmp_path / "start.log").read_text()
            time.sleep(0.1)
        assert (tmp_path / "out").joinpath("started_00001_.png").is_file(), done.stdout
        server_pid = int(pid_file.read_text())
        if kill == "server":
            os.kill(server_pid, signal.SIGKILL)
            assert process.wait(60) != 0
        else:
            process.terminate()
            process.wait(60)
        assert ended(server_pid) and not pid_file.exists()
    finally:
        if process.poll() is None:
            process.kill()
        if pid_file.exists() and not ended(int(pid_file.read_text())):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_the_client_repeats_a_workflow_over_runpods_local_server(worker, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "serverless/send_request.py"),
            str(ROOT / "examples/starter.json"),
            "--url",
            worker.url,
            "--repeat",
            "3",
            "--set",
            "KSampler.steps=2",
            "--set",
            "EmptyLatentImage.batch_size=1",
            "--output",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()[3:]
    assert head.split()[:3] == ["run", "seconds", "models"] and len([row for row in rows if row.split()[0].isdigit()]) == 3
    assert len(list(tmp_path.glob("starter_*.png"))) == 3
