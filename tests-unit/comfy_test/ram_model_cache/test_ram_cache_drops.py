"""How models leave the RAM model cache: bases restored, finalizers detached once, memory given back, nothing at the wrong moment."""

import gc
import weakref

import pytest
from ram_cache_fakes import FakeLoadedModel, FakeTensor, Key, get, patcher

A, B, C = Key("A"), Key("B"), Key("C")


def test_backups_are_counted_while_they_exist_and_the_base_is_restored_once_unused(make, owner):
    cache = make(100)
    model, _ = get(cache, A)
    model.backup["w"] = FakeTensor(20)
    loaded = FakeLoadedModel(model)
    cache.reclaim(loaded)
    assert cache.stats().kept_bytes == 60
    cache.safe_point()
    assert owner.restored == []
    del model
    cache.safe_point()
    assert len(owner.restored) == 1
    assert cache.stats().kept_bytes == 40
    cache.safe_point()
    assert len(owner.restored) == 1


def test_base_that_cannot_be_restored_is_dropped(make, owner, caplog):
    cache = make()
    module = weakref.ref(get(cache, A)[0].model)
    owner.fail_restore = True
    cache.safe_point()
    assert "could not be restored" in caplog.text
    assert module() is None
    assert get(cache, A)[1]
    assert "could not be restored" in cache.receipts(None)[-1]["reason"]


def test_descendants_keep_an_entry_in_use(make, owner):
    cache = make()
    grandchild = get(cache, A)[0].clone().clone()
    cache.safe_point()
    assert owner.restored == []
    assert cache.entries()[0]["in_use"]
    del grandchild
    cache.safe_point()
    assert len(owner.restored) == 1


def test_eviction_forgets_each_loaded_model_exactly_once(make, owner):
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


def test_model_that_left_its_device_is_not_detached_again(make, owner):
    cache = make()
    model, _ = get(cache, A)
    loaded = FakeLoadedModel(model)
    cache.reclaim(loaded)
    cache.retain(loaded)
    del model
    cache.clear()
    assert loaded.detached == 0


def test_model_whose_clone_died_before_it_left_its_device_is_not_detached_again(make, owner):
    cache = make()
    model, _ = get(cache, A)
    loaded = FakeLoadedModel(model)
    cache.reclaim(loaded)
    del model
    assert cache.retain(loaded)
    cache.clear()
    assert loaded.detached == 0


def test_model_that_waits_to_be_dropped_is_not_detached_again_when_the_owner_took_it_off_itself(make, owner):
    cache = make()
    model, _ = get(cache, A)
    loaded = FakeLoadedModel(model)
    cache.reclaim(loaded)
    del model
    with cache.critical_section():
        cache.clear()
        assert not cache.retain(loaded)
    assert loaded.detached == 0


def test_an_owner_that_fails_to_forget_does_not_stop_the_eviction(make, owner, caplog):
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


def test_nothing_is_dropped_inside_a_critical_section(make, owner):
    cache = make()
    module = weakref.ref(get(cache, A)[0].model)
    with cache.critical_section():
        with cache.critical_section():
            cache.clear()
            cache.tick()
        gc.collect()
        assert module() is not None
        assert cache.stats().doomed_bytes == 40
        assert owner.trims == 0
    assert module() is None
    assert (cache.stats().doomed_bytes, owner.trims) == (0, 1)


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


def test_a_load_may_use_the_memory_of_what_is_dropped_for_it(make, owner):
    cache, seen = make(headroom_bytes=10), []
    get(cache, A, 10)
    owner.available = 80

    def load(missing):
        seen.append((cache.stats().doomed_bytes, owner.trims, owner.released))
        return {B: patcher(80)}

    cache.fetch({B: 80}, load)
    assert seen == [(0, 1, 0)] and owner.released == 1
    cache.clear()
    assert (owner.trims, owner.released) == (2, 2)


def test_a_load_that_fails_gives_back_what_was_dropped_for_it(make, owner):
    cache = make(headroom_bytes=10)
    get(cache, A, 10)
    owner.available = 80
    with pytest.raises(OSError, match="broken"):
        cache.fetch({B: 80}, lambda missing: (_ for _ in ()).throw(OSError("broken")))
    assert owner.released == 1


def test_a_load_that_makes_no_room_gives_nothing_back(make, owner):
    cache = make()
    get(cache, A, 40)
    get(cache, B, 40)
    assert owner.released == 0
