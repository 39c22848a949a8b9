"""The contract of the RAM model cache: hits, misses, caps, storages, devices."""

import weakref

import pytest
from ram_cache_fakes import FakeCLIP, FakeDevice, FakeLoadedModel, FakeModule, FakePatcher, FakeTensor, FakeVAE, Key, get, patcher

from comfy.ram_model_cache.cache import CacheSettings, Loaded, NullRamModelCache, RamModelCache

A, B, C = Key("A"), Key("B"), Key("C")


def test_second_fetch_is_a_hit_and_shares_the_module(make):
    cache = make()
    first, was_loaded = get(cache, A)
    assert was_loaded
    module = first.model
    del first
    second, was_loaded = get(cache, A)
    assert not was_loaded
    assert second.model is module
    stats = cache.stats()
    assert (stats.counters.hits, stats.counters.misses, stats.kept_bytes, stats.counters.saved_seconds) == (1, 1, 40, 1.0)
    assert stats.counters.read_bytes == 40


def test_loaders_object_is_never_handed_out_and_is_every_clones_ancestor(make):
    cache, made = make(), []

    def build(size):
        made.append(patcher(size))
        return made[-1]

    first, _ = get(cache, A, build=build)
    second, _ = get(cache, A)
    assert first is not made[0] and second is not first
    assert first.parent is made[0] and second.parent is made[0]


@pytest.mark.parametrize("wrapper", [FakeVAE, FakeCLIP])
def test_wrappers_are_handed_out_with_a_cloned_patcher(make, wrapper):
    cache = make()
    first, _ = get(cache, A, build=lambda size: wrapper(patcher(size)))
    second, was_loaded = get(cache, A)
    assert not was_loaded
    assert type(second) is wrapper
    assert second is not first and second.patcher is not first.patcher
    assert second.patcher.model is first.patcher.model


def test_only_the_missing_component_is_loaded(make):
    cache = make(100)
    del_me = cache.fetch({A: 40, B: 40}, lambda missing: {key: patcher(40) for key in missing})
    del del_me
    cache._table.evict(cache._table.entries[B], "test", "test")
    asked = []
    cache.fetch({A: 40, B: 40}, lambda missing: asked.extend(missing) or {B: patcher(40)})
    assert asked == [B]


def test_file_without_a_component_is_remembered(make):
    cache = make()
    assert cache.fetch({A: 10}, lambda missing: {A: None}) == {A: None}
    assert cache.fetch({A: 10}, lambda missing: pytest.fail("was loaded again")) == {A: None}


def test_result_without_a_patcher_is_passed_through_uncached(make):
    cache, broken = make(), object()
    assert cache.fetch({A: 10}, lambda missing: {A: broken})[A] is broken
    assert cache.stats().kept == 0
    assert "no patcher" in cache.receipts(None)[-1]["reason"]


def test_file_that_changed_during_the_load_is_not_cached(make):
    cache, key = make(), Key("X")
    key.is_current = lambda: False
    get(cache, key)
    assert cache.stats().kept == 0
    assert "changed while" in cache.receipts(None)[-1]["reason"]


def test_replaced_file_evicts_what_was_loaded_from_the_old_one(make):
    cache = make()
    old, new = Key("old", ["/m"]), Key("new", ["/m"])
    new.files = ("other inode",)
    get(cache, old)
    assert get(cache, new)[1]
    assert cache.stats().counters.evictions == {"file changed": 1}
    assert [entry["model"] for entry in cache.entries()] == ["new"]


def test_cap_is_never_exceeded_and_evicted_weights_are_gone(make):
    cache = make(100)
    modules = {key.label: weakref.ref(get(cache, key)[0].model) for key in (A, B)}
    for _ in range(3):
        get(cache, C, seconds=50.0)
    stats, kept = cache.stats(), {entry["model"] for entry in cache.entries()}
    assert stats.kept_bytes <= 100
    assert stats.counters.high_water_bytes <= 100
    assert stats.counters.evictions == {"room": 1}
    assert {name for name, module in modules.items() if module() is not None} == kept - {"C"}
    assert "C" in kept


