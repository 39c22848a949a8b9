"""What the RAM model cache does by itself: memory pressure, idle and held entries, pins, receipts, the monitor."""

import dataclasses
import logging
import threading

import pytest
from ram_cache_fakes import FakeLoadedModel, FakeTensor, Key, get, patcher

A, B, C = Key("A"), Key("B"), Key("C")


def test_pressure_shrinks_with_hysteresis_and_says_why(make, owner, caplog):
    cache = make(1000, headroom_bytes=100)
    for index in range(5):
        get(cache, Key(f"m{index}"), size=40)
    with caplog.at_level(logging.INFO):
        owner.available = 90
        cache.tick()
    assert cache.stats().kept == 3  # 90 left, 150 wanted: two go
    assert "shrinks" in caplog.text
    assert "evicted m0 (0.0 MB): memory pressure" in caplog.text
    owner.available = 120
    cache.tick()
    assert cache.stats().under_pressure
    refused, _ = get(cache, Key("new"), size=10)
    assert "memory pressure" in cache.receipts(None)[-1]["reason"]
    assert cache.stats().kept == 3
    owner.available = 150
    cache.tick()
    assert not cache.stats().under_pressure
    assert get(cache, Key("new"), size=10)[0] is not None
    assert cache.stats().kept == 4
    del refused


def test_models_in_use_survive_pressure(make, owner):
    cache = make(1000, headroom_bytes=100)
    used, _ = get(cache, A)
    get(cache, B)
    owner.available = 0
    cache.tick()
    assert [entry["model"] for entry in cache.entries()] == ["A"]
    del used


def test_pressure_does_not_evict_a_model_that_only_moves(make, owner):
    cache = make(1000, headroom_bytes=100)
    model, _ = get(cache, A)
    owner.available = 0
    cache.tick()
    loaded = FakeLoadedModel(model)
    assert cache.reclaim(loaded)
    assert cache.retain(loaded)
    assert cache.stats().kept == 1


def test_memory_that_waits_to_be_dropped_is_not_evicted_for_twice(make, owner):
    cache = make(1000, headroom_bytes=100)
    for index in range(5):
        get(cache, Key(f"m{index}"), size=60)
    owner.available = 90
    with cache.critical_section():
        cache.tick()
        cache.tick()
        assert cache.stats().kept == 4


def test_what_makes_room_in_the_cache_frees_memory_for_the_read_too(make, owner):
    cache = make(1000, headroom_bytes=100)
    for index in range(5):
        get(cache, Key(f"m{index}"), size=60)
    owner.available = 90
    cache.tick()  # one goes; until 150 bytes are free, what comes takes the place of what goes
    owner.available = 120
    get(cache, Key("new"), size=60)  # 40 of 160 bytes are missing: what goes for the room is enough
    assert cache.stats().kept == 4 and dict(cache.stats().counters.evictions) == {"memory pressure": 1, "room": 1}


@pytest.mark.parametrize("real_bytes, kept", [(645, 4), (700, 3)])
def test_what_lies_between_tensors_makes_no_room_twice_under_pressure(make, owner, real_bytes, kept):
    cache = make(10_000, headroom_bytes=100)
    for index in range(5):
        get(cache, Key(f"m{index}"), size=640)
    owner.available = 90
    cache.tick()  # one goes; until 150 bytes are free, what comes takes the place of what goes
    owner.available = 120
    get(cache, Key("new"), size=640, build=lambda estimated_bytes: patcher(real_bytes))
    assert cache.stats().kept == kept, "one makes room for what was estimated, another only for a wrong estimate"


def test_reading_makes_room_in_memory_first(make, owner):
    cache = make(1000, headroom_bytes=100)
    get(cache, A)
    get(cache, B)
    owner.available = 150
    kept = []
    cache.fetch({C: 80}, lambda missing: kept.append(cache.stats().kept) or {C: patcher(80)})
    assert kept == [1]


def leave_patched(cache, owner, key):
    """Load *key* with patched weights as large as its own, which stay when its clone is gone."""
    owner.keeps_patched = True
    clone, _ = get(cache, key, size=40)
    clone.backup["weight"], clone.model.tensors = clone.model.tensors[0], [FakeTensor(40)]
    loaded = FakeLoadedModel(clone)
    assert cache.reclaim(loaded) and cache.retain(loaded)
    del clone
    cache.safe_point()


def test_under_pressure_patched_weights_go_before_models(make, owner, caplog):
    cache = make(1000, headroom_bytes=100)
    leave_patched(cache, owner, A)
    leave_patched(cache, owner, B)
    assert cache.stats().kept_bytes == 160 and owner.unpatched == []
    owner.available, owner.now = 90, owner.now + 1
    real = owner.unpatch

    def unpatch(patcher):  # what is given up is free at once
        changed = real(patcher)
        owner.available += 40 * changed
        return changed

    cache._upkeep._hooks = cache._hooks = dataclasses.replace(cache._hooks, unpatch_base=unpatch)
    with caplog.at_level(logging.INFO):
        cache.safe_point()
    assert len(owner.unpatched) == 2 and owner.available == 170  # 150 were wanted
    assert cache.stats().kept == 2 and cache.stats().kept_bytes == 80 and not cache.stats().under_pressure
    assert "patched weights of A given up (0.0 MB): memory pressure" in caplog.text


