"""What may happen to a running server while it reads a model: the right error, the right next picture, no second copy, nothing reserved.

The reads are held by the pack ``held_reads.py``, which also notes them: what is read is told by the system call, not by the cache.
"""

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import signal
import struct
import time

import pytest
from live_server import ROOT, LiveServer, Run
from model_workflows import STARTERS, checkpoints, models, node, result, run, with_starters, workflow

pytestmark = pytest.mark.timeout(120)
DIGITS = STARTERS[0]
ORIGINAL = ROOT / "models" / "checkpoints" / DIGITS
FILE_BYTES = ORIGINAL.stat().st_size
PARTS = 3


def wait_for(condition, timeout_s=30.0):
    """Until *condition()* holds; fails the test when it does not in time."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "waited in vain"
        time.sleep(0.02)


class Reads:
    """The pack's switch and notes, for one server."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.switch = folder / "hold"
        self.notes = folder / "hold.notes"

    def begin(self):
        """Forget what was noted; reads are held from now on."""
        self.notes.write_text("")
        self.switch.touch()

    def release(self):
        """Reads go on."""
        self.switch.unlink()

    def lines(self, kind):
        """The notes of one kind, as numbers."""
        return [[int(number) for number in line.split()[1:]] for line in self.notes.read_text().splitlines() if line.startswith(kind)]

    @property
    def bytes_read(self):
        return sum(count for _, count in self.lines("read"))

    def wait_until_one_is_held(self):
        wait_for(lambda: self.lines("begin"))


def server_with_pack(base, *flags):
    """(a server whose reads can be held, its reads)."""
    (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
    shutil.copy(pathlib.Path(__file__).parent / "held_reads.py", base / "custom_nodes")
    reads = Reads(base)
    server = LiveServer(base, "--ram-model-cache-mb", "1000", "--cache-none", *flags, environment={"HELD_READS": str(reads.switch)})
    return with_starters(server), reads


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server for the tests that leave it running."""
    server, reads = server_with_pack(tmp_path_factory.mktemp("held") / "server")
    yield server, reads, itertools.count()
    server.stop()


@pytest.fixture
def held(shared):
    """(server, reads, file): nothing is cached, *file* is a checkpoint of the test's own, reads are held."""
    server, reads, numbers = shared
    server.post("/free", {"unload_models": True, "free_memory": True})
    wait_for(lambda: not models(server)[2])
    file = pathlib.Path(shutil.copy(ORIGINAL, checkpoints(server) / f"digits-{next(numbers)}.safetensors"))
    reads.begin()
    yield server, reads, file
    with contextlib.suppress(FileNotFoundError):
        reads.release()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Pictures of a server without the cache: ``plain(path of a checkpoint, seed)``."""
    server = LiveServer(tmp_path_factory.mktemp("plain"), "--no-ram-model-cache", "--cache-none")
    known = {}

    def picture(path, seed):
        data = path.read_bytes()
        if (data, seed) not in known:
            (checkpoints(server) / "any.safetensors").write_bytes(data)
            known[data, seed] = run(server, "any.safetensors", seed)[0]
        return known[data, seed]

    yield picture
    server.stop()


def queue(server, prompt):
    """Put *prompt* into the queue; its id."""
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == 200, answer
    return answer["prompt_id"]


def finished(server, prompt_id):
    """The prompt, once it has ended."""
    wait_for(lambda: server.get(f"/history/{prompt_id}"))
    return Run(server, prompt_id, [])


def events(done):
    """The names of a prompt's messages."""
    return [name for name, _ in done.history["status"]["messages"]]


def since(server, before):
    """Which counters have grown since *before*, and by how much."""
    return {
        name: count - before[name]
        for name, count in models(server)[1].items()
        if name in ("hits", "misses", "failures", "refusals", "bypasses") and count != before[name]
    }


def assert_read_once(reads):
    """All weights of one checkpoint, and none of them twice."""
    assert 0.9 * FILE_BYTES < reads.bytes_read <= FILE_BYTES


def assert_nothing_is_left_of_the_load(server):
    stats, _, entries = models(server)
    assert (stats["reserved_bytes"], stats["kept_bytes"], stats["lent_bytes"], stats["doomed_bytes"], entries) == (0, 0, 0, 0, [])


def state_of(process):
    """``T`` for stopped, by the kernel."""
    return pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="the state of a process is read from /proc")
