"""Compare pictures with an upstream ComfyUI checkout, over HTTP: the same checkpoint, prompts and number of threads.

    python benchmarks/picture_parity.py --upstream CHECKOUT --checkpoint FILE [--python PYTHON] [--pythonpath DIR]
        [--lora FILE] [--controlnet FILE] [--embedding FILE] [--size 64] [--steps 3] [--only TEXT] [--keep FOLDER] [--speed]

Both servers run with ``--cpu`` on the loopback address, one after the other or ``--together``, in base directories that link the files.
With ``--keep`` and ``--minutes`` a run may stop early (status 3) and, started again with ``--resume``, go on. A table says per
picture, in 1/255: mean and largest absolute difference; of upstream's picture the standard deviation, the mean difference to another
seed (of cases that others build on; ``--every-seed`` for all) and to the plain picture, without the feature. Ends with status 1 when a
mean difference is over 2, or upstream's pictures are too flat or too alike (under 20) to show anything. ``--speed`` instead starts both
at once and times sampling in alternating pairs.
"""

import argparse
import dataclasses
import io
import json
import math
import pathlib
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import picture_cases
from picture_cases import CHECKPOINT, Case
from picture_servers import PROMPT_TIMEOUT_S, Server, Side

PROJECT = pathlib.Path(__file__).resolve().parents[1]
BOUND, LEAST_SPREAD = 2.0, 20.0
SEED, OTHER_SEED = 20, 21


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What one comparison found, in 1/255; ``other_seed`` and ``effect`` (the difference to no feature) are None where not drawn."""

    name: str
    mean: float
    largest: float
    spread: float
    other_seed: float | None
    effect: float | None

    @property
    def holds(self) -> bool:
        """Whether the pictures are equal within the bound and the reference is one that can show a difference."""
        return self.mean <= BOUND and self.spread >= LEAST_SPREAD and (self.other_seed is None or self.other_seed >= LEAST_SPREAD)

    def line(self) -> str:
        """One line of the Markdown table."""
        other, effect = ("" if value is None else f"{value:.1f}" for value in (self.other_seed, self.effect))
        return f"| {self.name} | {self.mean:.4f} | {self.largest:.0f} | {self.spread:.1f} | {other} | {effect} |" + (
            "" if self.holds else " **outside the bounds**"
        )


HEADING = (
    "| case | mean difference | largest | upstream's standard deviation | to another seed | to the plain picture |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: |"
)


Drawn = dict[tuple[str, int], np.ndarray]


class OutOfTimeError(Exception):
    """The time is over, or the run was cancelled; what was drawn is kept."""


class Allowance:
    """How long a run may begin pictures; ``cancel`` ends it at once. Safe from any thread."""

    def __init__(self, minutes: float) -> None:
        self._end_s = time.monotonic() + minutes * 60
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Let the next check fail."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise ``OutOfTimeError`` when nothing more may begin."""
        if self._cancelled.is_set() or time.monotonic() > self._end_s:
            raise OutOfTimeError


def kept_path(kept: pathlib.Path, case: Case, seed: int) -> pathlib.Path:
    """Where the picture of one case lies in *kept*."""
    return kept / f"{re.sub(r'[^A-Za-z0-9.]+', '_', case.name)}-{seed}.png"