def test_no_more_patched_weights_go_than_is_needed_and_those_in_use_stay(make, owner):
    cache = make(1000, headroom_bytes=100)
    leave_patched(cache, owner, A)
    leave_patched(cache, owner, B)
    used, _ = get(cache, A)
    cache._upkeep.unpatch_idle(1000, "a test")
    assert len(owner.unpatched) == 1 and id(used.parent) not in owner.unpatched
    assert cache.stats().kept_bytes == 120
    del used
    cache._upkeep.unpatch_idle(0, "a test")
    assert cache.stats().kept_bytes == 120
    cache._upkeep.unpatch_idle(1, "a test")
    assert cache.stats().kept_bytes == 80


def test_a_model_that_is_read_in_a_prompt_takes_the_place_of_patched_weights_first(make, owner):
    cache = make(200)
    leave_patched(cache, owner, A)
    leave_patched(cache, owner, B)
    cache.begin_prompt("p")
    get(cache, C, size=100)
    cache.end_prompt("p")
    assert {entry["model"] for entry in cache.entries()} == {"A", "B", "C"} and cache.stats().kept_bytes == 180


def test_outside_prompts_models_are_left_alone_because_another_thread_may_use_them(make, owner):
    cache = make(200)
    leave_patched(cache, owner, A)
    leave_patched(cache, owner, B)
    get(cache, C, size=100)
    assert owner.unpatched == []


def test_a_base_that_cannot_be_unpatched_is_evicted(make, owner, caplog):
    cache = make(1000, headroom_bytes=100)
    leave_patched(cache, owner, A)
    owner.fail_restore = True
    cache._upkeep.unpatch_idle(1, "a test")
    assert cache.entries() == [] and "could not be restored" in caplog.text


def test_idle_entries_expire_and_held_ones_do_not(make, owner):
    cache = make(ttl_s=60)
    get(cache, A)
    get(cache, B, hold=True)
    owner.now += 59
    cache.tick()
    assert cache.stats().kept == 2
    owner.now += 2
    cache.tick()
    assert [entry["model"] for entry in cache.entries()] == ["B"]
    get(cache, A)
    assert "without use" in cache.receipts(None)[-1]["reason"]


def test_held_entries_go_last_and_only_under_pressure(make, owner):
    cache = make(80, headroom_bytes=100)
    get(cache, A, hold=True, seconds=0.001)
    get(cache, B, seconds=99.0)
    for _ in range(5):
        get(cache, C, seconds=99.0)
    assert "A" in {entry["model"] for entry in cache.entries()}
    owner.available = 90
    cache.tick()
    assert [entry["model"] for entry in cache.entries()] == ["A"] or cache.stats().kept == 0
    owner.available = 0
    cache.tick()
    assert cache.stats().kept == 0


def test_what_is_fetched_in_a_block_of_holds_is_held(make):
    cache = make()
    get(cache, A)
    with cache.holds.block() as outer:
        get(cache, A)
        with cache.holds.block() as inner:
            get(cache, B)
    get(cache, C)
    assert (outer, inner) == ({A}, {B})
    assert {entry["model"]: entry["held"] for entry in cache.entries()} == {"A": True, "B": True, "C": False}


def test_a_block_of_holds_belongs_to_its_thread(make):
    cache = make()
    with cache.holds.block() as keys:
        other = threading.Thread(target=get, args=(cache, A))
        other.start()
        other.join()
        get(cache, B)
    assert keys == {B} and [entry["held"] for entry in cache.entries()] == [False, True]


def test_hold_can_be_given_up(make):
    cache = make()
    get(cache, A, hold=True)
    assert cache.is_held(A) and not cache.is_held(B)
    assert cache.set_held(A, False)
    assert not cache.entries()[0]["held"] and not cache.is_held(A)
    assert not cache.set_held(B, True)


def test_dynamic_patchers_are_unpinned_counted_by_pins_and_left_alone(make, owner):
    cache = make()
    model, _ = get(cache, A, build=lambda size: patcher(size, dynamic=True, pinned=15))
    assert owner.unpinned == [model.parent]
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
    assert cache._table.policy.known.now == 1
    cache.end_prompt("p")
    get(cache, A)
    get(cache, A)
    assert cache._table.policy.known.now == 3


def test_miss_names_who_evicted_it_and_when(make):
    cache = make(50)
    get(cache, A, seconds=0.1)
    for _ in range(3):
        get(cache, B, seconds=50.0)
    get(cache, A, seconds=0.1)
    reason = cache.receipts(None)[-1]["reason"]
    assert reason.startswith("evicted (room needed for B) at ")


def test_monitor_exists_only_while_there_is_something_to_watch(make, owner):
    cache = make()
    cache.tick()
    assert owner.started == []
    get(cache, A)
    get(cache, B)
    assert len(owner.started) == 1
    ticks = []

    def wait(timeout):
        ticks.append(timeout)
        if len(ticks) == 2:
            cache.clear()
        return False

    cache._closed.wait = wait
    owner.started[0]()
    assert len(ticks) == 2
    get(cache, A)
    assert len(owner.started) == 2


def test_closed_cache_drops_everything_and_starts_no_thread(make, owner):
    cache = make()
    get(cache, A)
    cache.close()
    assert (cache.stats().kept, cache._closed.is_set()) == (0, True)
    owner.started[0]()
    get(cache, A)
    assert len(owner.started) == 1
