"""A live server under attack: probed meanwhile, and asked afterwards whether its queue still works."""

import contextlib
import threading
from collections.abc import Iterator

from attack_report import AreaResult, AttackReport
from live_server import Client, LiveServer
from probes import LatencyProbe, MemoryProbe

LATENCY_LIMIT_S = 0.5
QUEUE_TIMEOUT_S = 60.0


class WatchedServer:
    """Wraps a ``LiveServer`` (``server``); the figures of each ``watch`` go into *report* under *area*."""

    def __init__(self, server: LiveServer, area: str, report: AttackReport) -> None:
        self.server = server
        self.area = area
        self.report = report

    @contextlib.contextmanager
    def watch(self, area: str | None = None, *, with_queue: bool = True) -> Iterator[AreaResult]:
        """Measure while the block runs; it counts ``tries`` and adds to ``escapes`` and ``wrong_results`` of what it gets.

        At the end the process must be there and, unless *with_queue* is false, run a prompt; else that is a dead queue.
        """
        result = AreaResult(area or self.area)
        self.report.results.append(result)
        with LatencyProbe(self.server.port) as latency, MemoryProbe(self.server.process.pid) as memory:
            yield result
        result.latency_p99_s, result.latency_max_s = latency.p99_s, max(latency.latencies_s, default=0.0)
        result.rss_before_bytes, result.rss_peak_bytes = memory.before_bytes, memory.peak_bytes
        if self.server.process.poll() is not None:
            result.dead_queues.append(f"the process ended with {self.server.process.returncode}")
        elif with_queue and (problem := queue_problem(self.server)):
            result.dead_queues.append(problem)

    def check(self, result: AreaResult, *, rss_growth_bytes: int, latency_s: float = LATENCY_LIMIT_S) -> None:
        """Fail with all figures unless nothing escaped or was wrong, the queue lives, and latency and memory stayed in bounds."""
        shown = "\n".join([" | ".join(result.row()), *result.escapes[:5], *result.wrong_results[:5], *result.dead_queues, self.log_end()])
        assert not result.escapes and not result.wrong_results and not result.dead_queues, shown
        assert result.latency_p99_s is None or result.latency_p99_s < latency_s, shown
        if result.rss_peak_bytes is not None:
            assert result.rss_peak_bytes - (result.rss_before_bytes or 0) < rss_growth_bytes, shown

    def log_end(self) -> str:
        """The last lines of the server's log."""
        return "\n".join(line[:300] for line in self.server.log().splitlines()[-30:])


def queue_problem(server: LiveServer) -> str:
    """Why a small prompt does not run on *server*; empty when it does."""
    picture = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": threading.get_ident() % 255}}
    preview = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    try:
        client = Client(server)
        try:
            run = client.run({"1": picture, "2": preview}, QUEUE_TIMEOUT_S)
        finally:
            client.close()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    status = run.history["status"]["status_str"]
    return "" if status == "success" else f"the prompt ended as {status}"
