"""Re-running a cached chain on ComfyUI without and with the series, over HTTP, in one run.

    python benchmarks/patched_chain.py --unpatched CHECKOUT --python PYTHON [--series NAME ...]

Starts servers one after the other: the checkout as it is, the checkout under ``python -m patchset run`` (untouched, changes in
memory) and, with ``--patched``, a checkout that the series was applied to. Each runs a chain of pass-through nodes three times; the
second and third run are all cached, the faster counts. Then it is asked whether it takes a chain of ``--long`` nodes, with ``--run-long``
also how long that takes, in the same way. ``--skip-chain`` leaves out the first chain, and a server that refuses the long one has no time.
``--start-s`` and ``--wait-s`` bound the start of a server and the time without a message: a machine that is busy, or a long chain without
the series, takes minutes.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable

import websocket

PROJECT = pathlib.Path(__file__).resolve().parents[1]
PACK = """
class PassThrough:
    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    CATEGORY = "benchmark"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"default": 0, "min": 0, "max": 2**31})}}

    def run(self, value):
        return (value,)


class Show(PassThrough):
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    def run(self, value):
        return {"ui": {"text": [str(value)]}}


NODE_CLASS_MAPPINGS = {"BenchPassThrough": PassThrough, "BenchShow": Show}
"""


def chain(length: int) -> dict:
    """*length* pass-through nodes in a row and an output."""
    prompt = {"0": {"class_type": "BenchPassThrough", "inputs": {"value": length}}}
    for index in range(1, length):
        prompt[str(index)] = {"class_type": "BenchPassThrough", "inputs": {"value": [str(index - 1), 0]}}
    prompt["show"] = {"class_type": "BenchShow", "inputs": {"value": [str(length - 1), 0]}}
    return prompt


@dataclasses.dataclass(frozen=True, slots=True)
class Waits:
    """Seconds that a server may take to start, and to send its next answer or message."""

    start_s: float
    answer_s: float


class Server:
    """One server process on a free loopback port, with a base directory of its own."""

    def __init__(self, command: list[str], cwd: pathlib.Path, base: pathlib.Path, waits: Waits) -> None:
        self.wait_s = waits.answer_s
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (base / "custom_nodes").mkdir(parents=True)
        (base / "custom_nodes" / "bench.py").write_text(PACK)
        for name in ("models", "input", "output", "user"):
            (base / name).mkdir()
        flags = ["--cpu", "--port", str(self.port), "--base-directory", str(base), "--cache-lru", "10000", "--disable-api-nodes"]
        self.log = (base / "log").open("wb")
        self.process = subprocess.Popen([*command, *flags], cwd=cwd, stdout=self.log, stderr=subprocess.STDOUT)
        deadline_s = time.monotonic() + waits.start_s
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/system_stats", timeout=5).read()
                return
            except OSError:
                if time.monotonic() > deadline_s or self.process.poll() is not None:
                    raise SystemExit(f"the server did not start:\n{(base / 'log').read_text()[-3000:]}") from None
                time.sleep(0.1)

    def accepts(self, prompt: dict) -> str:
        """Whether the prompt is accepted, in words; it is not waited for."""
        body = json.dumps({"prompt": prompt}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/prompt", body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=self.wait_s).read()
        except urllib.error.HTTPError as error:
            return f"refused (HTTP {error.code})"
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}/interrupt", b"{}"), timeout=60).read()
        return "accepted"

    def run_unheard(self, prompt: dict) -> tuple[float, set[str]] | str:
        """As ``run``, without a client that is told of the progress: history is asked every 20 ms whether the prompt is over."""
        body = json.dumps({"prompt": prompt}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/prompt", body, {"Content-Type": "application/json"})
        started_s = time.perf_counter()
        try:
            number = json.load(urllib.request.urlopen(request, timeout=self.wait_s))["prompt_id"]
        except urllib.error.HTTPError as error:
            return f"HTTP {error.code}"
        while not (history := json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.port}/history/{number}", timeout=self.wait_s))):
            if time.perf_counter() - started_s > self.wait_s:
                raise SystemExit(f"the prompt did not end within {self.wait_s:.0f} s")
            time.sleep(0.02)
        seconds, status = time.perf_counter() - started_s, history[number]["status"]
        if status["status_str"] != "success":
            raise SystemExit(f"the prompt failed: {status['messages'][-1]}")
        return seconds, {node for event, data in status["messages"] if event == "execution_cached" for node in data["nodes"]}

    def run(self, prompt: dict) -> tuple[float, set[str]] | str:
        """(seconds from sending to the last message, nodes answered from the cache), or why the prompt was refused."""
        client = uuid.uuid4().hex
        connection = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId={client}", timeout=self.wait_s)
        body = json.dumps({"prompt": prompt, "client_id": client}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/prompt", body, {"Content-Type": "application/json"})
        started_s = time.perf_counter()
        try:
            answer = json.load(urllib.request.urlopen(request, timeout=self.wait_s))
        except urllib.error.HTTPError as error:
            return f"HTTP {error.code}"
        cached: set[str] = set()
        while True:
            frame = connection.recv()
            message = json.loads(frame) if isinstance(frame, str) else {}
            if message.get("type") == "execution_cached":
                cached = set(message["data"]["nodes"])
            data = message.get("data", {})
            if message.get("type") == "executing" and data["node"] is None and data["prompt_id"] == answer["prompt_id"]:
                connection.close()
                return time.perf_counter() - started_s, cached

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def thrice(run: Callable[[dict], tuple[float, set[str]] | str], length: int) -> tuple[float, float, set[str]] | str:
    """(seconds of the first run, of the faster of two more, nodes that the second had from the cache), or why the chain was refused."""
    runs = [run(chain(length))]
    if not isinstance(runs[0], str):
        runs += [run(chain(length)), run(chain(length))]
    first, *later = runs
    if isinstance(first, str):
        return first
    done = [run for run in later if not isinstance(run, str)]
    return first[0], min(run[0] for run in done), done[0][1]


def measure(name: str, command: list[str], cwd: pathlib.Path, folder: pathlib.Path, given: argparse.Namespace) -> dict[int, tuple]:
    """Run the chains on one server and print the figures; by length: seconds of a cached run, nodes that were cached."""
    server = Server(command, cwd, folder / name.replace(" ", "-"), Waits(given.start_s, given.wait_s))
    found = {}
    try:
        for length in [given.length] * (not given.skip_chain) + [given.long] * given.run_long:
            times = thrice(server.run_unheard if given.unheard else server.run, length)
            if isinstance(times, str):
                print(f"{name:20s} chain {length}: refused ({times})", flush=True)
                continue
            print(f"{name:20s} chain {length}: first {times[0]:7.2f} s, cached {times[1]:7.3f} s", flush=True)
            found[length] = times[1:]
        if not given.run_long:
            print(f"{name:20s} chain {given.long}: {server.accepts(chain(given.long))}", flush=True)
    finally:
        server.stop()
    return found


def main() -> int:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unpatched", type=pathlib.Path, required=True)
    parser.add_argument("--patched", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--series", nargs="+", default=["linear-signatures", "flat-validation"])
    parser.add_argument("--length", type=int, default=900)
    parser.add_argument("--long", type=int, default=2000)
    parser.add_argument("--run-long", action="store_true", help="run the long chain, too")
    parser.add_argument(
        "--unheard", action="store_true", help="no client listens: the progress messages of a first run are most of its time"
    )
    parser.add_argument("--skip-chain", action="store_true", help="leave out the chain of --length")
    parser.add_argument("--start-s", type=float, default=900, help="seconds that a server may take to start")
    parser.add_argument("--wait-s", type=float, default=3600, help="seconds that a server may be silent")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    chosen = [word for name in given.series for word in ("--series", name)]
    in_memory = [sys.executable, "-m", "patchset", "run", str(given.unpatched), *chosen, "--python", given.python, "--"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        plain = measure("as it is", [given.python, "main.py"], given.unpatched, folder, given)
        runs = [("changes in memory", in_memory, PROJECT)]
        if given.patched:
            runs.append(("changes applied", [given.python, "main.py"], given.patched))
        for label, command, cwd in runs:
            for length, (seconds, hits) in measure(label, command, cwd, folder, given).items():
                if length in plain:
                    times = plain[length][0] / seconds
                    print(f"  {times:.0f} times as fast; the same nodes cached: {hits == plain[length][1]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
