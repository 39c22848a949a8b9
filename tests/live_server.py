"""A real server in a process of its own, spoken to over HTTP and WebSocket."""

import atexit
import contextlib
import functools
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import websocket
from warm_start import ForkedServer, Nursery, can_start_warm

ROOT = pathlib.Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 110


@functools.cache
def nursery() -> Nursery:
    """The process that this test process forks its servers off."""
    made = Nursery()
    atexit.register(made.close)
    return made


def free_port() -> int:
    """A loopback port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LiveServer:
    """Started by the constructor; ``stop`` ends it. Every request goes to the loopback address."""

    def __init__(
        self,
        base: pathlib.Path,
        *flags: str,
        environment: dict[str, str] | None = None,
        root: pathlib.Path = ROOT,
        python: str = sys.executable,
        cold: bool = False,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        """*root*: whose ``main.py`` to run, by *python*; *cold*: start the interpreter instead of forking off a warm one."""
        self.start_timeout_s = start_timeout_s
        self.port = free_port()
        self.base = base
        self.url = f"http://127.0.0.1:{self.port}"
        for name in ("input", "custom_nodes", "models", "user", "output"):
            (base / name).mkdir(parents=True, exist_ok=True)
        self.log_path = base / "server.log"
        self.log_path.write_bytes(b"")
        arguments = ["--listen", "127.0.0.1", "--port", str(self.port), "--base-directory", str(base), "--cpu", *flags]
        self.started_s = time.monotonic()
        self.process: ForkedServer | subprocess.Popen[bytes]
        if root == ROOT and python == sys.executable and not cold and can_start_warm(environment):
            everything = {**os.environ, **(environment or {})}
            self.process = ForkedServer(nursery(), root / "main.py", arguments, self.log_path, everything)
        else:
            self.process = self._start_cold(root, [python, str(root / "main.py"), *arguments], environment)
        self._wait_until_up()

    def _start_cold(self, root: pathlib.Path, command: list[str], environment: dict[str, str] | None) -> "subprocess.Popen[bytes]":
        with self.log_path.open("wb") as log:
            return subprocess.Popen(command, cwd=root, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})})

    def _wait_until_up(self) -> None:
        while time.monotonic() - self.started_s < self.start_timeout_s:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                self.get("/system_stats")
                self.seconds_to_start = time.monotonic() - self.started_s
                return
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"the server did not come up:\n{self.log()}")

    def log(self) -> str:
        """What the server printed so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> int:
        """Ask the process to end as Ctrl-C does, and wait; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(2)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def get(self, path: str) -> Any:
        """The JSON answer of a GET; raises ``urllib.error.HTTPError`` for a status of 400 and over."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def get_bytes(self, path: str) -> bytes:
        """The body of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def post(self, path: str, document: Any) -> tuple[int, Any]:
        """(status, JSON or text answer) of a POST, refusals included."""
        request = urllib.request.Request(self.url + path, json.dumps(document).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body.decode("utf-8", "replace")

    def run(self, prompt: dict[str, Any], timeout_s: float = 60, **more: Any) -> "Run":
        """Queue *prompt* as a client of its own and collect every message until it has ended."""
        return Client(self).run(prompt, timeout_s, **more)


class Client:
    """One WebSocket client."""

    def __init__(self, server: LiveServer, client_id: str | None = None) -> None:
        self.server = server
        self.client_id = client_id or uuid.uuid4().hex
        self.socket = websocket.create_connection(f"ws://127.0.0.1:{server.port}/ws?clientId={self.client_id}", timeout=60)

    def close(self) -> None:
        """End the connection."""
        self.socket.close()

    def messages(self) -> Iterator[dict[str, Any] | bytes]:
        """What arrives: text frames as objects, binary frames as bytes."""
        while True:
            frame = self.socket.recv()
            yield json.loads(frame) if isinstance(frame, str) else frame

    def run(self, prompt: dict[str, Any], timeout_s: float = 60, **more: Any) -> "Run":
        """Queue *prompt* and read until its end; raises ``AssertionError`` when it is refused."""
        self.socket.settimeout(timeout_s)
        status, answer = self.server.post("/prompt", {"prompt": prompt, "client_id": self.client_id, **more})
        assert status == 200, answer
        collected: list[dict[str, Any]] = []
        for message in self.messages():
            if isinstance(message, bytes):
                continue
            collected.append(message)
            data = message["data"]
            if message["type"] == "executing" and data["node"] is None and data["prompt_id"] == answer["prompt_id"]:
                break
        return Run(self.server, answer["prompt_id"], collected)


class Run:
    """A finished prompt: its messages and its history entry."""

    def __init__(self, server: LiveServer, prompt_id: str, messages: list[dict[str, Any]]) -> None:
        self.server = server
        self.prompt_id = prompt_id
        self.messages = messages
        self.history = server.get(f"/history/{prompt_id}")[prompt_id]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The data of every message of one type, in order."""
        return [message["data"] for message in self.messages if message["type"] == kind]

    @property
    def executed(self) -> list[str]:
        """The nodes that ran, in order."""
        return [data["node"] for data in self.of_type("executing") if data["node"] is not None]

    @property
    def files(self) -> list[dict[str, str]]:
        """Every file named in the outputs."""
        found = []
        for output in self.history["outputs"].values():
            for value in output.values():
                found += [item for item in value if isinstance(item, dict) and "filename" in item]
        return found

    def file_bytes(self, index: int = 0) -> bytes:
        """The bytes of one result, through ``/view``."""
        return self.server.get_bytes("/view?" + urllib.parse.urlencode(self.files[index]))
