"""How the executor's time grows with the graph: chains and a wide graph of pass-through nodes, without a server.

    python benchmarks/executor.py [--check] [--upstream CHECKOUT --python PYTHON [--pythonpath DIR]]

Each graph is run four times: first, all cached, last node changed, first node changed. Printed are seconds, microseconds per node,
the WebSocket bytes of each run, and the slope (time per node at 10,000 nodes over that at 1,000). With ``--upstream`` the same
classes run in a ComfyUI checkout's executor, in a subprocess of the same invocation, on a chain of 900 nodes, and the ratio is
printed. ``--check`` exits with 1 unless slope <= 2, bytes of the wide graph <= 2 MB and ratio >= 10.
"""

import argparse
import copy
import json
import os
import pathlib
import subprocess
import sys
import time
import types

from idle_nodes import NODES

HERE = pathlib.Path(__file__).resolve()
CASES = ("first", "cached", "last changed", "first changed")
MAX_SLOPE, MAX_WIDE_BYTES, MIN_RATIO = 2.0, 2_000_000, 10.0
UPSTREAM_LENGTH, WIDTH = 900, 1000


class CountingServer:
    """Stands for the server: keeps what would go out and tells how many bytes of JSON that is."""

    def __init__(self):
        self.client_id = self.last_node_id = self.last_prompt_id = None
        self.sockets_metadata = {}
        self.sent = []

    def send_sync(self, event, data, sid=None):
        self.sent.append((event, data))

    def take_bytes(self):
        """Bytes sent since the last call."""
        sent, self.sent = self.sent, []
        return sum(len(json.dumps({"type": event, "data": data})) for event, data in sent)


def chain(length, first=0, last=0):
    """A chain of *length* nodes into an output node; *first* and *last* are literals at its ends."""
    prompt = {"0": {"class_type": "BenchPass", "inputs": {"value": "seed", "salt": first}}}
    for index in range(1, length):
        prompt[str(index)] = {"class_type": "BenchPass", "inputs": {"value": [str(index - 1), 0], "salt": 0}}
    prompt["end"] = {"class_type": "BenchEnd", "inputs": {"value": [str(length - 1), 0], "salt": last}}
    return prompt


def wide(width, first=0, last=0):
    """*width* nodes side by side into one output node."""
    prompt = {
        str(index): {"class_type": "BenchPass", "inputs": {"value": index, "salt": first if index == 0 else 0}} for index in range(width)
    }
    prompt["end"] = {"class_type": "BenchEnd", "inputs": {**{f"v{index}": [str(index), 0] for index in range(width)}, "salt": last}}
    return prompt


def measure(executor, server, build, size):
    """Seconds and bytes of each case: ``{case: (seconds, bytes)}``. Raises ``RuntimeError`` when a run fails."""
    prompts = (build(size), build(size), build(size, last=1), build(size, first=1, last=1))
    measured = {}
    for case, prompt in zip(CASES, prompts):
        begin_s = time.perf_counter()
        executor.execute(copy.deepcopy(prompt), f"benchmark-{case.replace(' ', '-')}-0123456789abcdef", {"client_id": "benchmark"}, ["end"])
        took_s = time.perf_counter() - begin_s
        if not executor.success:
            raise RuntimeError(f"the run {case!r} of {size} nodes failed: {executor.status_messages[-1]}")
        measured[case] = took_s, server.take_bytes()
    return measured


def run_here():
    """Measure this project's executor: ``{(kind, size): measurement}``."""
    sys.path.insert(0, str(HERE.parent.parent))
    table = types.ModuleType("nodes")
    table.NODE_CLASS_MAPPINGS = NODES
    table.before_node_execution = lambda: None
    table.interrupt_processing = lambda value=True: None
    sys.modules["nodes"] = table
    import execution
    from comfy_execution.nodes_graph.registered_classes import class_source

    class_source.provide(lambda: NODES)

    def fresh(build, size):
        server = CountingServer()
        executor = execution.PromptExecutor(server)
        try:
            return measure(executor, server, build, size)
        finally:
            executor.close()

    fresh(chain, 50)
    measured = {("chain", size): fresh(chain, size) for size in (100, UPSTREAM_LENGTH, 1000, 10_000)}
    measured["wide", WIDTH] = fresh(wide, WIDTH)
    return measured


def run_inside_upstream():
    """In the subprocess: measure the checkout in the working directory and print the result as JSON."""
    sys.path[0] = os.getcwd()
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import execution
    import nodes

    nodes.NODE_CLASS_MAPPINGS.update(NODES)
    server = CountingServer()
    arguments = {"cache_type": execution.CacheType.CLASSIC, "cache_args": {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}}
    measure(execution.PromptExecutor(server, **arguments), server, chain, 20)
    print("RESULT " + json.dumps(measure(execution.PromptExecutor(server, **arguments), server, chain, UPSTREAM_LENGTH)))


def run_upstream(checkout, python, pythonpath):
    """Measure an upstream checkout in a subprocess. Raises ``RuntimeError`` with its output when that fails."""
    environment = {**os.environ, **({"PYTHONPATH": pythonpath} if pythonpath else {})}
    command = [python, str(HERE), "--inside-upstream"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    raise RuntimeError(f"the upstream run ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def print_table(measured):
    """One line per graph and case."""
    print(f"{'graph':>14} {'case':>14} {'seconds':>9} {'us/node':>8} {'ws bytes':>10}")
    for (kind, size), cases in measured.items():
        for case, (took_s, sent_bytes) in cases.items():
            print(f"{kind:>7} {size:6d} {case:>14} {took_s:9.4f} {took_s / size * 1e6:8.1f} {sent_bytes:10d}")


def main():
    """Measure, print, and with ``--check`` judge; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", metavar="CHECKOUT", help="a ComfyUI checkout to measure as well")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that can run the checkout")
    parser.add_argument("--pythonpath", default=os.environ.get("PYTHONPATH"), help="PYTHONPATH for that interpreter")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bound is missed")
    parser.add_argument("--inside-upstream", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside_upstream:
        run_inside_upstream()
        return 0
    measured = run_here()
    print_table(measured)
    verdicts = []
    for case in CASES:
        slope = measured["chain", 10_000][case][0] / measured["chain", 1000][case][0] / 10
        print(f"slope 1,000 -> 10,000, {case}: {slope:.2f}")
        verdicts.append((f"slope of {case!r} <= {MAX_SLOPE}", slope <= MAX_SLOPE))
    wide_bytes = measured["wide", WIDTH]["first"][1]
    verdicts.append((f"{wide_bytes} bytes for {WIDTH} nodes side by side <= {MAX_WIDE_BYTES}", wide_bytes <= MAX_WIDE_BYTES))
    if options.upstream:
        theirs = run_upstream(options.upstream, options.python, options.pythonpath)
        for case in CASES:
            ratio = theirs[case][0] / measured["chain", UPSTREAM_LENGTH][case][0]
            took_s, sent_bytes = theirs[case]
            print(f"chain of {UPSTREAM_LENGTH}, {case}: upstream {took_s:.3f} s and {sent_bytes} bytes; {ratio:.0f} times as long")
            if case == "cached":
                verdicts.append((f"cached re-run {ratio:.0f} times as fast as upstream >= {MIN_RATIO}", ratio >= MIN_RATIO))
    for text, is_met in verdicts:
        print(("met:    " if is_met else "MISSED: ") + text)
    return int(options.check and not all(is_met for _, is_met in verdicts))


if __name__ == "__main__":
    sys.exit(main())
