"""The servers that picture_parity.py compares: each runs in a process and a base directory of its own and is asked over HTTP."""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence

import numpy as np
import picture_cases
from picture_cases import CHECKPOINT, Graph
from PIL import Image

START_TIMEOUT_S, PROMPT_TIMEOUT_S, STOP_TIMEOUT_S = 180, 900, 30


class Server:
    """One server in a process of its own; ``stop`` ends it."""

    def __init__(self, command: Sequence[str], cwd: str, pythonpath: str, base: pathlib.Path, threads: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        environment = {**os.environ, "PYTHONPATH": pythonpath, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self.log_path = base / "server.log"
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *command,
                    "main.py",
                    "--cpu",
                    "--listen",
                    "127.0.0.1",
                    "--port",
                    self.address.rpartition(":")[2],
                    "--base-directory",
                    str(base),
                ],
                cwd=cwd,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with contextlib.suppress(OSError):
                self.get("/system_stats")
                return
            time.sleep(0.1)
        self.stop()
        raise SystemExit(f"the server in {cwd} did not come up:\n{self.log_path.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End the process and wait for it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def get(self, path: str) -> bytes:
        """The body of a GET."""
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=60) as answer:
            return answer.read()

    def queue(self, graph: Graph, client: str = "") -> str:
        """Queue a prompt; its id. Raises ``RuntimeError`` when it is refused."""
        body = json.dumps({"prompt": graph, "client_id": client}).encode()
        request = urllib.request.Request(f"http://{self.address}/prompt", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"refused: {error.read().decode()[:500]}") from error

    def picture(self, graph: Graph) -> bytes:
        """Run a prompt; its picture file. Raises ``RuntimeError`` when it fails."""
        prompt_id = self.queue(graph)
        deadline_s = time.monotonic() + PROMPT_TIMEOUT_S
        while time.monotonic() < deadline_s:
            entry = json.loads(self.get(f"/history/{prompt_id}")).get(prompt_id)
            if entry is not None:
                return self._result(entry)
            time.sleep(0.05)
        raise RuntimeError(f"no result within {PROMPT_TIMEOUT_S} s")

    def _result(self, entry: dict) -> bytes:
        if entry["status"]["status_str"] != "success":
            told = [data for name, data in entry["status"]["messages"] if name == "execution_error"]
            raise RuntimeError(f"failed: {told[0]['node_type']}: {told[0]['exception_message']}" if told else "failed")
        query = urllib.parse.urlencode(entry["outputs"]["save"]["images"][0])
        return self.get(f"/view?{query}")


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """How to start one of the two servers."""

    name: str
    python: str
    tree: str
    pythonpath: str

    def start(self, folder: pathlib.Path, given: argparse.Namespace) -> Server:
        """Start it with a base directory of its own under *folder*."""
        base = folder / self.name
        lay_out(base, given)
        return Server([self.python], self.tree, self.pythonpath, base, given.threads)


def lay_out(base: pathlib.Path, given: argparse.Namespace) -> None:
    """Make a base directory that links the models and holds a picture with a hole in its alpha channel."""
    for name in (
        "input",
        "output",
        "temp",
        "user",
        "custom_nodes",
        "models/checkpoints",
        "models/loras",
        "models/controlnet",
        "models/embeddings",
    ):
        (base / name).mkdir(parents=True, exist_ok=True)
    links = (
        ("checkpoints", CHECKPOINT, given.checkpoint),
        ("loras", picture_cases.LORA, given.lora),
        ("controlnet", picture_cases.CONTROLNET, given.controlnet),
        ("embeddings", picture_cases.EMBEDDING, given.embedding),
    )
    for folder, name, target in links:
        if target:
            (base / "models" / folder / name).symlink_to(os.path.abspath(target))
    size = given.size
    waves = np.random.default_rng(3).uniform(1, 6, (4, 2))
    y, x = np.mgrid[0:size, 0:size] / size * 2 * np.pi
    levels = np.stack([127.5 + 120 * np.sin(a * x + b * y) for a, b in waves], axis=-1)
    levels[..., 3] = 255
    levels[size // 4 : size * 3 // 4, size // 3 :, 3] = 0
    Image.fromarray(levels.astype(np.uint8), "RGBA").save(base / "input" / picture_cases.PICTURE)
