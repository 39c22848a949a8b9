"""Process start until /system_stats answers, here and, with ``--upstream``, in a ComfyUI checkout, in turn in one run.

python benchmarks/startup.py [--upstream CHECKOUT --python PYTHON] [--rounds 5]
"""

import argparse
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

PROJECT = pathlib.Path(__file__).resolve().parents[1]
TIMEOUT_S = 120


def seconds_to_answer(python: str, root: pathlib.Path, base: pathlib.Path) -> float:
    """Start a server of *root* with an empty base directory, and stop it once it has answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name in ("models", "input", "output", "user", "custom_nodes"):
        (base / name).mkdir(parents=True, exist_ok=True)
    command = [python, str(root / "main.py"), "--cpu", "--port", str(port), "--base-directory", str(base)]
    started_s = time.perf_counter()
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - started_s < TIMEOUT_S:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/system_stats", timeout=5).read()
                return time.perf_counter() - started_s
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"{root} ended with {process.returncode} before it answered") from None
                time.sleep(0.02)
        raise SystemExit(f"{root} did not answer within {TIMEOUT_S} s")
    finally:
        process.terminate()
        process.wait(30)


def main() -> int:
    """Measure in turn; print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable, help="the Python that runs the upstream checkout")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        for _ in range(given.rounds):
            ours.append(seconds_to_answer(sys.executable, PROJECT, base / "ours"))
            if given.upstream:
                theirs.append(seconds_to_answer(given.python, given.upstream.resolve(), base / "upstream"))
    print(f"keepwarm  median {statistics.median(ours):.2f} s  ({', '.join(f'{value:.2f}' for value in ours)})")
    if theirs:
        print(f"upstream  median {statistics.median(theirs):.2f} s  ({', '.join(f'{value:.2f}' for value in theirs)})")
        print(f"ratio     {statistics.median(a / b for a, b in zip(ours, theirs)):.2f} (pair by pair, median)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
