"""What loading a model again costs: from the RAM model cache, from the page cache and from the disk; checked against bounds.

    python benchmarks/model_reload.py --folder DIR [--only hits,memory,reads,cast] [--upstream CHECKOUT --python PYTHON
        --pythonpath DIR] [--check] [--remove]

Two files are made in DIR when they are not there: a checkpoint of SD 1.5's full shape in fp16 (2.1 GB; on a CPU it is kept in fp32, so
reading it casts), and a diffusion model of SDXL's widths with 6 instead of 10 transformer layers at the lowest resolution in fp32
(6.9 GB; kept as it is. The full depth, 10.3 GB, would not leave room for file, model and reference side by side in 24 GB).
Needs Linux, 16 GB of free RAM and 9 GB of disk. Every row is measured in processes of its own; "cold" means that the file's pages were
dropped from the page cache just before (``posix_fadvise``). Reads are compared in memory that is there: both sides take over what the read
before left, as a load in the server takes over what was dropped for it. What fresh memory costs has rows of its own, because that is the
machine's affair: a virtual one was seen to take 0.4 and 44 ns for a byte within a minute.

Bounds (``--check`` fails when one is broken): a hit costs less than 5 ms; reading at no less than 90 % of the rate that plain parallel
reads reach in the same run, cold and warm, median of 5 interleaved pairs; a load that casts is at least as fast as
upstream's, the first one in a process and another after the first was dropped; a load's peak of resident memory is at most 1.1 times
what is kept; after an eviction at least 95 % of the bytes are back.
"""

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

PROJECT = pathlib.Path(__file__).resolve().parents[1]
UNET_PREFIX = "model.diffusion_model."
PAIRS, HITS, CAST_ROUNDS = 5, 50, 5
CHUNK_BYTES = 8 << 20
FRESH_BYTES, FRESH_PAUSE_S = 4_300_000_000, 6.0
BOUNDS = {
    "hit, ms": (float.__lt__, 5.0),
    "share of the plain reads' rate": (float.__ge__, 0.9),
    "upstream's time / ours": (float.__ge__, 1.0),
    "peak / kept": (float.__le__, 1.1),
    "given back / kept": (float.__ge__, 0.95),
}


# In the processes that measure


def load_project() -> None:
    """Make the current directory's ``comfy`` importable, on the CPU."""
    sys.path.insert(0, os.getcwd())
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args

    if hasattr(comfy.cli_args, "parse"):
        comfy.cli_args.parse()


def set_page_cache(path: str, warm: bool) -> None:
    """Have all of *path* in the page cache, or nothing."""
    number = os.open(path, os.O_RDONLY)
    try:
        if not warm:
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            return
        buffer = bytearray(CHUNK_BYTES)
        for position in range(0, os.fstat(number).st_size, CHUNK_BYTES):
            os.preadv(number, [buffer], position)
    finally:
        os.close(number)


def plain_parallel_read(path: str, start: int, stop: int, threads: int) -> float:
    """The reference: bytes *start* to *stop* by positional reads of 8 MB into the spare memory, which must be large enough; nothing else.

    Returns the time when all was read.
    """
    from comfy.weight_files.spare_memory import spare_memory

    memory, there_bytes = spare_memory().take(spare_memory().total_bytes())  # as it is: resizing it would cost the next read
    if there_bytes < stop - start:
        raise RuntimeError("not what was to be measured: the memory of the read before it is gone")
    number = os.open(path, os.O_RDONLY)
    view = memoryview(memory)

    def read(first: int) -> None:
        last = min(first + CHUNK_BYTES, stop)
        while first < last:
            first += os.preadv(number, [view[first - start : last - start]], first)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(start, stop, CHUNK_BYTES)))
    result = time.perf_counter()
    view.release()
    spare_memory().give(memory)
    os.close(number)
    return result


def seconds_of(run: Callable[[], object]) -> float:
    """Wall time until *run* has its result; throwing that away does not count."""
    gc.collect()
    started = time.perf_counter()
    result = run()
    ended = result if isinstance(result, float) else time.perf_counter()
    del result
    return ended - started


