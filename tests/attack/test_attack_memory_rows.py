"""Servers whose control group cannot hold the models they are asked for: the RAM model cache gives way, and the kernel kills nobody.

Three checkpoints of SD 1.5's full shape (2.1 GB each, 4 GB as kept) are asked for in turn, so that together they need more than each row's
limit. They are made once (6.4 GB on the disk) and removed afterwards; ``KEEPWARM_ATTACK_CHECKPOINTS`` names a folder to keep them in.
"""

import itertools
import os
import pathlib
import shutil
import sys
import threading
import time
from dataclasses import dataclass, field

import pytest
from attack_report import MIB
from live_server import ROOT, Client
from memory_limits import MemoryGroup
from picture_prompts import text_to_picture

sys.path.append(str(ROOT / "benchmarks"))

from switching_models import make_checkpoints  # noqa: E402

GIB = 1 << 30
ROWS = [(4.4, 16_000), (4.4, None), (6, 16_000), (8, 16_000), (10, 16_000)]
ORDER = "abcabcacb"
INTERRUPTED_AFTER = 4
PROMPT_TIMEOUT_S = 200
LEFT_AFTER_FREE_BYTES = 800 * MIB
INTERVAL_S = 0.05


@dataclass
class Row:
    """What one server did under its limit. Sizes in bytes, times in seconds."""

    title: str
    seconds: list[float] = field(default_factory=list)
    interrupted: int = 0
    held_peak_bytes: int = 0
    peak_bytes: int = 0
    kills: int = 0
    kept: list[int] = field(default_factory=list)
    evictions: dict[str, int] = field(default_factory=dict)
    left_bytes: int = 0

    def line(self) -> str:
        """The row as text."""
        evictions = ", ".join(f"{count} × {why}" for why, count in self.evictions.items()) or "none"
        return (
            f"{self.title}: {len(self.seconds)} prompts and {self.interrupted} interrupted in {sum(self.seconds):.0f} s "
            f"(longest {max(self.seconds, default=0):.1f}), held at most {self.held_peak_bytes / GIB:.2f} GiB, with page cache "
            f"{self.peak_bytes / GIB:.2f}, models kept after each {self.kept}, evictions {evictions}, {self.kills} killed, "
            f"{self.left_bytes // MIB} MiB left after /free"
        )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The three files, not in the page cache: what a server reads is counted in its own group."""
    keep = os.environ.get("KEEPWARM_ATTACK_CHECKPOINTS")
    folder = pathlib.Path(keep) if keep else tmp_path_factory.mktemp("checkpoints")
    if shutil.disk_usage(folder).free < 8 * GIB:
        pytest.skip("needs 8 GiB on the disk")
    paths = make_checkpoints(folder, 1)
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    yield paths
    if not keep:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def pictures():
    """The picture of each prompt, from whichever server made it first."""
    return {}


@pytest.fixture
def limited():
    """``limited(bytes)``: a new control group, removed afterwards."""
    groups = []

    def make(limit_bytes):
        try:
            groups.append(MemoryGroup(limit_bytes))
        except OSError as error:
            pytest.skip(f"no memory limit can be set here: {error}")
        return groups[-1]

    yield make
    for group in groups:
        group.remove()


class HeldProbe:
    """Follows what a control group holds while it is entered; ``peak_bytes`` is the most that was seen."""

    def __init__(self, group):
        self.group, self.peak_bytes = group, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="group-probe", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _watch(self):
        while not self._ended.wait(INTERVAL_S):
            self.peak_bytes = max(self.peak_bytes, self.group.held_bytes)


def picture_prompt(name, number):
    """A tiny picture in one step; equal arguments make equal prompts."""
    return text_to_picture(f"{name}.safetensors", number, f"house number {number}", "grey", steps=1)


def models(live):
    """(statistics of the RAM model cache or None, its entries)."""
    answer = live.get("/caches")["models"]
    return answer["stats"], answer["entries"]


def run_all(live, row, result, pictures):
    """Ask for the checkpoints in turn; one load in between is interrupted."""
    client = Client(live)
    numbers = {name: itertools.cycle((1, 2)) for name in ORDER}
    for count, name in enumerate(ORDER):
        prompt = name, next(numbers[name])
        started_s = time.monotonic()
        run = client.run(picture_prompt(*prompt), PROMPT_TIMEOUT_S)
        row.seconds.append(time.monotonic() - started_s)
        result.tries += 1
        status = run.history["status"]
        if status["status_str"] != "success" or "sample" not in run.executed:
            result.wrong_results.append(f"prompt {count} {prompt}: {str(status)[:500]}")
        elif run.file_bytes() != pictures.setdefault(prompt, run.file_bytes()):
            result.wrong_results.append(f"prompt {count} {prompt}: not the picture of an equal prompt")
        stats = models(live)[0]
        if stats is not None:
            row.kept.append(stats["kept"])
            row.evictions = stats["counters"]["evictions"]
        if count == INTERRUPTED_AFTER:
            interrupt_a_load(client, ORDER[count + 1], result)
            row.interrupted += 1
    client.close()


def interrupt_a_load(client, name, result):
    """Ask for a picture of *name* and take that back while its file is read."""
    status, answer = client.server.post("/prompt", {"prompt": picture_prompt(name, 99), "client_id": client.client_id})
    assert status == 200, answer
    for message in client.messages():
        kind, data = (message["type"], message["data"]) if isinstance(message, dict) else ("", {})
        if kind == "executing" and data["node"] == "model":
            time.sleep(INTERVAL_S)
            client.server.post("/interrupt", {"prompt_id": answer["prompt_id"]})
        if kind == "executing" and data["node"] is None:
            break
    messages = client.server.get(f"/history/{answer['prompt_id']}")[answer["prompt_id"]]["status"]["messages"]
    if messages[-1][0] != "execution_interrupted":
        result.wrong_results.append(f"an interrupted load ended with {messages[-1]}")


def left_after_free(live, group):
    """What the group holds once everything was given back, or after half a minute."""
    assert live.post("/free", {"unload_models": True, "free_memory": True})[0] == 200
    ends_s = time.monotonic() + 30
    while group.held_bytes > LEFT_AFTER_FREE_BYTES and time.monotonic() < ends_s:
        time.sleep(0.1)
    return group.held_bytes


@pytest.mark.memory_rows
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("limit_gib", "cache_mb"), ROWS)
def test_models_larger_than_the_limit(attacked, report, checkpoints, pictures, limited, tmp_path, limit_gib, cache_mb):
    limit_bytes = int(limit_gib * GIB)
    group = limited(limit_bytes)
    flags = () if cache_mb is None else ("--ram-model-cache-mb", str(cache_mb))
    title = f"{limit_gib} GiB, {' '.join(flags) or 'default flags'}"
    server = attacked(title, *flags, python=group.python(sys.executable, tmp_path / "python"))
    live, row = server.server, Row(title)
    folder = live.base / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for path in checkpoints:
        (folder / path.name).symlink_to(path)

    with server.watch() as result, HeldProbe(group) as held:
        run_all(live, row, result, pictures)
        row.left_bytes = left_after_free(live, group)
    row.held_peak_bytes, row.peak_bytes, row.kills = held.peak_bytes, group.peak_bytes, group.kills
    report.notes.append(row.line())

    assert row.kills == 0 and live.process.poll() is None, row.line()
    server.check(result, rss_growth_bytes=limit_bytes)
    assert row.held_peak_bytes < limit_bytes and row.peak_bytes <= limit_bytes, row.line()
    assert row.left_bytes <= LEFT_AFTER_FREE_BYTES, row.line()
    assert len({pictures[name, 1] for name in ORDER}) == len(set(ORDER)), "each checkpoint has a picture of its own"
    stats, entries = models(live)
    assert stats is None or (stats["kept"], entries) == (0, []), "nothing is kept after /free"
