"""Weights that changed in memory after they were stored are noticed, whichever byte it is."""

import os
import random
import threading

import pytest
import torch
from store_parts import held, key_of, put, tensors_of

from comfy.ram_model_store import checking
from comfy.ram_model_store.checking import Checker, sums_of
from comfy.ram_model_store.part_format import SUM_BYTES
from comfy.ram_model_store.store import RamModelStore

SIDE = 1300  # more than one sum


@pytest.fixture
def store(folder):
    """A store that looks at parts at once."""
    made = RamModelStore(folder, 100 << 20)
    made.checker = Checker(folder, lambda run: run())
    return made


def flip(store, name, place):
    """Change one bit of the file, as faulty memory does."""
    with open(os.path.join(store.folder.path, name), "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << place % 8]))


def test_sums_are_of_pieces_and_change_with_every_bit():
    memory = torch.zeros(2 * SUM_BYTES + 4096, dtype=torch.uint8)
    assert sums_of(memory) == (0, 0, 0)
    memory[SUM_BYTES + 7] = 128
    memory[-8] = 3
    assert sums_of(memory) == (0, -(1 << 63), 3)


@pytest.mark.parametrize("place", range(8))
def test_a_flipped_bit_of_the_weights_ends_the_part_and_says_so(store, place, caplog):
    key, told = key_of("one"), []
    put(store, key, tensors_of(1, SIDE))
    part = store.find(key)
    size = part.table.blocks[0].size
    flip(store, key.name, part.table.blocks[0].start + random.Random(place).randrange(size))
    store.check_soon(part, key, lambda: told.append(1))
    assert told == [1] and store.counters()["damaged"] == 1 and store.find(key) is None
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1 and "model of one" in errors[0] and "may be wrong" in errors[0]
    assert put(store, key, tensors_of(1, SIDE))[0]
    again = store.find(key)
    store.check_soon(again, key, lambda: told.append(2))
    assert told == [1] and held(again, tensors_of(1, SIDE)), "the new file is another one, and in order"


def test_what_is_in_order_is_looked_at_once_and_own_writes_do_not_count(store, monkeypatch):
    key, told = key_of("one"), []
    put(store, key, tensors_of(1, SIDE))
    part = store.find(key)
    part.tensors(0, ["a"], None)["a"].zero_()
    for _ in range(2):
        store.check_soon(part, key, lambda: told.append(1))
        monkeypatch.setattr(checking, "_damage", lambda *arguments: "looked at twice")
    assert told == [] and store.counters()["damaged"] == 0 and store.find(key) is not None


def _cut_off(path):
    os.truncate(path, 4096)


@pytest.mark.parametrize("change", [os.unlink, _cut_off], ids=lambda change: change.__name__)
def test_a_part_that_goes_while_it_is_looked_at_harms_nothing(store, change):
    key, told = key_of("one"), []
    put(store, key, tensors_of(1, SIDE))
    part = store.find(key)
    change(os.path.join(store.folder.path, key.name))
    store.check_soon(part, key, lambda: told.append(1))
    assert len(told) == (change is _cut_off), "what is not there is not damaged"


def test_threads_look_at_many_parts_and_end(folder):
    store, threads = RamModelStore(folder, 100 << 20), []
    keys = [key_of(str(number)) for number in range(4)]
    told = []
    for number, key in enumerate(keys):
        put(store, key, tensors_of(number))
    flip(store, keys[2].name, 5000)
    plain = store.checker.start_thread

    def start(run):
        threads.append(1)
        plain(lambda: (run(), finished.release()))

    finished = threading.Semaphore(0)
    store.checker.start_thread = start
    for key in keys:
        store.check_soon(store.find(key), key, lambda key=key: told.append(key))
    for _ in threads:
        assert finished.acquire(timeout=60)
    assert told == [keys[2]]