def probe_reads(path: str, warm: bool) -> dict[str, object]:
    """Interleaved pairs: the plain reads, and all that a miss does to get its bytes (header, residency, arena, reads, dropping pages)."""
    load_project()
    from comfy.weight_files.reader import READ_THREADS, WeightReader, read_header

    entries = {key: entry for key, entry in read_header(path).entries.items() if key.startswith(UNET_PREFIX)}
    start, stop = min(entry.start for entry in entries.values()), max(entry.stop for entry in entries.values())
    if stop - start != sum(entry.stop - entry.start for entry in entries.values()):
        raise ValueError(f"{path}: the diffusion model's tensors do not lie together")

    def own() -> dict[str, object]:
        with WeightReader(path, drop_pages=True) as reader:
            return reader.read(entries)

    kinds = {"plain": lambda: plain_parallel_read(path, start, stop, READ_THREADS), "own": own}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    own()  # leaves the memory that all the others take over in turn
    for number in range(PAIRS):
        for name in sorted(kinds, reverse=number % 2 == 1):
            set_page_cache(path, warm)
            seconds[name].append(seconds_of(kinds[name]))
    return {"bytes": stop - start, "threads": READ_THREADS, **seconds}


def load_parts(path: str) -> dict[str, object]:
    """Everything in the file, by the loaders that nodes call."""
    import comfy.sd

    if "unet" in os.path.basename(path):
        return {"model": comfy.sd.load_diffusion_model(path)}
    return dict(zip(("model", "clip", "vae"), comfy.sd.load_checkpoint_guess_config(path)))


def probe_load(path: str, warm: bool, small: str) -> dict[str, object]:
    """A whole load in a process of whichever project the current directory is, and another one after the first was dropped.

    *small*, loaded before (or refused: upstream knows families only at full size), brings the imports in.
    """
    load_project()
    with contextlib.suppress(RuntimeError):
        load_parts(small)
    seconds, kept = [], 0
    for _ in range(2):
        gc.collect()
        set_page_cache(path, warm)
        started = time.perf_counter()
        parts = load_parts(path)
        seconds.append(time.perf_counter() - started)
        modules = [getattr(part, "patcher", part).model for part in parts.values()]
        kept = sum(tensor.nbytes for module in modules for tensor in module.parameters())
        parts = modules = None
    return {"seconds": seconds[0], "again": seconds[1], "kept": kept}


def probe_fresh() -> dict[str, float]:
    """What fresh memory costs by itself: at the start, just after as much was given back, and a while after that.

    A virtual machine may hand free memory to its host within seconds, and must ask for it again.
    """
    load_project()
    from comfy.weight_files.fresh_memory import FreshMemory
    from comfy.weight_files.spare_memory import spare_memory

    found = {}
    for when, pause_s in (("at first", 0.0), ("just after it was given back", 0.0), (f"{FRESH_PAUSE_S:.0f} s later", FRESH_PAUSE_S)):
        spare_memory().release()
        time.sleep(pause_s)
        started = time.perf_counter()
        FreshMemory(FRESH_BYTES).tensor.zero_()
        found[when] = time.perf_counter() - started
    return found


