"""What is measured while a server is attacked: how soon it answers an innocent request, and how much memory it holds."""

import contextlib
import http.client
import threading
import time

INTERVAL_S = 0.05
GIVE_UP_S = 30.0


class LatencyProbe:
    """Asks for ``/prompt`` again and again, on a connection of its own; a request that fails counts as ``GIVE_UP_S``."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.latencies_s: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="latency-probe", daemon=True)

    def __enter__(self) -> "LatencyProbe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(GIVE_UP_S + 5)

    @property
    def p99_s(self) -> float:
        """The time within which 99 of 100 requests were answered."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=GIVE_UP_S)
        while not self._ended.is_set():
            started_s = time.monotonic()
            try:
                connection.request("GET", "/prompt")
                connection.getresponse().read()
                self.latencies_s.append(time.monotonic() - started_s)
            except (OSError, http.client.HTTPException):
                if self._ended.is_set():
                    break
                self.latencies_s.append(GIVE_UP_S)
                connection.close()
            self._ended.wait(INTERVAL_S)
        connection.close()


class MemoryProbe:
    """Follows the resident memory of a process (Linux; elsewhere it measures nothing)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.before_bytes = self.peak_bytes = resident_bytes(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-probe", daemon=True)

    def __enter__(self) -> "MemoryProbe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            now_bytes = resident_bytes(self.pid)
            if now_bytes is not None:
                self.peak_bytes = max(self.peak_bytes or 0, now_bytes)


def resident_bytes(pid: int) -> int | None:
    """Bytes of RAM that process *pid* holds; None when that cannot be told."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return None