def test_a_server_stopped_in_a_load_and_continued_reads_on_and_gives_the_right_picture(held, plain):
    server, reads, file = held
    before = models(server)[1]
    prompt_id = queue(server, workflow(file.name, 1))
    reads.wait_until_one_is_held()
    server.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: state_of(server.process) == "T")
    reads.release()
    time.sleep(0.5)
    assert not reads.lines("read")
    server.process.send_signal(signal.SIGCONT)
    picture, receipts = result(finished(server, prompt_id))
    assert picture == plain(ORIGINAL, 1)
    assert [receipt["tier"] for receipt in receipts] == ["disk"] * PARTS and all(receipt["kept"] for receipt in receipts)
    assert since(server, before) == {"misses": PARTS} and models(server)[0]["reserved_bytes"] == 0
    assert_read_once(reads)


def test_while_a_read_stalls_the_others_that_want_the_file_wait_and_it_is_read_once(held, plain):
    server, reads, file = held
    before = models(server)[1]
    aside = {str(number): node("LoadAside", ckpt_name=file.name, number=number) for number in range(3)}
    at_once = queue(server, aside)
    next_in_queue = queue(server, workflow(file.name, 1))
    reads.wait_until_one_is_held()
    wait_for(lambda: len(reads.lines("asked")) == 3)
    time.sleep(0.5)
    stats, counters, entries = models(server)
    assert stats["reserved_bytes"] > 0 and not entries and not since(server, before)
    assert not reads.lines("read") and server.get("/queue")["queue_pending"]
    reads.release()
    together = finished(server, at_once).history
    assert together["status"]["status_str"] == "success"
    assert sorted(receipt["tier"] for receipt in together["models"]) == ["disk"] * PARTS + ["ram"] * 2 * PARTS, together["models"]
    assert result(finished(server, next_in_queue))[0] == plain(ORIGINAL, 1)
    assert since(server, before) == {"misses": PARTS, "hits": 3 * PARTS}
    assert_read_once(reads)


def test_an_interrupt_during_a_load_ends_the_prompt_and_the_next_one_loads(held, plain):
    server, reads, file = held
    before = models(server)[1]
    prompt_id = queue(server, workflow(file.name, 1))
    reads.wait_until_one_is_held()
    assert server.post("/interrupt", {})[0] == 200
    reads.release()
    done = finished(server, prompt_id)
    assert done.history["status"]["status_str"] == "error" and events(done)[-1] == "execution_interrupted"
    assert {receipt["reason"] for receipt in done.history["models"]} == {"the load failed"}
    assert since(server, before) == {"failures": PARTS}
    assert reads.bytes_read < FILE_BYTES // 2
    assert_nothing_is_left_of_the_load(server)
    reads.notes.write_text("")
    picture, receipts = run(server, file.name, 1)
    assert picture == plain(ORIGINAL, 1) and [receipt["reason"] for receipt in receipts] == ["first use"] * PARTS
    assert_read_once(reads)