def resident_bytes(peak: bool = False) -> int:
    """This process's resident memory now, or its peak since the last reset."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def probe_cache(path: str, small: str) -> dict[str, object]:
    """One miss through the cache, its peak memory; many hits; an eviction. *small*, loaded before, brings the imports and the heap in."""
    load_project()
    from comfy.ram_model_cache.cache import CacheSettings, RamModelCache
    from comfy.ram_model_cache.storage import host_storages, patcher_of
    from comfy.ram_model_cache.weights_key import weights_key
    from comfy.residency.model_cache import CacheOwner

    load_parts(small)
    cache = RamModelCache(CacheSettings(64 << 30, headroom_bytes=0), CacheOwner().hooks())
    components = ("model",) if "unet" in os.path.basename(path) else ("model", "clip", "vae")

    def fetch() -> dict[object, object]:
        keys = {weights_key(name, [path], {"device": "cpu"}): name for name in components}
        return cache.fetch(dict.fromkeys(keys, os.path.getsize(path)), lambda missing: dict(zip(missing, load_parts(path).values())))

    gc.collect()
    before = resident_bytes()
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    started = time.perf_counter()
    found = fetch()
    miss_seconds = time.perf_counter() - started
    peak = resident_bytes(peak=True) - before
    kept = sum(size for value in found.values() for size in host_storages(patcher_of(value)).values())
    hits = []
    for _ in range(HITS):
        found = None
        started = time.perf_counter()
        found = fetch()
        hits.append(time.perf_counter() - started)
    counters = cache.stats().counters
    if (counters.hits, counters.misses) != (HITS * len(components), len(components)):
        raise RuntimeError(f"not what was to be measured: {counters}")
    found = None
    full = resident_bytes()
    cache.clear("measured")
    given_back = full - resident_bytes()
    cache.close()
    return {"miss": miss_seconds, "hits": hits, "kept": kept, "peak": peak, "given back": given_back, "process": before}


# In the process that reports


def make_files(folder: pathlib.Path) -> dict[str, str]:
    """Paths of the two files and a small one, made where they are missing."""
    sys.path.insert(0, str(PROJECT))
    from benchmarks import make_checkpoint

    sd15, small = make_checkpoint.family("sd15"), make_checkpoint.family("sd15", 5)
    six = dataclasses.replace(
        make_checkpoint.UNETS["sdxl"], depths=(0, 0, 2, 2, 6, 6), output_depths=(0, 0, 0, 2, 2, 2, 6, 6, 6), middle_depth=6
    )
    parts = {
        "checkpoint": (sd15, make_checkpoint.PARTS, "fp16", {}),
        "small": (small, make_checkpoint.PARTS, "fp16", small.metadata()),
        "unet": (dataclasses.replace(sd15, unet=six), ("unet",), "fp32", {}),
    }
    paths = {}
    for name, (sizes, wanted, dtype, metadata) in parts.items():
        paths[name] = str(folder / f"reload-{name}.safetensors")
        if not os.path.exists(paths[name]):
            print(f"making {paths[name]}", flush=True)
            make_checkpoint.write_checkpoint(paths[name], make_checkpoint.checkpoint_layout(sizes, wanted), 0, dtype, metadata=metadata)
            os.sync()
    return paths


def measure(probe: str, *arguments: object, tree: str = str(PROJECT), python: str = sys.executable, pythonpath: str = "") -> dict:
    """What *probe* says, in a process of its own. Raises ``CalledProcessError`` when it fails."""
    command = [python, str(pathlib.Path(__file__).resolve()), "--probe", probe, *map(str, arguments)]
    done = subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": pythonpath}, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


class Report:
    """Prints rows of a table and remembers which broke a bound."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        print("| what | measured | bound |\n| --- | --- | --- |")

    def row(self, what: str, text: str, bound: str = "", value: float = 0.0) -> None:
        """One row; *value* is held against the bound named *bound*."""
        verdict = ""
        if bound:
            compare, limit = BOUNDS[bound]
            met = compare(float(value), limit)
            verdict = f"{bound}: {value:.3g} ({limit:g}{'' if met else ', BROKEN'})"
            if not met:
                self.broken.append(f"{what}: {verdict}")
        print(f"| {what} | {text} | {verdict} |", flush=True)


def report_cache(paths: dict[str, str], report: Report, only: list[str]) -> None:
    """Rows about hits and memory."""
    for name in ("checkpoint", "unet"):
        figures = measure("cache", paths[name], paths["small"])
        kept = figures["kept"] / 1e9
        if "hits" in only:
            median, longest = statistics.median(figures["hits"]) * 1000, max(figures["hits"]) * 1000
            report.row(
                f"hit, {name}, {kept:.2f} GB kept",
                f"median {median:.2f} ms of {HITS}, longest {longest:.2f} ms; the miss took {figures['miss']:.2f} s",
                "hit, ms",
                median,
            )
        if "memory" in only:
            text = f"{figures['peak'] / 1e9:.3f} GB above the {figures['process'] / 1e9:.2f} GB of the process, {kept:.3f} GB kept"
            report.row(f"peak of a load, {name}", text, "peak / kept", figures["peak"] / figures["kept"])
            report.row(
                f"eviction, {name}",
                f"{figures['given back'] / 1e9:.3f} GB given back",
                "given back / kept",
                figures["given back"] / figures["kept"],
            )