def test_model_too_big_for_the_cap_is_lent_and_gone_after_use(make):
    cache = make(100)
    big, _ = get(cache, A, size=101)
    assert cache.receipts(None)[-1]["reason"] == "first use; not kept: too big for the cap"
    assert cache.stats().lent == 1
    again, was_loaded = get(cache, A, size=101)
    assert not was_loaded
    assert again.model is big.model
    assert cache.receipts(None)[-1]["tier"] == "in use"
    module = weakref.ref(big.model)
    del big, again
    cache.tick()
    assert module() is None
    assert get(cache, A, size=101)[1]


def test_evicted_in_use_is_lent_so_no_second_copy_is_made(make):
    cache = make(100)
    used, _ = get(cache, A)
    cache.clear()
    assert cache.stats().lent == 1
    again, was_loaded = get(cache, A)
    assert not was_loaded
    assert again.model is used.model
    assert cache.stats().kept == 1


def test_room_is_made_before_the_load(make):
    cache, kept_during_load = make(100), []
    for _ in range(4):
        get(cache, A, seconds=1.0)
    get(cache, B, seconds=1.0)

    def load(missing):
        kept_during_load.append(cache.stats())
        return {C: Loaded(patcher(60), 99.0)}

    for _ in range(4):
        cache.fetch({C: 60}, load)
    assert all(stats.kept_bytes + stats.reserved_bytes <= 100 for stats in kept_during_load)


def test_slower_to_reload_stays(make):
    cache = make(50)
    for _ in range(6):
        get(cache, A, seconds=0.5)
        get(cache, B, seconds=30.0)
    assert [entry["model"] for entry in cache.entries() if entry["state"] == "kept"] == ["B"]


def test_what_the_queue_names_soon_is_kept_before_what_it_does_not_name(make, owner):
    cache = make(80)
    wanted, other, new = Key("wanted", ["/w"]), Key("other", ["/o"]), Key("new", ["/n"])
    for key in (wanted, other):
        get(cache, key, seconds=1.0)
    owner.pending = ["/w", "/n"]
    get(cache, new, seconds=1.0)
    assert {entry["model"] for entry in cache.entries()} == {"wanted", "new"}
    owner.pending = ["/o", "/w", "/o"]
    get(cache, other, seconds=1.0)
    assert {entry["model"] for entry in cache.entries()} == {"wanted", "other"}, "what is not named any more goes"


def test_failed_load_leaves_nothing_behind(make):
    cache = make()

    def fail(missing):
        raise MemoryError("half-way")

    with pytest.raises(MemoryError):
        cache.fetch({A: 40, B: 10}, fail)
    stats = cache.stats()
    assert (stats.reserved_bytes, stats.kept, stats.counters.failures) == (0, 0, 2)
    assert cache._flights.busy() == 0
    assert get(cache, A)[1]


def test_failed_estimate_is_a_failed_load(make):
    """A file whose header cannot be read fails there."""
    cache = make()

    def fail():
        raise ValueError("truncated")

    cache.begin_prompt("p")
    with pytest.raises(ValueError, match="truncated"):
        cache.fetch({A: fail, B: 10}, lambda missing: pytest.fail("nothing is to be loaded"))
    assert [receipt["reason"] for receipt in cache.end_prompt("p")] == ["the load failed"] * 2
    stats = cache.stats()
    assert (stats.reserved_bytes, stats.counters.failures) == (0, 2) and cache._flights.busy() == 0


def test_shared_storages_are_counted_once(make):
    cache, shared = make(100), FakeTensor(50)
    keep = [get(cache, key, size=60, build=lambda _: FakePatcher(FakeModule(shared, FakeTensor(10))))[0] for key in (A, B)]
    assert cache.stats().kept_bytes == 70
    assert cache.stats().kept == 2
    del keep


