"""The tests that need a card."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.results import Figure

ROOT = pathlib.Path(__file__).resolve().parents[2]
OWN_TEST = ROOT / "tests-unit" / "pretend_card" / "test_gpu_benchmark.py"
MARK = "mark.gpu"
LIMIT_S = 110


def files_with_marked_tests() -> list[str]:
    """The test files in which a test is marked ``gpu``; collecting all of them would take longer than running these."""
    found = [path for folder in ("tests-unit", "tests") for path in sorted((ROOT / folder).rglob("test_*.py")) if path != OWN_TEST]
    return [str(path.relative_to(ROOT)) for path in found if MARK in path.read_text(encoding="utf-8")]


def marked_tests(bench: Bench) -> dict[str, Figure]:
    """How many tests marked ``gpu`` passed, failed and were skipped; on a pretend card all of them are skipped."""
    bench.unload()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files_with_marked_tests()]
    limit_s = LIMIT_S * (5 if bench.pretends else 1)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s, check=False)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    if not counts:
        raise RuntimeError(f"pytest said nothing of tests: {done.stdout[-300:]} {done.stderr[-300:]}")
    if done.returncode:
        print(done.stdout, file=sys.stderr)
    return {
        "passed": Figure(counts.get("passed", 0), "", at_least=1),
        "failed": Figure(counts.get("failed", 0) + counts.get("error", 0), "", at_most=0, is_exact=True),
        "skipped": Figure(counts.get("skipped", 0)),
    }
