"""A Redis server of the tests' own."""

import socket
import subprocess
import time

START_TIMEOUT_S = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Redis:
    """A redis-server of our own without persistence."""

    def __init__(self, *flags):
        self.port = free_port()
        self.flags = flags
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self.flags], stdout=subprocess.DEVNULL
        )
        wait_for_port(self.port, self.process)

    def stop(self):
        self.process.kill()
        self.process.wait()


def wait_for_port(port, process):
    began = time.monotonic()
    while time.monotonic() - began < START_TIMEOUT_S and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}; exit status {process.poll()}")
