"""Processes that are killed while they use a store: nothing is left over, nothing is torn, nobody waits for the dead."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from store_parts import held, key_of, put, tensors_of

from comfy.ram_model_store import locks, uses
from comfy.ram_model_store.description import check, describe
from comfy.ram_model_store.folder import PART_NAME
from comfy.ram_model_store.store import RamModelStore

WORKER = pathlib.Path(__file__).with_name("store_worker.py")
CAP_BYTES = 5 << 20


@pytest.fixture(scope="module")
def workers():
    """The process that starts workers."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.wait(60)
    process.stdout.close()


def ask(workers, *words):
    """What the process says to the command of *words*."""
    print(*words, file=workers.stdin, flush=True)
    return workers.stdout.readline().split()


@pytest.mark.parametrize("point", ["writing", "renaming", "mapping", "evicting"])
def test_a_process_that_is_killed_there_leaves_nothing_behind(folder, workers, point):
    store = RamModelStore(folder, CAP_BYTES)
    assert put(store, key_of("there"), tensors_of(1))[0]
    said, worker = ask(workers, "stop", point, folder.path)
    os.kill(int(worker), signal.SIGKILL)
    assert said == "reached"
    assert ask(workers, "cycles", f"{folder.path}-other", 0, 0)[0] == "done", "and by now the process is gone"
    after = RamModelStore(folder, CAP_BYTES)
    assert check(after) == []
    assert after.counters()["leftovers"] == (1 if point in ("writing", "renaming") else 0)
    assert held(after.find(key_of("there")), tensors_of(1)) and after.find(key_of("new")) is None
    claim = after.claim(key_of("new"), lambda: pytest.fail("somebody waits for the dead"))
    assert put(after, key_of("new"), tensors_of(2))[0] and held(after.find(key_of("new")), tensors_of(2))
    claim.release()


def run_cycles(folder, workers, cycles, kills):
    _, done, killed, how = ask(workers, "cycles", folder.path, cycles, kills)
    assert how == "well" and int(done) >= cycles and int(killed) == kills
    store = RamModelStore(folder, CAP_BYTES)
    assert check(store) == []
    section = describe(store)
    names = {name for name in os.listdir(folder.path) if PART_NAME.fullmatch(name)}
    assert {file["name"] for file in section["files"]} == names and section["writing_bytes"] == 0
    assert set(os.listdir(folder.path)) <= {*names, locks.NAME, uses.NAME}
    assert section["bytes"] == sum(os.stat(os.path.join(folder.path, name)).st_blocks * 512 for name in names) <= CAP_BYTES
    assert all(file["users"] == [] for file in section["files"])


def test_three_processes_that_load_and_evict_and_are_killed_leave_the_books_right(folder, workers):
    run_cycles(folder, workers, 300, 15)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_the_same_for_two_thousand_cycles_and_a_hundred_kills(folder, workers):
    run_cycles(folder, workers, 2000, 100)
