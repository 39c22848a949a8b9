"""The worker's handler behind the server that RunPod's SDK brings for trying handlers out."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from live_server import ROOT, free_port

START_TIMEOUT_S = 60


class WorkerProcess:
    """``python serverless/handler.py --rp_serve_api`` for a server at *host*. ``stop`` ends it."""

    def __init__(self, folder: pathlib.Path, host: str, environment: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = folder / f"worker-{self.port}.log"
        self._log = self.log_path.open("wb")
        command = [
            sys.executable,
            str(ROOT / "serverless" / "handler.py"),
            "--rp_serve_api",
            "--rp_api_host",
            "127.0.0.1",
            "--rp_api_port",
            str(self.port),
        ]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "COMFY_HOST": host,
                "COMFY_PID_FILE": str(folder / "no.pid"),
                "COMFY_API_AVAILABLE_MAX_RETRIES": "20",
                **(environment or {}),
            },
        )
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        began_s = time.monotonic()
        while time.monotonic() - began_s < START_TIMEOUT_S and self.process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/openapi.json", timeout=5).close()
                return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"the worker did not come up:\n{self.log()}")

    def post(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """(status, answer) of a POST."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=110) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def runsync(self, job_input: Any) -> dict[str, Any]:
        """The answer to ``POST /runsync``: id, status, output or error."""
        status, answer = self.post("/runsync", {"input": job_input})
        assert status == 200, answer
        return answer

    def output(self, **job_input: Any) -> dict[str, Any]:
        """The output of a job that must succeed."""
        answer = self.runsync(job_input)
        assert answer["status"] == "COMPLETED", answer
        output: dict[str, Any] = answer["output"]
        return output

    def error(self, **job_input: Any) -> str:
        """The error of a job that must fail."""
        answer = self.runsync(job_input)
        assert answer["status"] == "FAILED" and set(answer) == {"id", "status", "error"}, answer
        return str(answer["error"])

    def log(self) -> str:
        """What it printed so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def summaries(self) -> list[str]:
        """The summary lines of its jobs so far."""
        return re.findall(r"worker INFO (job .*)", self.log())

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()