@pytest.mark.parametrize("when", ["before", "while it is read"])
def test_a_truncated_file_is_an_error_that_says_what_to_do_and_the_good_file_works_again(held, plain, when):
    server, reads, file = held
    before = models(server)[1]
    if when == "before":
        reads.release()
        os.truncate(file, file.stat().st_size * 3 // 5)
        done = finished(server, queue(server, workflow(file.name, 1)))
        advice = "download it again"
    else:
        prompt_id = queue(server, workflow(file.name, 1))
        reads.wait_until_one_is_held()
        os.truncate(file, file.stat().st_size // 10)
        reads.release()
        done = finished(server, prompt_id)
        advice = "replaced or truncated while it was read"
    assert done.history["status"]["status_str"] == "error" and events(done)[-1] == "execution_error"
    message = done.history["status"]["messages"][-1][1]["exception_message"]
    assert file.name in message and advice in message, message
    assert since(server, before) == {"failures": PARTS}
    assert_nothing_is_left_of_the_load(server)
    shutil.copy(ORIGINAL, file)
    assert run(server, file.name, 1)[0] == plain(ORIGINAL, 1)
    assert {entry["model"] for entry in models(server)[2]} == {f"{part} of {file.name}" for part in ("model", "clip", "vae")}


def with_another_tensor(source, target, tensor="model.diffusion_model.out.2.bias"):
    """Write to *target* what *source* holds, one tensor of it inverted; names, sizes and header are the same."""
    data = bytearray(source.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    start, stop = (8 + length + offset for offset in json.loads(data[8 : 8 + length])[tensor]["data_offsets"])
    for position in range(start + 1, stop, 2):
        data[position] ^= 0x80  # the sign of a half
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("how", ["written over", "renamed over, with the old time"])
def test_a_file_replaced_between_prompts_by_one_tensor_is_read_again_and_only_the_new_copy_stays(held, plain, tmp_path, how):
    server, reads, file = held
    reads.release()
    assert run(server, file.name, 1)[0] == plain(ORIGINAL, 1)
    kept_bytes, reads_before, evictions = models(server)[0]["kept_bytes"], reads.bytes_read, models(server)[1]["evictions"]
    other = with_another_tensor(ORIGINAL, tmp_path / "other")
    assert other.stat().st_size == file.stat().st_size
    if how == "written over":
        file.write_bytes(other.read_bytes())
    else:
        times = file.stat()
        shutil.copy(other, file.with_suffix(".new"))
        os.utime(file.with_suffix(".new"), ns=(times.st_atime_ns, times.st_mtime_ns))
        os.replace(file.with_suffix(".new"), file)
    picture, receipts = run(server, file.name, 1)
    assert picture == plain(other, 1) != plain(ORIGINAL, 1)
    what = "time" if how == "written over" else "inode"
    assert [receipt["reason"] for receipt in receipts] == [f"file changed: {file.name} ({what})"] * PARTS
    stats, counters, entries = models(server)
    assert (stats["kept_bytes"], stats["lent_bytes"], len(entries)) == (kept_bytes, 0, PARTS)
    assert counters["evictions"]["file changed"] - evictions.get("file changed", 0) == PARTS
    assert reads.bytes_read == 2 * reads_before
    assert run(server, file.name, 1)[0] == picture and {receipt["tier"] for receipt in run(server, file.name, 2)[1]} == {"ram"}


def test_a_file_replaced_while_it_is_read_is_used_as_it_was_and_not_kept(held, plain, tmp_path):
    server, reads, file = held
    prompt_id = queue(server, workflow(file.name, 1))
    reads.wait_until_one_is_held()
    other = with_another_tensor(ORIGINAL, tmp_path / "other")
    shutil.copy(other, file.with_suffix(".new"))
    os.replace(file.with_suffix(".new"), file)
    reads.release()
    picture, receipts = result(finished(server, prompt_id))
    assert picture == plain(ORIGINAL, 1)
    assert [(receipt["kept"], receipt["reason"]) for receipt in receipts] == [(False, "not kept: a file changed while it was read")] * PARTS
    assert_nothing_is_left_of_the_load(server)
    assert run(server, file.name, 1)[0] == plain(other, 1)


def test_ctrl_c_during_a_load_ends_the_server_cleanly_and_it_starts_again(tmp_path, plain):
    base = tmp_path / "server"
    server, reads = server_with_pack(base)
    try:
        files = sorted(path for path in base.rglob("*") if path.is_file())
        reads.begin()
        queue(server, workflow(DIGITS, 1))
        reads.wait_until_one_is_held()
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        reads.release()
        began = time.monotonic()
        assert server.process.wait(20) == 0
        took_s = time.monotonic() - began
        assert reads.bytes_read < FILE_BYTES // 2, "the load was read to its end"
        assert "Traceback" not in server.log() and "Stopped" in server.log()
        known = {*files, reads.notes}
        assert [path for path in base.rglob("*") if path.is_file() and path not in known and "__pycache__" not in path.parts] == []
    finally:
        server.stop()
    again, _ = server_with_pack(base)
    try:
        assert run(again, DIGITS, 1)[0] == plain(ORIGINAL, 1)
        began = time.monotonic()
        again.process.send_signal(signal.SIGINT)
        assert again.process.wait(20) == 0
        assert took_s < 3 + (time.monotonic() - began), "the load was waited for: a server without one ends in the rest of this time"
    finally:
        again.stop()
