"""What a store of weights saves after a kill, and what several servers keep: real servers, real-size models, checked against bounds.

    python benchmarks/model_store.py --folder DIR [--store DIR] [--servers 3] [--check] [--remove]

A checkpoint of SD 1.5's full shape in fp16 (2.1 GB of random weights; 4.0 GB as kept on a CPU, as diffusion model and autoencoder are cast)
is made in DIR when it is not there. Needs Linux, 9 GB of free RAM and a tmpfs with 5 GB (*--store*, default: a folder in /dev/shm).

A loads all parts in a process of its own, cold caches aside, and is killed; others follow. Each loads a small checkpoint first, so that
imports are not measured. "Warm" is a load without a store from a file whose pages are in the page cache. Reads of files are what the
system counts for the process (``rchar`` in /proc/PID/io) while it loads, less what the thread that compares the store's sums in the
background has read of the store meanwhile; how long that thread takes for all parts is a row of its own. The machine's memory is the
store's files plus what each server has for itself of them (``Pss`` of the mappings is asked of all servers at once, so that shared pages
count once).

Bounds (``--check`` fails when one is broken): a hit after the kill under 0.5 s for 4 GB kept, and at least 5 times as fast as the warm load
of the same run; it reads less than 1 % of the file; weights are bit-identical; with all servers the store's pages are there at most 1.1
times.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

PROJECT = pathlib.Path(__file__).resolve().parents[1]
BOUNDS = {
    "hit, s": (float.__lt__, 0.5),
    "warm load / hit": (float.__ge__, 5.0),
    "share of the file read": (float.__lt__, 0.01),
    "copies": (float.__le__, 1.1),
}


# In the processes that load


def read_bytes(who: str = "self") -> int:
    """Bytes that this process, or its thread "self/task/NUMBER", has read by system calls."""
    lines = pathlib.Path(f"/proc/{who}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


class Checks:
    """Starts the threads that compare a store's sums as the store does, and knows what they read and how long they took."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._running: dict[int, None] = {}
        self._ended_bytes, self.seconds = 0, 0.0
        self._lock = threading.Lock()

    def start(self, run: Callable[[], None]) -> None:
        """Run *run* in a thread of its own."""
        self._threads.append(threading.Thread(target=self._run, args=(run,), daemon=True))
        self._threads[-1].start()

    def _run(self, run: Callable[[], None]) -> None:
        number, began_s = threading.get_native_id(), time.perf_counter()
        self._running[number] = None
        run()
        with self._lock:
            del self._running[number]
            self._ended_bytes += read_bytes(f"self/task/{number}")
            self.seconds += time.perf_counter() - began_s

    def read_bytes(self) -> int:
        """What they have read so far."""
        with self._lock:
            return self._ended_bytes + sum(read_bytes(f"self/task/{number}") for number in self._running)

    def wait(self) -> None:
        """Until all have ended."""
        for thread in self._threads:
            thread.join()


def digest_of(parts: tuple[object, ...]) -> str:
    """A digest of every bit of every weight."""
    import torch

    digest = hashlib.blake2b()
    for part in parts:
        for name, weight in sorted(getattr(part, "patcher", part).model.state_dict().items()):
            raw = weight.detach().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(raw.numpy().data)
    return digest.hexdigest()


def load(path: str, small: str, store: str) -> None:
    """Load *path* with the *store* ("" for none), say what it took, and wait to be killed; look at every weight when a line comes."""
    sys.path.insert(0, str(PROJECT))
    sys.argv = [sys.argv[0], "--cpu", "--ram-model-cache-mb", "12000", *(["--ram-model-store", store] if store else [])]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args

    comfy.cli_args.parse()
    import comfy.model_management as management
    import comfy.sd

    checks, opened = Checks(), management.process_models().open_store()
    if opened is not None:
        opened.checker.start_thread = checks.start
    comfy.sd.load_checkpoint_guess_config(small)
    before_bytes, began_s = read_bytes() - checks.read_bytes(), time.perf_counter()
    parts = comfy.sd.load_checkpoint_guess_config(path)[:3]
    seconds = time.perf_counter() - began_s
    taken_bytes = read_bytes() - checks.read_bytes() - before_bytes
    checks.wait()
    receipts = management.ram_cache().receipts(None)[3:]
    kept_bytes = sum(receipt["bytes"] for receipt in receipts)
    tiers = [receipt["tier"] for receipt in receipts]
    checked = {"checked_s": checks.seconds, "checked_bytes": checks.read_bytes()}
    print(json.dumps({"seconds": seconds, "read": taken_bytes, "kept": kept_bytes, "tiers": tiers, **checked}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"weights": digest_of(parts)}), flush=True)


# In the process that reports