def report_reads(paths: dict[str, str], report: Report) -> None:
    """Rows about misses whose kept dtype is the file's."""
    for name in ("checkpoint", "unet"):
        for warm in (False, True):
            kind = "warm" if warm else "cold"
            figures = measure("reads", paths[name], int(warm))
            ratios = [plain / own for plain, own in zip(figures["plain"], figures["own"])]
            rates = {side: figures["bytes"] / 1e9 / statistics.median(figures[side]) for side in ("plain", "own")}
            report.row(
                f"reading as it is, {name}'s {figures['bytes'] / 1e9:.1f} GB, {kind}",
                f"{rates['own']:.2f} GB/s, plain reads {rates['plain']:.2f} GB/s, {figures['threads']} threads; pair by pair "
                + ", ".join(f"{ratio:.2f}" for ratio in ratios),
                "share of the plain reads' rate",
                statistics.median(ratios),
            )
    for warm in (False, True):
        figures = measure("load", paths["unet"], int(warm), paths["small"])
        report.row(f"whole loader, unet, {'warm' if warm else 'cold'}", f"{figures['seconds']:.2f} s, {figures['kept'] / 1e9:.2f} GB kept")


def report_cast(paths: dict[str, str], report: Report, upstream: dict[str, str] | None) -> None:
    """Rows about a miss that casts: whole loaders, this project's and upstream's, in turn."""
    for warm in (False, True):
        sides: dict[str, list[dict]] = {"ours": [], "upstream's": []}
        for number in range(CAST_ROUNDS):
            for side in sorted(sides, reverse=number % 2 == 1):
                if side == "ours" or upstream:
                    more = upstream if side != "ours" else {}
                    sides[side].append(measure("load", paths["checkpoint"], int(warm), paths["small"], **more))
        for key, when in (("seconds", ""), ("again", ", again after the first was dropped")):
            what = f"whole loader with a cast, checkpoint, {'warm' if warm else 'cold'}{when}"
            medians = {side: statistics.median(run[key] for run in runs) for side, runs in sides.items() if runs}
            text = "; ".join(
                f"{side} {medians[side]:.2f} s (" + ", ".join(f"{run[key]:.2f}" for run in runs) + f"), {runs[0]['kept'] / 1e9:.2f} GB kept"
                for side, runs in sides.items()
                if runs
            )
            if upstream:
                report.row(what, text, "upstream's time / ours", medians["upstream's"] / medians["ours"])
            else:
                report.row(what, text)
    report.row(
        f"touching {FRESH_BYTES / 1e9:.1f} GB of memory for the first time",
        ", ".join(f"{seconds:.2f} s {when}" for when, seconds in measure("fresh", "").items()),
    )


def main() -> None:
    """Read the command line, measure and print the table."""
    if sys.argv[1:2] == ["--probe"]:
        name, path, *rest = sys.argv[2:]
        probes = {
            "reads": lambda: probe_reads(path, rest[0] == "1"),
            "load": lambda: probe_load(path, rest[0] == "1", rest[1]),
            "fresh": probe_fresh,
            "cache": lambda: probe_cache(path, rest[0]),
        }
        print(json.dumps(probes[name]()))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True, type=pathlib.Path, help="where the model files are or are made")
    parser.add_argument("--only", default="hits,memory,reads,cast", help="which rows")
    parser.add_argument("--upstream", help="a ComfyUI checkout to compare with")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs it")
    parser.add_argument("--pythonpath", default="", help="PYTHONPATH for it")
    parser.add_argument("--check", action="store_true", help="fail when a bound is broken")
    parser.add_argument("--remove", action="store_true", help="delete the files at the end")
    given = parser.parse_args()
    only = given.only.split(",")
    paths = make_files(given.folder)
    report = Report()
    if "hits" in only or "memory" in only:
        report_cache(paths, report, only)
    if "reads" in only:
        report_reads(paths, report)
    if "cast" in only:
        other = {"tree": given.upstream, "python": given.python, "pythonpath": given.pythonpath}
        report_cast(paths, report, other if given.upstream else None)
    for path in paths.values() if given.remove else ():
        os.remove(path)
    if given.check and report.broken:
        sys.exit("\n".join(["bounds are broken:", *report.broken]))


if __name__ == "__main__":
    main()
