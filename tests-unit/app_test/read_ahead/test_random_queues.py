"""Random queues with failures, interrupts, withdrawn prompts, freed memory and replaced files give the same with and without reading ahead.

Results, errors, the order of nodes, and what the cache finds, loads, keeps and evicts are equal; files are read equally often, but for what
was read ahead for prompts that then did not ask. Five hundred queues: ``./test.sh tests-unit/app_test/read_ahead -m attack``.
"""

import random
import threading
from collections import Counter

import pytest
from executor_harness import install_nodes
from random_queues import DAMAGED, FILES, MODEL_BYTES, Inside, is_disturbed, random_queue, write_model
from residency_models import management

import folder_paths
from comfy.ram_model_cache.cache import CacheSettings, RamModelCache
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView
from execution import CacheType

GIB = 1024**3
SAME = ("hits", "misses", "refusals", "failures", "evictions", "bypasses")


def prepare(folder):
    """The model files as every run finds them."""
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(FILES):
        write_model(folder / name, seed)
    write_model(folder / DAMAGED, 99)
    with open(folder / DAMAGED, "r+b") as file:
        file.truncate(MODEL_BYTES // 2)


def run(seed, folder, monkeypatch, ahead):
    """Work the queue of *seed* off."""
    rng = random.Random(seed)
    prompts = random_queue(rng)
    cap_bytes = int(rng.choice([1.2, 2.5, 100]) * MODEL_BYTES)
    cache_type = rng.choice([CacheType.CLASSIC, CacheType.CLASSIC, CacheType.LRU, CacheType.NONE])
    prepare(folder)
    memory = HostMemory(root="/nowhere", system=lambda: MemoryView(64 * GIB, 32 * GIB))
    with management(cache=lambda owner: RamModelCache(CacheSettings(cap_bytes), owner.hooks()), memory=memory) as manager:
        try:
            inside = Inside(folder, manager.ram_cache, lambda classes: install_nodes(monkeypatch, classes), ahead, cache_type)
            return inside.run(prompts), prompts
        finally:
            manager.ram_cache.close()


class Ticks(threading.local):
    """A clock by which each load takes a second: what the cache keeps depends on what loads took."""

    now_s = 0.0

    def __call__(self):
        self.now_s += 1.0
        return self.now_s


def check(seed, tmp_path, monkeypatch):
    """Both runs of one queue; returns how many models were read ahead."""
    monkeypatch.setattr("comfy.loading.parts._reading_s", Ticks())
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "checkpoints", ([str(tmp_path / "models")], set()))
    (plain, prompts), (ahead, _) = (run(seed, tmp_path / "models", monkeypatch, is_on) for is_on in (False, True))
    assert ahead.prompts == plain.prompts
    assert ahead.order == plain.order
    assert plain.problems == ahead.problems == []
    assert {name: ahead.counters[name] for name in SAME} == {name: plain.counters[name] for name in SAME}
    more = Counter(ahead.reads) - Counter(plain.reads)
    assert not Counter(plain.reads) - Counter(ahead.reads), "each read is done, before its loader asks or then"
    assert more.total() == ahead.counters["ahead_unused"] or is_disturbed(prompts)
    assert not more or is_disturbed(prompts), "nothing is read in vain"
    assert 0 <= ahead.counters["read_ahead"] - ahead.counters["ahead_unused"] <= ahead.counters["misses"]
    return ahead.counters["read_ahead"]


def test_queues_give_the_same(tmp_path, monkeypatch):
    read_ahead = [check(seed, tmp_path, monkeypatch) for seed in range(8)]
    assert sum(read_ahead) > 8


@pytest.mark.attack
@pytest.mark.skipif("'attack' not in (config.option.markexpr or '')", reason="-m attack runs it")
@pytest.mark.parametrize("block", range(50))
def test_five_hundred_queues_give_the_same(tmp_path, monkeypatch, block):
    read_ahead = [check(1000 + 10 * block + number, tmp_path, monkeypatch) for number in range(10)]
    assert sum(read_ahead) > 5