class Loader:
    """A process that has loaded the model; ``said`` is what it told."""

    def __init__(self, path: str, small: str, store: str) -> None:
        command = [sys.executable, str(pathlib.Path(__file__).resolve()), "--load", path, small, store]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
        self.said = self._next()

    def _next(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that loads ended with {self.process.wait()}")
        return json.loads(line)

    def weights(self) -> str:
        """Have it look at every weight; the digest of all."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._next()["weights"]

    def pss_bytes(self, folder: str) -> int:
        """Its share of the memory of the files in *folder*, each page divided by those who map it."""
        total, inside = 0, False
        for line in pathlib.Path(f"/proc/{self.process.pid}/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                inside = folder in line
            elif inside and line.startswith("Pss:"):
                total += 1024 * int(line.split()[1])
        return total

    def kill(self) -> None:
        """End it as the system does when memory runs out."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def make_files(folder: pathlib.Path) -> tuple[str, str]:
    """The paths of the checkpoint and of a small one, made where they are missing."""
    sys.path.insert(0, str(PROJECT))
    from benchmarks import make_checkpoint

    paths = []
    for name, sizes, metadata in (
        ("store-checkpoint", make_checkpoint.family("sd15"), {}),
        ("store-small", make_checkpoint.family("sd15", 5), make_checkpoint.family("sd15", 5).metadata()),
    ):
        path = str(folder / f"{name}.safetensors")
        if not os.path.exists(path):
            print(f"making {path}", flush=True)
            layout = make_checkpoint.checkpoint_layout(sizes, make_checkpoint.PARTS)
            make_checkpoint.write_checkpoint(path, layout, 0, "fp16", metadata=metadata)
        paths.append(path)
    return paths[0], paths[1]


def warm(path: str) -> None:
    """Have the whole file in the page cache."""
    with open(path, "rb", buffering=0) as file:
        while file.read(8 << 20):
            pass


class Report:
    """Prints rows of a table and remembers which broke a bound."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        print("| what | measured | bound |\n| --- | --- | --- |")

    def row(self, what: str, text: str, **bounded: float) -> None:
        """One row; *bounded* names bounds (spaces as ``_``) and values held against them."""
        verdicts = []
        for name, value in bounded.items():
            title = next(one for one in BOUNDS if re.sub(r"\W+", "_", one) == name)
            compare, limit = BOUNDS[title]
            met = compare(float(value), limit)
            verdicts.append(f"{title}: {value:.3g} ({limit:g}{'' if met else ', BROKEN'})")
            if not met:
                self.broken.append(f"{what}: {verdicts[-1]}")
        print(f"| {what} | {text} | {'; '.join(verdicts)} |", flush=True)


def measure(path: str, small: str, store: str, servers: int, report: Report) -> None:
    """All rows."""
    warm(path)
    plain = Loader(path, small, "")
    weights = plain.weights()
    plain.kill()
    report.row("warm load without a store", f"{plain.said['seconds']:.2f} s, {plain.said['kept'] / 1e9:.2f} GB kept")
    warm(path)
    first = Loader(path, small, store)
    first.kill()
    report.row("warm load that fills the store", f"{first.said['seconds']:.2f} s")
    running = [Loader(path, small, store) for _ in range(servers)]
    try:
        for number, one in enumerate(running):
            said = one.said
            identical = one.weights() == weights and said["tiers"] == ["store"] * 3
            if not identical:
                report.broken.append(f"server {number}: not from the store, or other weights: {said['tiers']}")
            report.row(
                f"{'after the kill, server' if number == 0 else 'server'} {number + 1}",
                f"{said['seconds']:.3f} s for {said['kept'] / 1e9:.2f} GB, {said['read'] / 1e6:.2f} MB read, weights "
                f"{'bit-identical' if identical else 'OTHERS'}",
                hit_s=said["seconds"],
                warm_load_hit=plain.said["seconds"] / said["seconds"],
                share_of_the_file_read=said["read"] / os.path.getsize(path),
            )
        checked = [f"{one.said['checked_s']:.2f} s for {one.said['checked_bytes'] / 1e9:.2f} GB" for one in running]
        report.row("comparing the sums in the background", ", ".join(checked))
        stored = sum(file.stat().st_blocks * 512 for file in pathlib.Path(store).iterdir())
        together = sum(one.pss_bytes(store) for one in running)
        report.row(
            f"{servers} servers that have touched all of it",
            f"{together / 1e9:.2f} GB of {stored / 1e9:.2f} GB stored, shared pages once; {servers} private copies would be "
            f"{servers * plain.said['kept'] / 1e9:.1f} GB",
            copies=together / plain.said["kept"],
        )
    finally:
        for one in running:
            one.kill()


def main() -> None:
    """Read the command line, measure and print the table."""
    if sys.argv[1:2] == ["--load"]:
        load(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True, type=pathlib.Path, help="where the model files are or are made")
    parser.add_argument("--store", default="", help="an empty folder of a tmpfs (default: one made in /dev/shm, and removed)")
    parser.add_argument("--servers", type=int, default=3, help="how many load at once in the end")
    parser.add_argument("--check", action="store_true", help="fail when a bound is broken")
    parser.add_argument("--remove", action="store_true", help="delete the model files at the end")
    given = parser.parse_args()
    paths = make_files(given.folder)
    report = Report()
    store = given.store or tempfile.mkdtemp(prefix="keepwarm-benchmark-", dir="/dev/shm")
    try:
        measure(*paths, store, given.servers, report)
    finally:
        if not given.store:
            shutil.rmtree(store)
    for path in paths if given.remove else ():
        os.remove(path)
    if given.check and report.broken:
        sys.exit("\n".join(["bounds are broken:", *report.broken]))


if __name__ == "__main__":
    main()
