"""The contract of the RAM model cache: hits, misses, caps, pressure, drops, finalizers, receipts."""

import gc
import logging
import weakref

import pytest
from ram_cache_fakes import FakeCLIP, FakeDevice, FakeLoadedModel, FakeModule, FakePatcher, FakeTensor, FakeVAE, Host, Key, patcher

from comfy.ram_model_cache import CacheSettings, HostHooks, Loaded, NullRamModelCache, RamModelCache

A, B, C = Key("A"), Key("B"), Key("C")


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def make(host):
    made = []

    def build(cap=100, **settings):
        settings = {"headroom_bytes": 0, **settings}
        cache = RamModelCache(CacheSettings(cap, **settings), host.hooks(HostHooks), clock=lambda: host.now, wall_clock=lambda: 0.0,
                              start_thread=host.started.append)
        made.append(cache)
        return cache

    yield build
    for cache in made:
        assert cache.check() == []


def get(cache, key, size=40, build=patcher, seconds=1.0, **kwargs):
    """Fetch *key*; returns (the model, whether it was loaded)."""
    loads = []

    def load(missing):
        loads.extend(missing)
        return {key: Loaded(build(size), seconds) for key in missing}

    return cache.fetch({key: size}, load, **kwargs)[key], bool(loads)


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


def test_pending_prompts_models_are_evicted_last(make, host):
    cache = make(80)
    wanted, other = Key("wanted", ["/w"]), Key("other", ["/o"])
    get(cache, wanted, seconds=0.1)
    get(cache, other, seconds=50.0)
    host.pending = ["/w", "/n"]
    get(cache, Key("new", ["/n"]), seconds=1.0)
    assert {entry["model"] for entry in cache.entries()} == {"wanted", "new"}


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


def test_models_the_processor_runs_are_in_ram_and_are_forgotten_when_evicted(make, host):
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
    assert host.forgotten == [loaded, played]


def test_what_comes_back_from_the_accelerator_without_room_is_let_go(make):
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


def test_models_of_others_are_not_the_caches_business(make):
    cache, foreign = make(), patcher(10)
    assert not cache.reclaim(FakeLoadedModel(foreign))
    assert not cache.retain(FakeLoadedModel(foreign))
    gone = FakeLoadedModel(patcher(10))
    assert not cache.retain(gone)


def test_backups_are_counted_while_they_exist_and_the_base_is_restored_once_unused(make, host):
    cache = make(100)
    model, _ = get(cache, A)
    model.backup["w"] = FakeTensor(20)
    loaded = FakeLoadedModel(model)
    cache.reclaim(loaded)
    assert cache.stats().kept_bytes == 60
    cache.safe_point()
    assert host.restored == []
    del model
    cache.safe_point()
    assert len(host.restored) == 1
    assert cache.stats().kept_bytes == 40
    cache.safe_point()
    assert len(host.restored) == 1


def test_base_that_cannot_be_restored_is_dropped(make, host, caplog):
    cache = make()
    module = weakref.ref(get(cache, A)[0].model)
    host.fail_restore = True
    cache.safe_point()
    assert "could not be restored" in caplog.text
    assert module() is None
    assert get(cache, A)[1]
    assert "could not be restored" in cache.receipts(None)[-1]["reason"]


def test_descendants_keep_an_entry_in_use(make, host):
    cache = make()
    grandchild = get(cache, A)[0].clone().clone()
    cache.safe_point()
    assert host.restored == []
    assert cache.entries()[0]["in_use"]
    del grandchild
    cache.safe_point()
    assert len(host.restored) == 1


def test_eviction_forgets_each_loaded_model_exactly_once(make, host):
    cache = make()
    model, _ = get(cache, A)
    loaded = [FakeLoadedModel(model.parent), FakeLoadedModel(model.parent)]
    for one in loaded:
        cache.reclaim(one)
    del model
    cache.clear()
    cache.clear()
    cache.tick()
    assert [one.detached for one in loaded] == [1, 1]


def test_model_that_left_its_device_is_not_detached_again(make, host):
    cache = make()
    model, _ = get(cache, A)
    loaded = FakeLoadedModel(model)
    cache.reclaim(loaded)
    cache.retain(loaded)
    del model
    cache.clear()
    assert loaded.detached == 0


