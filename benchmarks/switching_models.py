"""Twelve prompts over three checkpoints on an accelerator that fits one model at a time: what is read, with and without the RAM cache.

    python benchmarks/switching_models.py --folder DIR [--shrink N] [--check] [--remove]

Three SD 1.5 checkpoints (fp16, 2.1 GB each; ``--shrink`` makes them smaller) are made in DIR when they are not there. A server with
``--simulated-vram-mb`` is asked over HTTP, seeds and texts changing, with room for three models in RAM, for two, and with the cache off.
The reads with room for two are compared with what the policy simulator of ``policy.py`` foretells from the measured sizes and reload times.
At full size it needs 24 GB of RAM less what ``--shrink`` saves, and Linux, for what the server's process read from the disk.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

PROJECT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "tests"), str(PROJECT / "benchmarks")]

from live_server import LiveServer  # noqa: E402
from picture_prompts import text_to_picture  # noqa: E402
from policy import SimulatedCache  # noqa: E402

ORDER = ("a", "b", "c") * 4
PARTS = ("model", "clip", "vae")
IMPORTS_BYTES = 500_000_000  # what a server reads besides, its libraries above all
VRAM_SHARE = 0.85  # of a checkpoint as kept: fits its largest part, but no second one


def prompt(name: str, seed: int) -> dict[str, Any]:
    """Text to picture in one step; text and seed are new each time."""
    return text_to_picture(f"{name}.safetensors", seed, f"house number {seed}", "grey", steps=1)


def make_checkpoints(folder: pathlib.Path, shrink: int) -> list[pathlib.Path]:
    """The three files, made when they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.safetensors" for name in sorted(set(ORDER))]
    for seed, path in enumerate(paths):
        if not path.exists():
            command = [
                sys.executable,
                str(PROJECT / "benchmarks" / "make_checkpoint.py"),
                str(path),
                "--seed",
                str(seed),
                "--shrink",
                str(shrink),
            ]
            subprocess.run(command, check=True)
    return paths


def bytes_read_by(pid: int) -> int:
    """What a process has asked the system to read so far (``rchar``: files in the page cache count as well); whoever keeps the books."""
    lines = pathlib.Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar:")))


def measure(paths: list[pathlib.Path], vram_mb: int, cap_mb: int, seeds: int) -> dict[str, Any]:
    """Run all prompts on a new server with *cap_mb*; what it says it read, took from RAM and moved."""
    with tempfile.TemporaryDirectory() as base:
        checkpoints = pathlib.Path(base) / "models" / "checkpoints"
        checkpoints.mkdir(parents=True)
        for path in paths:
            (checkpoints / path.name).symlink_to(path.resolve())
        server = LiveServer(pathlib.Path(base), "--simulated-vram-mb", str(vram_mb), "--ram-model-cache-mb", str(cap_mb), cold=True)
        try:
            receipts, seconds, at_start = [], [], bytes_read_by(server.process.pid)
            for count, name in enumerate(ORDER):
                started_s = time.perf_counter()
                run = server.run(prompt(name, seeds + count), timeout_s=300)
                seconds.append(time.perf_counter() - started_s)
                if run.history["status"]["status_str"] != "success":
                    raise SystemExit(f"prompt {count} failed: {run.history['status']['messages'][-1]}")
                receipts.append(run.history.get("models", []))
            stats = server.get("/caches")["models"]["stats"]
            read_bytes = bytes_read_by(server.process.pid) - at_start
        finally:
            server.stop()
    tiers = ["".join(receipt["tier"][0] for receipt in each) for each in receipts]
    return {
        "read_bytes": read_bytes,
        "receipts": receipts,
        "tiers": tiers,
        "seconds": seconds,
        "counters": None if stats is None else stats["counters"],
    }


def foretold(found: dict[str, Any], cap_bytes: int) -> list[tuple[set[str], set[str]]]:
    """For each prompt, which parts were read, and which the simulated policy reads from the sizes and reload times on the receipts."""
    cache, pairs = SimulatedCache(cap_bytes), []
    for receipts in found["receipts"]:
        ordered = sorted(receipts, key=lambda receipt: PARTS.index(receipt["model"].split()[0]))
        read = {receipt["model"] for receipt in receipts if receipt["tier"] == "disk"}
        pairs.append((read, cache.ask({receipt["model"]: (receipt["bytes"], receipt["seconds"]) for receipt in ordered})))
    return pairs


def report(title: str, found: dict[str, Any]) -> None:
    """Print one configuration."""
    later = found["seconds"][len(set(ORDER)) :]
    print(
        f"{title}: first three prompts {sum(found['seconds'][:3]) / 3:.2f} s each, later ones {sum(later) / len(later):.2f} s each; "
        f"the process read {found['read_bytes'] / 1e9:.2f} GB"
    )
    if found["counters"] is not None:
        counters = found["counters"]
        print(
            f"  hits {counters['hits']}, misses {counters['misses']}, {counters['read_bytes'] / 1e9:.2f} GB read, "
            f"{counters['vram_evictions']} evictions from the accelerator, evictions from RAM {counters['evictions']}"
        )
        print(f"  tiers per prompt (disk, ram, vram, in use, none): {' '.join(found['tiers'])}")


def main() -> None:
    """Measure the three configurations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--shrink", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--remove", action="store_true")
    given = parser.parse_args()
    paths = make_checkpoints(given.folder, given.shrink)
    kept_mb = 2 * paths[0].stat().st_size / 2**20  # fp16 files are kept in fp32 on the CPU
    vram_mb = max(1, round(kept_mb * VRAM_SHARE))
    three = measure(paths, vram_mb, round(3.2 * kept_mb), 0)
    report("RAM for three", three)
    two_mb = round(2.2 * kept_mb)
    two = measure(paths, vram_mb, two_mb, 100)
    report("RAM for two", two)
    pairs = foretold(two, two_mb << 20)
    print(
        "  parts read per prompt: "
        + " ".join(str(len(read)) for read, _ in pairs)
        + ", foretold by the policy's simulator: "
        + " ".join(str(len(expected)) for _, expected in pairs)
    )
    off = measure(paths, vram_mb, 0, 200)
    report("off", off)
    if given.remove:
        for path in paths:
            path.unlink()
    reads = {tier for tiers in three["tiers"][3:] for tier in tiers}
    broken = [
        text
        for text, holds in (
            ("with room for three, each part is read once", three["counters"]["misses"] == 9 and "d" not in reads),
            ("models leave the accelerator", three["counters"]["vram_evictions"] > 0),
            ("with room for two, fewer parts are read than without a cache", two["counters"]["misses"] < 3 * len(ORDER)),
            (
                "with room for two, the reads are those that the policy's simulator foretells",
                all(read == expected for read, expected in pairs),
            ),
            ("off reads a file for every prompt", off["read_bytes"] > 0.98 * len(ORDER) * paths[0].stat().st_size),
            (
                "with room for three, the process reads no more than each file once",
                three["read_bytes"] < IMPORTS_BYTES + sum(path.stat().st_size for path in paths),
            ),
            ("off keeps no records", off["counters"] is None and not any(off["tiers"])),
        )
        if not holds
    ]
    if given.check and broken:
        raise SystemExit("does not hold: " + "; ".join(broken))


if __name__ == "__main__":
    main()
