"""Loaders and the RAM model cache: what is looked up, what bypasses it, and that nothing of it runs at size 0."""

import threading

import pytest
from residency_models import HOST, Layers, arguments, management, patcher_of
from small_models import small_checkpoint

import comfy.model_management
import comfy.sd
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import INDEPENDENT, Part, load_parts
from comfy.ram_model_cache.cache import NullRamModelCache, RamModelCache
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView
from comfy.residency.model_cache import CacheOwner, make_ram_cache
from comfy.weight_files.reader import WeightReader

GIB = 1024**3


class _CountedPart(Part):
    """A part that *loader* makes."""

    def __init__(self, loader, options, bypass):
        super().__init__(options, bypass)
        self.load, self.estimate_bytes = loader.load, loader.estimate


class Loader:
    """Makes a patcher per call and counts."""

    def __init__(self, found=True):
        self.loads = self.estimates = 0
        self.found = found

    def load(self):
        self.loads += 1
        return patcher_of(Layers(), HOST) if self.found else None

    def estimate(self):
        self.estimates += 1
        return 100_000

    def part(self, options=None, bypass=""):
        return _CountedPart(self, options, bypass)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"weights")
    return str(path)


@pytest.fixture
def cached():
    """A manager for the CPU with a cache of 1 GiB."""
    memory = HostMemory(system=lambda: MemoryView(64 * GIB, 32 * GIB))
    with management(cache=lambda owner: make_ram_cache(arguments(ram_model_cache_mb=1024), owner), memory=memory) as manager:
        yield manager.ram_cache
        assert manager.ram_cache.check() == []
        manager.ram_cache.close()


def test_a_second_load_is_a_clone_of_the_first_and_estimates_nothing(cached, file):
    loader = Loader()
    first = load_parts(ModelFiles(file), {"model": loader.part()})["model"]
    second = load_parts(ModelFiles(file), {"model": loader.part()})["model"]
    assert loader.loads == loader.estimates == 1
    assert second is not first and second.model is first.model and second.parent is first.parent


def test_a_part_that_a_file_lacks_is_remembered(cached, file):
    loader = Loader(found=False)
    assert load_parts(ModelFiles(file), {"clip": loader.part()}) == load_parts(ModelFiles(file), {"clip": loader.part()}) == {"clip": None}
    assert loader.loads == 1


@pytest.mark.parametrize("part", [{"bypass": INDEPENDENT}, {"options": {"custom_operations": Layers}}], ids=["independent", "class"])
def test_loads_that_must_not_be_shared_bypass_the_cache_and_say_so(cached, file, part):
    loader = Loader()
    made = [load_parts(ModelFiles(file), {"model": loader.part(**part)})["model"] for _ in range(2)]
    assert loader.loads == 2 and made[0].model is not made[1].model and loader.estimates == 0
    receipts = cached.receipts(None)
    assert [receipt["tier"] for receipt in receipts] == ["bypass", "bypass"] and all(receipt["reason"] for receipt in receipts)
    assert cached.entries() == []


def test_other_options_and_a_replaced_file_are_loaded_again(cached, file):
    loader = Loader()
    models = [load_parts(ModelFiles(file), {"model": loader.part({"dtype": dtype})})["model"].model for dtype in ("a", "b", "a")]
    assert loader.loads == 2 and models[0] is models[2] is not models[1]
    with open(file, "ab") as opened:
        opened.write(b"more")
    load_parts(ModelFiles(file), {"model": loader.part({"dtype": "a"})})
    assert loader.loads == 3


def test_a_missing_file_is_left_to_the_loaders_own_error(cached, tmp_path):
    class Missing(Part):
        def load(self):
            raise FileNotFoundError("the loader's words")

    with pytest.raises(FileNotFoundError, match="the loader's words"):
        load_parts(ModelFiles(str(tmp_path / "none")), {"model": Missing()})


def test_at_size_0_the_loader_runs_as_without_a_cache(file, monkeypatch):
    threads = threading.active_count()
    with management() as manager:
        assert isinstance(manager.ram_cache, NullRamModelCache)
        loader = Loader()
        monkeypatch.setattr(ModelFiles, "read_bytes", lambda self: pytest.fail("nothing is to be measured"))
        made = [load_parts(ModelFiles(file), {"model": loader.part()})["model"] for _ in range(2)]
        assert loader.loads == 2 and loader.estimates == 0 and made[0].model is not made[1].model
        assert made[0].parent is None
    assert threading.active_count() == threads


def test_when_only_the_autoencoder_was_evicted_only_its_tensors_are_read(cached, monkeypatch):
    path = small_checkpoint()
    first = comfy.sd.load_checkpoint_guess_config(path)
    modules = [first[0].model, first[1].patcher.model]
    vae_bytes = sum(parameter.nbytes for parameter in first[2].first_stage_model.parameters())
    before = cached.stats().counters
    first = None
    with cached._lock:
        vae = next(entry for entry in cached._table.entries.values() if entry.key.component == "vae")
        cached._table.evict(vae, "the test wants it", "test")
    vae = None
    cached.safe_point()
    read, original = [], WeightReader.read
    monkeypatch.setattr(WeightReader, "read", lambda self, keys, *rest: read.extend(keys) or original(self, keys, *rest))
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(path)
    assert [model.model, clip.patcher.model] == modules and vae is not None
    assert read and all(key.startswith("first_stage_model.") for key in read)
    after = cached.stats().counters
    assert (after.hits - before.hits, after.misses - before.misses) == (2, 1)
    assert vae_bytes <= after.read_bytes - before.read_bytes < 1.01 * vae_bytes


@pytest.mark.parametrize(
    ("flags", "free_gib", "cap_gib"),
    [
        ({}, 64, 0),
        ({}, 100, 25),
        ({}, 400, 32),
        ({"no_ram_model_cache": True}, 400, 0),
        ({"ram_model_cache_mb": 0}, 400, 0),
        ({"ram_model_cache_mb": 3072}, 8, 3),
    ],
)
def test_the_size_follows_from_the_flags_and_the_free_memory(flags, free_gib, cap_gib):
    memory = HostMemory(system=lambda: MemoryView(512 * GIB, free_gib * GIB))
    memory.group_views = list
    cache = make_ram_cache(arguments(**flags), CacheOwner(memory=memory))
    assert isinstance(cache, RamModelCache if cap_gib else NullRamModelCache)
    assert not cap_gib or cache.settings.cap_bytes == cap_gib * GIB


def test_a_timeout_without_a_cache_is_logged_as_without_effect(caplog):
    make_ram_cache(arguments(ram_model_cache_mb=0, ram_model_cache_ttl=5.0), CacheOwner())
    assert "--ram-model-cache-ttl has no effect" in caplog.text


def test_the_process_wide_cache_is_the_managers():
    with management() as manager:
        assert comfy.model_management.ram_cache() is manager.ram_cache
