"""Redis and S3 servers of the tests' own, each on a free port of the loopback address."""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

BUCKET = "results"
START_TIMEOUT_S = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process):
    began = time.monotonic()
    while time.monotonic() - began < START_TIMEOUT_S and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}; exit status {process.poll()}")


class Redis:
    """A redis-server without persistence."""

    def __init__(self, *flags):
        self.port = free_port()
        self.flags = flags
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self.flags], stdout=subprocess.DEVNULL
        )
        wait_for_port(self.port, self.process)

    def freeze(self):
        """Make calls hang."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        """Let them go on."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        """Kill it."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running_redis(*flags):
    """A ``Redis`` started with *flags*; skips the test where the server or its client is not installed."""
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Redis(*flags)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running_s3():
    """The endpoint of moto's S3 server with the bucket ``BUCKET``; skips the test where moto or obstore is not installed."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port, process)
        endpoint = f"http://127.0.0.1:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT"), timeout=20).close()
        yield endpoint
    finally:
        process.kill()
        process.wait()