def draw(server: Server, wanted: Sequence[tuple[Case, int]], label: str, kept: pathlib.Path | None, allowance: Allowance) -> Drawn:
    """Draw (case, seed) after (case, seed), into *kept* too. Failures are printed and left out. Raises ``OutOfTimeError``."""
    drawn: Drawn = {}
    for case, seed in wanted:
        allowance.check()
        started_s = time.monotonic()
        try:
            content = server.picture(picture_cases.with_seed(case.graph, seed))
        except RuntimeError as error:
            print(f"{label}: {case.name}: {error}", file=sys.stderr, flush=True)
            continue
        print(f"{label}: {case.name}, seed {seed}: {time.monotonic() - started_s:.1f} s", file=sys.stderr, flush=True)
        drawn[case.name, seed] = _pixels(content)
        if kept:
            path = kept_path(kept, case, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return drawn


def _pixels(content: bytes) -> np.ndarray:
    """A picture file as float32 [height, width, 3], 0 to 255."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32)


def compare(case: Case, reference: Drawn, own: Drawn) -> Row | None:
    """The row of one case; None when either side has no picture of it."""
    theirs, ours = reference.get((case.name, SEED)), own.get((case.name, SEED))
    if theirs is None or ours is None or theirs.shape != ours.shape:
        return None
    other, without = reference.get((case.name, OTHER_SEED)), reference.get((case.baseline, SEED))
    difference = np.abs(theirs - ours)
    return Row(
        case.name,
        float(difference.mean()),
        float(difference.max()),
        float(theirs.std()),
        None if other is None else float(np.abs(theirs - other).mean()),
        None if without is None else float(np.abs(theirs - without).mean()),
    )


def chosen_cases(given: argparse.Namespace) -> tuple[list[Case], set[str]]:
    """The cases to draw, with those that they are compared with, and the names of all that are drawn with another seed."""
    addons = frozenset(name for name in ("lora", "controlnet", "embedding") if getattr(given, name))
    everything = list(picture_cases.cases(CHECKPOINT, given.size, given.steps, SEED, addons, given.two_text_models))
    wanted = [case for case in everything if not given.only or any(text in case.name for text in given.only)]
    needed = {case.baseline for case in wanted}
    bases = {case.baseline for case in everything if case.baseline}
    reseeded = {case.name for case in everything if given.every_seed or case.name in bases or "denoise" in case.name}
    return [case for case in everything if case in wanted or case.name in needed], reseeded


def draw_side(
    side: Side, pairs: Sequence[tuple[Case, int]], reuse: bool, given: argparse.Namespace, folder: pathlib.Path, allowance: Allowance
) -> Drawn:
    """All pictures of one side, on a server of its own unless *reuse* finds all of them in the folder of kept ones."""
    kept = pathlib.Path(given.keep) / side.name if given.keep else None
    there = [pair for pair in pairs if kept and reuse and kept_path(kept, *pair).exists()]
    drawn = {(case.name, seed): _pixels(kept_path(kept, case, seed).read_bytes()) for case, seed in there}
    missing = [pair for pair in pairs if pair not in there]
    if missing:
        server = side.start(folder, given)
        try:
            drawn |= draw(server, missing, side.name, kept, allowance)
        finally:
            server.stop()
    return drawn


def compare_pictures(sides: Sequence[Side], given: argparse.Namespace, folder: pathlib.Path) -> int:
    """Draw on both sides and print the table; 1 if a case is outside the bounds or has no pictures, 3 if time ran out."""
    chosen, reseeded = chosen_cases(given)
    plain = [(case, SEED) for case in chosen]
    wanted = (plain + [(case, OTHER_SEED) for case in chosen if case.name in reseeded], plain)
    allowance = Allowance(given.minutes)
    results: list[Drawn | BaseException | None] = [None, None]

    def work(number: int) -> None:
        try:
            results[number] = draw_side(sides[number], wanted[number], number == 0 or given.resume, given, folder, allowance)
        except BaseException as error:  # looked at below, in the main thread
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    try:
        for thread in threads:
            thread.start()
            if not given.together:
                thread.join()
        for thread in threads:
            thread.join()
    finally:
        allowance.cancel()
    for result in results:
        if isinstance(result, OutOfTimeError):
            print("the time is over; start again with --resume to go on", file=sys.stderr)
            return 3
        if isinstance(result, BaseException):
            raise result
    print(HEADING)
    bad = 0
    for case in chosen:
        row = compare(case, *results)
        print(f"| {case.name} | no picture | | | | |" if row is None else row.line())
        bad += row is None or not row.holds
    return min(1, bad)


def sampling_seconds(server: Server, seed: int, given: argparse.Namespace) -> float:
    """How long the sampler node of one prompt took, as the messages to its client say."""
    import websocket

    client = uuid.uuid4().hex
    graph = picture_cases.text_to_image(CHECKPOINT, given.size, given.steps, seed)
    connection = websocket.create_connection(f"ws://{server.address}/ws?clientId={client}", timeout=PROMPT_TIMEOUT_S)
    try:
        server.queue(graph, client)
        started_s = 0.0
        while True:
            frame = connection.recv()
            message = json.loads(frame) if isinstance(frame, str) else {"type": ""}
            if message["type"] == "execution_error":
                raise SystemExit(f"sampling failed: {message['data']['exception_message']}")
            if message["type"] != "executing":
                continue
            if message["data"]["node"] == "sample":
                started_s = time.perf_counter()
            elif started_s:
                return time.perf_counter() - started_s
    finally:
        connection.close()


def compare_speed(sides: Sequence[Side], given: argparse.Namespace, folder: pathlib.Path) -> int:
    """Time sampling on both, alternating, after one unmeasured prompt each; prints medians and the ratio."""
    servers = [side.start(folder, given) for side in sides]
    try:
        for server in servers:
            sampling_seconds(server, 0, given)
        times: list[list[float]] = [[], []]
        for number in range(given.rounds):
            for index in ((0, 1), (1, 0))[number % 2]:
                times[index].append(sampling_seconds(servers[index], number + 1, given))
    finally:
        for server in servers:
            server.stop()
    for side, seconds in zip(sides, times):
        print(f"{side.name:9} median {statistics.median(seconds):.2f} s  ({', '.join(f'{value:.2f}' for value in seconds)})")
    ratios = [theirs / ours for theirs, ours in zip(*times)]
    print(f"upstream / keepwarm, pair by pair: median {statistics.median(ratios):.2f} ({', '.join(f'{value:.2f}' for value in ratios)})")
    return 0


def main() -> int:
    """Read the command line and run the comparison; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, help="a ComfyUI checkout")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs it")
    parser.add_argument("--pythonpath", default="", help="PYTHONPATH for it")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--two-text-models", action="store_true", help="the checkpoint is an SDXL: also compare its text node")
    parser.add_argument("--lora", help="LoRA file; without it that case is left out")
    parser.add_argument("--controlnet", help="ControlNet file; without it those cases are left out")
    parser.add_argument("--embedding", help="embedding file; without it that case is left out")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="append", help="cases whose name contains this (repeatable)")
    parser.add_argument("--every-seed", action="store_true", help="draw another seed of every case")
    parser.add_argument("--keep", help="folder for the pictures; upstream's that lie there already are not drawn again")
    parser.add_argument("--resume", action="store_true", help="nor are this project's, if the same code drew them")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no picture after that long; needs --keep")
    parser.add_argument("--together", action="store_true", help="draw on both sides at once; give each no more than half of the cores")
    parser.add_argument("--speed", action="store_true", help="compare sampling speed, not pictures")
    parser.add_argument("--rounds", type=int, default=6, help="pairs timed with --speed; even, so that each side is first as often")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sides = (Side("upstream", given.python, given.upstream, given.pythonpath), Side("keepwarm", sys.executable, str(PROJECT), ""))
    with tempfile.TemporaryDirectory() as folder:
        work = compare_speed if given.speed else compare_pictures
        return work(sides, given, pathlib.Path(folder))


if __name__ == "__main__":
    sys.exit(main())
