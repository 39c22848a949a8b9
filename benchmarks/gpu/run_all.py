"""Measures this project on a card, in at most nine minutes, and holds the figures against bounds.

    python benchmarks/gpu/run_all.py [--out results.json] [--check] [--upstream CHECKOUT [--python PYTHON] [--pythonpath DIR]] [--pretend]

Needs a card, torch and this tree. Files with random weights of real shapes are written to a folder of its own (``--folder``; by default a
temporary one, removed at the end), the largest that disk, host and card have room for by half. Parts run one after the other in a process
of their own; when that ends by a fault, or a part takes too long, the next part gets a new one. After each part the results are written;
started again with the same ``--out`` it goes on with what is missing (``--again PART`` measures one anew). ``--pretend`` plays a card on
the CPU with small files, to see that everything runs: its times mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.results import Results  # noqa: E402

TIME_S = 540.0
PRETEND_FACTOR = 6  # how much longer parts may take on a pretend card
LEFT_S = 5.0  # for the table
START_S = 60.0  # until the first part begins


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """*function* of the module *module* beside this file measures it, in at most *limit_s* seconds on a card."""

    name: str
    module: str
    function: str
    limit_s: float


PARTS = (
    Part("rates", "transfer_parts", "rates", 40),
    Part("page-locking", "transfer_parts", "page_locking", 40),
    Part("correctness", "compute_parts", "correctness", 120),
    Part("reclaiming", "transfer_parts", "reclaim", 120),
    Part("hit to first step", "transfer_parts", "first_step", 90),
    Part("sending early", "transfer_parts", "sending_early", 60),
    Part("streaming", "compute_parts", "streaming", 90),
    Part("steps", "compute_parts", "steps", 150),
    Part("switching", "transfer_parts", "switching", 120),
    Part("marked tests", "marked_tests", "marked_tests", 120),
    Part("compiling", "compute_parts", "compiled", 120),
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu-results.json"), help="the file of results")
    made.add_argument("--folder", type=pathlib.Path, help="where files with random weights are kept")
    made.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts alone")
    made.add_argument("--again", nargs="+", default=[], choices=[part.name for part in PARTS], help="measure these anew")
    made.add_argument("--check", action="store_true", help="end with status 1 when a bound is not met or a part failed")
    made.add_argument("--pretend", action="store_true", help="play a card on the CPU; times mean nothing")
    made.add_argument("--upstream", help="a ComfyUI checkout to compare steps with")
    made.add_argument("--python", default=sys.executable, help="the interpreter for it")
    made.add_argument("--pythonpath", default="", help="PYTHONPATH for it")
    made.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    return made


def setting(pretends: bool) -> dict[str, object]:
    """What results belong to: the card, torch, and the tree."""
    code = "import torch; print(torch.__version__, torch.version.cuda); print(torch.cuda.is_available() and torch.cuda.get_device_name(0))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "pretends": pretends,
        "card": "none: played on the CPU, times mean nothing" if pretends else said[1],
        "torch": said[0],
        "python": platform.python_version(),
        "commit": commit,
    }


def measure(asked: argparse.Namespace) -> None:
    """Run the parts ``--inside`` in this process, noting each before it begins on standard output."""
    sys.argv = [sys.argv[0], *(["--disable-cuda-malloc"] if asked.pretend else [])]
    results, folder = Results(asked.out, json.loads(asked.out.read_text(encoding="utf-8"))["setting"]), asked.folder
    import comfy.options

    comfy.options.enable_args_parsing()
    from app.running.environment import set_environment
    from comfy.cli_args import args

    set_environment(args)
    from benchmarks.gpu.bench import Bench, card

    upstream = {"checkout": asked.upstream, "python": asked.python, "pythonpath": asked.pythonpath} if asked.upstream else None
    with card(asked.pretend, ROOT):
        bench = Bench(folder, asked.pretend, upstream)
        if not args.ram_model_cache_mb:  # room for two models
            args.ram_model_cache_mb = 4 * bench.choice.file_bytes() // (1 << 20) + 512
        for part in (part for part in PARTS if part.name in asked.inside):
            print(f"begin {part.name}", flush=True)
            started_s = time.perf_counter()
            try:
                function = getattr(importlib.import_module(f"benchmarks.gpu.{part.module}"), part.function)
                results.keep(part.name, function(bench), time.perf_counter() - started_s)
            except Exception as error:  # the next part may still say something
                traceback.print_exc()
                results.fail(part.name, f"{type(error).__name__}: {error}"[:300])
            bench.unload()


def run_parts(asked: argparse.Namespace, wanted: list[Part], results: Results, until_s: float) -> None:
    """Measure *wanted* before *until_s* on the monotonic clock, in as few processes as faults allow."""
    waiting = list(wanted)
    while waiting:
        command = [sys.executable, str(pathlib.Path(__file__).resolve()), "--out", str(asked.out), "--folder", str(asked.folder)]
        command += ["--pretend"] * asked.pretend
        command += ["--upstream", asked.upstream, "--python", asked.python, "--pythonpath", asked.pythonpath] if asked.upstream else []
        child = subprocess.Popen([*command, "--inside", *(part.name for part in waiting)], stdout=subprocess.PIPE, text=True)
        running, why = follow(child, waiting, until_s, PRETEND_FACTOR if asked.pretend else 1)
        results.refresh()
        if why and running is not None:
            results.fail(running.name, why)
        finished = {part.name for part in waiting[: waiting.index(running) + 1]} if running is not None else {waiting[0].name}
        if running is None:
            results.fail(waiting[0].name, why or "the process ended before it began")
        waiting = [part for part in waiting if part.name not in finished]
        if time.monotonic() > until_s:
            for part in waiting:
                results.fail(part.name, "not begun: the time is over")
            return


def follow(child: subprocess.Popen[str], parts: list[Part], until_s: float, factor: float = 1) -> tuple[Part | None, str]:
    """Watch *child* measure *parts*, for *factor* times their limits: the last one it began, and why it did not end well ("": it did)."""
    import queue
    import threading

    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    running, deadline_s = None, min(until_s, time.monotonic() + START_S * factor)
    while True:
        try:
            line = lines.get(timeout=max(0.1, deadline_s - time.monotonic()))
        except queue.Empty:
            child.kill()
            child.wait()
            return running, "it took too long"
        if line is None:
            status = child.wait()
            return running, f"the process ended with status {status}" if status else ""
        if line.startswith("begin "):
            running = next(part for part in parts if part.name == line.removeprefix("begin ").strip())
            print(f"{running.name} …", flush=True)
            deadline_s = min(until_s, time.monotonic() + running.limit_s * factor)


def main() -> int:
    """Measure what is missing, print the table; the exit status."""
    asked = parser().parse_args()
    asked.out = asked.out.resolve()
    if asked.inside:
        measure(asked)
        return 0
    until_s = time.monotonic() + TIME_S * (PRETEND_FACTOR if asked.pretend else 1) - LEFT_S
    results = Results(asked.out, setting(asked.pretend))
    wanted = [part for part in PARTS if part.name in (asked.only or part.name)]
    wanted = [part for part in wanted if part.name in asked.again or part.name not in results.done()]
    with tempfile.TemporaryDirectory(prefix="gpu-files-") as temporary:
        asked.folder = (asked.folder or pathlib.Path(temporary)).resolve()
        asked.folder.mkdir(parents=True, exist_ok=True)
        run_parts(asked, wanted, results, until_s)
    print(results.table())
    if asked.pretend:
        print("\nThe card was played by the CPU: the times above mean nothing.")
    broken = results.broken()
    for words in broken:
        print(f"not met: {words}")
    return 1 if asked.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())
