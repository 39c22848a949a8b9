"""What the gateway costs a job: the same prompts sent to a server and to a gateway before two servers, in turn.

    python benchmarks/gateway.py [--check] [--rounds 40]

Two kinds of job: one whose only node sleeps for 50 ms, and one whose results are all cached. A job is timed by a client of its own, from
``POST /prompt`` over the messages of its socket to its history entry. Printed: medians in ms. ``--check`` exits with 1 unless the slow job
takes at most 1.25 times as long through the gateway, and the cached one at most 10 ms longer.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
MOST_RATIO, MOST_CACHED_MS = 1.25, 10.0
PACK = """
import time


class SleepFor:
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "go", "benchmark", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"ms": ("INT", {"default": 50}), "salt": ("INT", {"default": 0, "max": 2**40})}}

    def go(self, ms, salt):
        time.sleep(ms / 1000)
        return {"ui": {"text": [str(salt)]}}


NODE_CLASS_MAPPINGS = {"SleepFor": SleepFor}
"""


def timed_ms(client: Any, prompt: dict[str, Any]) -> float:
    """Milliseconds from sending the prompt to having its history entry, which must be a success."""
    began_s = time.perf_counter()
    run = client.run(prompt)
    took_ms = (time.perf_counter() - began_s) * 1000
    if run.history["status"]["status_str"] != "success":
        raise RuntimeError(f"the prompt failed: {run.history['status']}")
    return took_ms


def measure(clients: dict[str, Any], rounds: int) -> dict[str, dict[str, float]]:
    """Medians in ms by kind of job and by way; ways take turns, so that a change of the machine's load meets both."""
    times: dict[str, dict[str, list[float]]] = {kind: {way: [] for way in clients} for kind in ("slow", "cached")}
    cached = {"1": {"class_type": "SleepFor", "inputs": {"ms": 1, "salt": 0}}}
    for number in range(rounds + 2):
        for way, client in clients.items():
            slow = {"1": {"class_type": "SleepFor", "inputs": {"ms": 50, "salt": 1 + number * 2 + (way == "gateway")}}}
            took = timed_ms(client, slow)
            # What is cached is what the prompt before left, so it is made anew after each slow one.
            client.run(cached)
            again = timed_ms(client, cached)
            if number >= 2:
                times["slow"][way].append(took)
                times["cached"][way].append(again)
    return {kind: {way: statistics.median(values) for way, values in ways.items()} for kind, ways in times.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and with ``--check`` judge; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bound is missed")
    parser.add_argument("--rounds", type=int, default=40, help="jobs of each kind and way (default: %(default)s)")
    given = parser.parse_args(arguments)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "gateway")]
    from gateway_process import LiveGateway
    from live_server import Client, LiveServer

    started: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in ("direct", "first", "second"):
                base = pathlib.Path(folder) / name
                (base / "custom_nodes").mkdir(parents=True)
                (base / "custom_nodes" / "sleeping.py").write_text(PACK)
                started.append(LiveServer(base))
            started.append(LiveGateway(pathlib.Path(folder) / "gateway", started[1:]))
            medians = measure({"direct": Client(started[0]), "gateway": Client(started[-1])}, given.rounds)
        finally:
            for one in reversed(started):
                one.stop()
    slow, cached = medians["slow"], medians["cached"]
    ratio, more_ms = slow["gateway"] / slow["direct"], cached["gateway"] - cached["direct"]
    print(f"50 ms job: direct {slow['direct']:.1f} ms, gateway {slow['gateway']:.1f} ms: {ratio:.3f} times (bound {MOST_RATIO})")
    print(
        f"cached job: direct {cached['direct']:.1f} ms, gateway {cached['gateway']:.1f} ms: {more_ms:.1f} ms more (bound {MOST_CACHED_MS})"
    )
    return int(given.check and not (ratio <= MOST_RATIO and more_ms <= MOST_CACHED_MS))


if __name__ == "__main__":
    sys.exit(main())