def test_model_whose_clone_died_before_it_left_its_device_is_not_detached_again(make, host):
    cache = make()
    model, _ = get(cache, A)
    loaded = FakeLoadedModel(model)
    cache.reclaim(loaded)
    del model
    assert cache.retain(loaded)
    cache.clear()
    assert loaded.detached == 0


def test_model_that_waits_to_be_dropped_is_not_detached_again_when_the_host_took_it_off_itself(make, host):
    cache = make()
    model, _ = get(cache, A)
    loaded = FakeLoadedModel(model)
    cache.reclaim(loaded)
    del model
    with cache.critical_section():
        cache.clear()
        assert not cache.retain(loaded)
    assert loaded.detached == 0


def test_host_that_fails_to_forget_does_not_stop_the_eviction(make, host, caplog):
    cache = make()
    model, _ = get(cache, A)
    loaded = FakeLoadedModel(model.parent)
    cache.reclaim(loaded)
    module = weakref.ref(model.model)
    del model
    object.__setattr__(cache._drops._hooks, "forget_loaded", lambda one: 1 / 0)
    cache.clear()
    assert module() is None
    assert "could not forget" in caplog.text


def test_nothing_is_dropped_inside_a_critical_section(make, host):
    cache = make()
    module = weakref.ref(get(cache, A)[0].model)
    with cache.critical_section():
        with cache.critical_section():
            cache.clear()
            cache.tick()
        gc.collect()
        assert module() is not None
        assert cache.stats().doomed_bytes == 40
        assert host.trims == 0
    assert module() is None
    assert (cache.stats().doomed_bytes, host.trims) == (0, 1)


def test_garbage_collection_with_the_lock_held_takes_no_lock(make):
    cache = make()
    model, _ = get(cache, A)
    circle = [model]
    circle.append(circle)
    del model, circle
    with cache.critical_section(), cache._lock:
        gc.collect()
    cache.tick()
    assert not cache.entries()[0]["in_use"]


def test_module_kept_alive_by_a_cycle_is_collected_on_eviction(make):
    cache = make()

    def build(size):
        made = patcher(size)
        made.model.itself = made.model
        return made

    module = weakref.ref(get(cache, A, build=build)[0].model)
    gc.disable()
    try:
        cache.clear()
        assert module() is None
    finally:
        gc.enable()


def test_pressure_shrinks_with_hysteresis_and_says_why(make, host, caplog):
    cache = make(1000, headroom_bytes=100)
    for index in range(5):
        get(cache, Key(f"m{index}"), size=40)
    with caplog.at_level(logging.INFO):
        host.available = 90
        cache.tick()
    assert cache.stats().kept == 3  # 90 left, 150 wanted: two go
    assert "shrinks" in caplog.text
    assert "evicted m0 (0.0 MB): memory pressure" in caplog.text
    host.available = 120
    cache.tick()
    assert cache.stats().under_pressure
    refused, _ = get(cache, Key("new"), size=10)
    assert "memory pressure" in cache.receipts(None)[-1]["reason"]
    assert cache.stats().kept == 3
    host.available = 150
    cache.tick()
    assert not cache.stats().under_pressure
    assert get(cache, Key("new"), size=10)[0] is not None
    assert cache.stats().kept == 4
    del refused


def test_models_in_use_survive_pressure(make, host):
    cache = make(1000, headroom_bytes=100)
    used, _ = get(cache, A)
    get(cache, B)
    host.available = 0
    cache.tick()
    assert [entry["model"] for entry in cache.entries()] == ["A"]
    del used


def test_pressure_does_not_evict_a_model_that_only_moves(make, host):
    cache = make(1000, headroom_bytes=100)
    model, _ = get(cache, A)
    host.available = 0
    cache.tick()
    loaded = FakeLoadedModel(model)
    assert cache.reclaim(loaded)
    assert cache.retain(loaded)
    assert cache.stats().kept == 1


def test_memory_that_waits_to_be_dropped_is_not_evicted_for_twice(make, host):
    cache = make(1000, headroom_bytes=100)
    for index in range(5):
        get(cache, Key(f"m{index}"), size=60)
    host.available = 90
    with cache.critical_section():
        cache.tick()
        cache.tick()
        assert cache.stats().kept == 4


