"""A gateway in a process of its own before real servers."""

import os
import pathlib
import subprocess
import sys
import time
import urllib.request
from typing import Any

from live_server import ROOT, LiveServer, free_port

START_TIMEOUT_S = 110


class LiveGateway(LiveServer):
    """Spoken to as a ``LiveServer`` is; ``servers`` are those behind it."""

    def __init__(self, base: pathlib.Path, servers: list[Any], *flags: str) -> None:
        base.mkdir(parents=True, exist_ok=True)
        self.servers = servers
        self.base = base
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = base / "gateway.log"
        addresses = [part for server in servers for part in ("--server", server.url)]
        command = [sys.executable, "-m", "fleet.gateway", "--port", str(self.port), "--folder", str(base), *addresses, *flags]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        started_s = time.monotonic()
        while time.monotonic() - started_s < START_TIMEOUT_S and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url + "/prompt", timeout=5).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"the gateway did not come up:\n{self.log()}")