def test_weights_on_an_accelerator_do_not_count_until_they_come_back(make):
    cache = make(100)
    model, _ = get(cache, A, size=80)
    loaded = FakeLoadedModel(model)
    model.model.tensors = [FakeTensor(80, "cuda")]
    assert cache.reclaim(loaded)
    assert cache.stats().kept_bytes == 0
    assert cache.entries()[0]["on_devices"] == 1
    assert get(cache, A)[0] and cache.receipts(None)[-1]["tier"] == "vram"
    model.model.tensors = [FakeTensor(80)]
    assert cache.retain(loaded)
    assert (cache.stats().kept_bytes, cache.entries()[0]["on_devices"]) == (80, 0)


def test_models_the_processor_runs_are_in_ram_and_are_forgotten_when_evicted(make, owner):
    cache = make(100)
    model, _ = get(cache, A)
    loaded, played = FakeLoadedModel(model), FakeLoadedModel(model)
    loaded.device, played.device = FakeDevice("cpu"), FakeDevice("cpu")
    played.device.index = 1
    cache.reclaim(loaded)
    assert get(cache, A)[0] and cache.receipts(None)[-1]["tier"] == "ram"
    cache.reclaim(played)
    assert get(cache, A)[0] and cache.receipts(None)[-1]["tier"] == "vram"
    del model
    cache.clear()
    assert owner.forgotten == [loaded, played]


def test_what_comes_back_from_the_accelerator_without_room_is_dropped(make):
    cache = make(100)
    model, _ = get(cache, A, size=80, seconds=1.0)
    loaded = FakeLoadedModel(model)
    model.model.tensors = [FakeTensor(80, "cuda")]
    cache.reclaim(loaded)
    other, _ = get(cache, B, size=90, seconds=500.0)
    model.model.tensors = [FakeTensor(80)]
    assert not cache.retain(loaded)
    assert [entry["model"] for entry in cache.entries() if entry["state"] == "kept"] == ["B"]
    del other


def test_unified_memory_counts_and_meta_and_mapped_files_do_not(make):
    mapped = FakeTensor(30)
    mapped.storage.filename = "weights.safetensors"
    cache = make(100)
    get(cache, A, build=lambda size: FakePatcher(FakeModule(FakeTensor(20, "mps"), FakeTensor(30, "meta"), mapped)))
    assert cache.stats().kept_bytes == 20


def test_two_devices_share_one_host_copy(make):
    cache = make(100)
    first, second = get(cache, A)[0], get(cache, A)[0]
    assert cache.reclaim(FakeLoadedModel(first)) and (keep := FakeLoadedModel(second)) and cache.reclaim(keep)
    one = FakeLoadedModel(first)
    cache.reclaim(one)
    assert cache.entries()[0]["on_devices"] == 2
    assert cache.stats().kept_bytes == 40
    cache.retain(one)
    assert cache.entries()[0]["on_devices"] == 1


def test_the_cache_leaves_models_of_others_alone(make):
    cache, foreign = make(), patcher(10)
    assert not cache.reclaim(FakeLoadedModel(foreign))
    assert not cache.retain(FakeLoadedModel(foreign))
    gone = FakeLoadedModel(patcher(10))
    assert not cache.retain(gone)


def test_cap_must_be_positive():
    with pytest.raises(ValueError, match="NullRamModelCache"):
        CacheSettings(0)


def test_cache_of_size_zero_keeps_and_starts_nothing():
    cache = NullRamModelCache()
    made = patcher(10)
    assert cache.fetch({A: 10}, lambda missing: {A: made})[A] is made
    assert cache.fetch({A: 10}, lambda missing: {A: Loaded(made, 1.0)})[A] is made
    module = weakref.ref(made.model)
    with cache.critical_section():
        assert not cache.retain(FakeLoadedModel(made))
        assert not cache.reclaim(None)
    made = None
    assert module() is None
    assert not vars(cache)
    assert cache.check() == []


def test_null_cache_answers_every_call_of_the_real_one():
    public = {name for name in dir(RamModelCache) if not name.startswith("_")}
    internal = {"single_flight", "lookup", "reserve", "admit", "abandon", "tick"}
    assert public - internal <= set(dir(NullRamModelCache))