def test_reading_makes_room_in_memory_first(make, host):
    cache = make(1000, headroom_bytes=100)
    get(cache, A)
    get(cache, B)
    host.available = 150
    kept = []
    cache.fetch({C: 80}, lambda missing: kept.append(cache.stats().kept) or {C: patcher(80)})
    assert kept == [1]


def test_idle_entries_expire_and_held_ones_do_not(make, host):
    cache = make(ttl_s=60)
    get(cache, A)
    get(cache, B, hold=True)
    host.now += 59
    cache.tick()
    assert cache.stats().kept == 2
    host.now += 2
    cache.tick()
    assert [entry["model"] for entry in cache.entries()] == ["B"]
    get(cache, A)
    assert "without use" in cache.receipts(None)[-1]["reason"]


def test_held_entries_go_last_and_only_under_pressure(make, host):
    cache = make(80, headroom_bytes=100)
    get(cache, A, hold=True, seconds=0.001)
    get(cache, B, seconds=99.0)
    for _ in range(5):
        get(cache, C, seconds=99.0)
    assert "A" in {entry["model"] for entry in cache.entries()}
    host.available = 90
    cache.tick()
    assert [entry["model"] for entry in cache.entries()] == ["A"] or cache.stats().kept == 0
    host.available = 0
    cache.tick()
    assert cache.stats().kept == 0


def test_hold_can_be_given_up(make):
    cache = make()
    get(cache, A, hold=True)
    assert cache.set_held(A, False)
    assert not cache.entries()[0]["held"]
    assert not cache.set_held(B, True)


def test_dynamic_patchers_are_unpinned_counted_by_pins_and_left_alone(make, host):
    cache = make()
    model, _ = get(cache, A, build=lambda size: patcher(size, dynamic=True, pinned=15))
    assert host.unpinned == [model.parent]
    assert cache.stats().kept_bytes == 15
    loaded = FakeLoadedModel(model)
    assert not cache.retain(loaded)
    assert cache.stats().kept == 1
    model.pinned = model.parent.pinned = -5
    cache.reclaim(loaded)
    assert cache.stats().kept_bytes == 0


def test_receipts_and_log_line_of_a_prompt(make, caplog):
    cache = make(50)
    cache.begin_prompt("p1")
    get(cache, A)
    get(cache, A)
    cache.note_bypass("model of x", "option o holds a callable")
    with caplog.at_level(logging.INFO):
        receipts = cache.end_prompt("p1")
    assert [(entry["tier"], entry["kept"]) for entry in receipts] == [("disk", True), ("ram", True), ("bypass", False)]
    assert receipts[0]["reason"] == "first use"
    assert "models of prompt p1: A from disk" in caplog.text
    get(cache, A)
    assert cache.receipts("p1") == receipts
    assert cache.receipts("unknown") == []
    assert cache.end_prompt("p2") == []


def test_two_loaders_of_one_prompt_count_as_one_request(make):
    cache = make()
    cache.begin_prompt("p")
    for _ in range(3):
        get(cache, A)
    assert cache._table.policy._now == 1
    cache.end_prompt("p")
    get(cache, A)
    get(cache, A)
    assert cache._table.policy._now == 3


def test_miss_names_who_evicted_it_and_when(make):
    cache = make(50)
    get(cache, A, seconds=0.1)
    for _ in range(3):
        get(cache, B, seconds=50.0)
    get(cache, A, seconds=0.1)
    reason = cache.receipts(None)[-1]["reason"]
    assert reason.startswith("evicted (room needed for B) at ")


def test_monitor_exists_only_while_there_is_something_to_watch(make, host):
    cache = make()
    cache.tick()
    assert host.started == []
    get(cache, A)
    get(cache, B)
    assert len(host.started) == 1
    ticks = []

    def wait(timeout):
        ticks.append(timeout)
        if len(ticks) == 2:
            cache.clear()
        return False

    cache._closed.wait = wait
    host.started[0]()
    assert len(ticks) == 2
    get(cache, A)
    assert len(host.started) == 2


def test_closed_cache_drops_everything_and_starts_no_thread(make, host):
    cache = make()
    get(cache, A)
    cache.close()
    assert (cache.stats().kept, cache._closed.is_set()) == (0, True)
    host.started[0]()
    get(cache, A)
    assert len(host.started) == 1


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
