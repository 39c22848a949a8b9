"""Reading ahead into the RAM model cache: found or joined by the loader, evicting nothing, and deciding nothing differently."""

import dataclasses
import random
import threading
import weakref

import pytest
from ram_cache_fakes import Key, Owner, caches, get, patcher

from comfy.ram_model_cache.ahead import NotAhead
from comfy.ram_model_cache.cache import Loaded, NullRamModelCache
from comfy.ram_model_cache.receipts import current_prompt
from comfy.ram_model_cache.reservations import Reservations

A, B, C = Key("A"), Key("B"), Key("C")


@pytest.fixture(autouse=True)
def no_prompt_afterwards():
    """What a test begins belongs to no other."""
    before = current_prompt.set(None)
    yield
    current_prompt.reset(before)


def read_ahead(cache, key, size=40, seconds=1.0, beyond_cap=False, build=patcher):
    """Read *key* ahead; why not, or ""."""
    try:
        with cache.ahead.block(beyond_cap):
            get(cache, key, size, build, seconds)
    except NotAhead as reason:
        return str(reason)
    return ""


def tiers(cache, prompt_id):
    return [(receipt["tier"], receipt["seconds"], receipt["kept"], receipt["reason"]) for receipt in cache.receipts(prompt_id)]


def test_what_was_read_ahead_waits_for_its_loader_and_is_then_like_any_other(make):
    cache = make()
    assert read_ahead(cache, A, seconds=3.0) == ""
    stats = cache.stats()
    assert (stats.kept_bytes, stats.lent, stats.lent_bytes) == (0, 1, 40)
    assert (stats.counters.read_ahead, stats.counters.misses, stats.counters.hits, stats.counters.read_bytes) == (1, 0, 0, 40)
    cache.begin_prompt("p")
    model, was_loaded = get(cache, A)
    assert not was_loaded and tiers(cache, "p") == [("ahead", 3.0, True, "first use")]
    get(cache, A)
    assert [tier for tier, *_ in tiers(cache, "p")] == ["ahead", "ram"] and tiers(cache, "p")[1][1] == 3.0
    counters = cache.stats().counters
    assert (counters.misses, counters.hits, counters.hidden_seconds, counters.ahead_unused) == (1, 1, 3.0, 0)
    assert cache.stats().kept_bytes == 40 and not cache.ahead.waiting()
    del model


@pytest.mark.parametrize("read_first", [(), (A, B), (B, A)], ids=["nothing", "in order", "the other way round"])
def test_of_equal_models_the_one_asked_for_first_stays_in_whatever_order_they_were_read(make, owner, read_first):
    cache = make(100)
    for key in read_first:
        assert read_ahead(cache, key) == ""
    for key in (A, B):
        get(cache, key)
    owner.pending = ("wanted",)
    get(cache, Key("pending", owner.pending))
    assert [entry["model"] for entry in cache.entries()] == ["A", "pending"]


def test_a_loader_that_comes_while_it_is_read_waits_for_it_and_has_the_rest_hidden_only(make, owner):
    cache, reading, go_on, found = make(), threading.Event(), threading.Event(), []

    def slow(size):
        reading.set()
        assert go_on.wait(10)
        return patcher(size)

    ahead = threading.Thread(target=read_ahead, args=(cache, A, 40, 3.0), kwargs={"build": slow})
    ahead.start()
    assert reading.wait(10)
    with cache.ahead.block(False) as other:
        other.keys.add(A)
        assert not cache.ahead.awaited(other)
    loader = threading.Thread(target=lambda: found.append(get(cache, A)))
    loader.start()
    while not cache.ahead.awaited(other):
        pass
    owner.now += 2.0
    go_on.set()
    ahead.join(10)
    loader.join(10)
    assert [was_loaded for _, was_loaded in found] == [False]
    assert not cache.ahead.awaited(other) and cache._flights.busy() == 0
    assert tiers(cache, None) == [("ahead", 1.0, True, "first use")]


def test_seconds_that_a_loader_waits_are_taken_off_once_for_all_that_was_read_together(make, owner):
    cache = make()
    with cache.ahead.block(False):
        cache.fetch({A: 10, B: 10}, lambda missing: {key: Loaded(patcher(10), 3.0) for key in missing})
    cache.begin_prompt("p")
    hits = [cache.lookup(A, 4.0), cache.lookup(B, 1.0)]
    assert [seconds for _, seconds, *_ in tiers(cache, "p")] == [0.0, 2.0] and all(hits)


def test_it_must_fit_under_the_cap_beside_what_is_kept_unless_it_is_wanted_next(make):
    cache = make(100)
    kept = get(cache, A, 60)
    assert "does not fit beside" in read_ahead(cache, B, 60)
    assert read_ahead(cache, B, 60, beyond_cap=True) == ""
    assert "does not fit beside" in read_ahead(cache, C, 30)  # what waits counts
    stats = cache.stats()
    assert (stats.kept, stats.lent, stats.counters.evictions, stats.counters.refusals) == (1, 1, {}, 0)
    assert kept[0].model is not get(cache, B, 60)[0].model


def test_the_ram_for_it_must_be_free_and_it_goes_first_when_ram_is_short(make, owner):
    cache = make(1000, headroom_bytes=100)
    owner.available = 130
    assert "too little RAM" in read_ahead(cache, A, 40)
    owner.available = 1000
    assert read_ahead(cache, A, 40) == ""
    module = weakref.ref(cache._table.entries[A].value.model)
    cache.tick()
    assert cache.ahead.waiting() == [A]
    owner.available = 90
    cache.tick()
    assert not cache.ahead.waiting() and module() is None and cache.stats().counters.ahead_unused == 1
    owner.available = 1000
    cache.tick()
    read_ahead(cache, A, 40)
    owner.available = 130
    get(cache, B, 40)  # needs the RAM now
    assert not cache.ahead.waiting() and cache.stats().counters.ahead_unused == 2


def test_loads_in_progress_count_when_ram_is_looked_at(make, owner):
    cache, inside = make(1000), []
    owner.available = 100

    def build(size):
        other = threading.Thread(target=lambda: inside.append(read_ahead(cache, B, 60)))
        other.start()
        other.join(10)
        return patcher(size)

    assert read_ahead(cache, A, 60, build=build) == ""
    assert ["too little RAM" in why for why in inside] == [True]


def test_what_is_here_or_being_loaded_is_not_read_again(make):
    cache, inside = make(), []
    get(cache, A)
    assert "here already" in read_ahead(cache, A)
    assert cache.ahead.has({A}) and not cache.ahead.has({A, B})

    def build(size):
        other = threading.Thread(target=lambda: inside.append(read_ahead(cache, B)))
        other.start()
        other.join(10)
        return patcher(size)

    get(cache, B, build=build)
    assert ["being loaded" in why for why in inside] == [True]
    assert cache.stats().counters.read_ahead == 0


def test_only_the_missing_part_is_read_ahead_and_a_part_that_is_not_there_is_remembered(make):
    cache, asked = make(), []
    get(cache, A)

    def load(missing):
        asked.extend(missing)
        return {B: patcher(10), C: None}

    with cache.ahead.block(False) as block:
        found = cache.fetch({A: 40, B: 10, C: 0}, load)
    assert asked == [B, C] and found[A] is not None and found[B] is not None and found[C] is None
    assert block.keys == {A, B, C} and cache.ahead.has(block.keys) and cache.ahead.waiting() == [B]


def test_a_load_that_fails_leaves_nothing_and_fails_again_in_its_loader(make):
    cache = make()

    def fails(size):
        raise OSError("damaged")

    for attempt in (lambda: read_ahead(cache, A, build=fails), lambda: get(cache, A, build=fails)):
        with pytest.raises(OSError, match="damaged"):
            attempt()
    stats = cache.stats()
    assert (stats.counters.failures, stats.counters.read_ahead, stats.lent, stats.reserved_bytes) == (1, 0, 0, 0)
    assert cache._table.loads.loading_bytes() == 0 and cache._flights.busy() == 0


@pytest.mark.parametrize("why", ["it has no patcher", "a file changed while it was read"])
def test_what_cannot_be_kept_is_not_read_ahead(make, why):
    cache, key = make(), Key("X")
    key.is_current = lambda: "patcher" in why
    assert read_ahead(cache, key, build=(lambda size: object()) if "patcher" in why else patcher) == why
    assert cache.stats().lent == 0 and cache._table.loads.loading_bytes() == 0


def test_loads_beside_the_cache_end_a_load_ahead_before_they_read(make):
    cache = make()
    with pytest.raises(NotAhead, match="of its own"), cache.ahead.block(False):
        cache.note_bypass("model of m", "weights of its own were asked for")
    assert cache.stats().counters.bypasses == 0
    cache.note_bypass("model of m", "weights of its own were asked for")
    assert cache.stats().counters.bypasses == 1


def test_freeing_memory_drops_what_waits(make):
    cache = make()
    read_ahead(cache, A)
    module = weakref.ref(cache._table.entries[A].value.model)
    cache.clear()
    assert module() is None and not cache.ahead.waiting() and cache.stats().counters.ahead_unused == 1


def test_of_a_replaced_file_the_old_model_leaves_when_the_new_one_is_asked_for(make):
    cache = make()
    old, new = Key("old", ["/m"]), Key("new", ["/m"])
    new.files = ("other inode",)
    get(cache, old)
    read_ahead(cache, new)
    assert cache.stats().kept == 1
    get(cache, new)
    assert cache.stats().counters.evictions == {"file changed": 1} and [entry["model"] for entry in cache.entries()] == ["new"]


def test_blocks_belong_to_their_thread(make):
    cache, seen = make(), []
    with cache.ahead.block(False):
        other = threading.Thread(target=lambda: seen.append((cache.ahead.current(), get(cache, A)[1])))
        other.start()
        other.join(10)
    assert seen == [(None, True)] and cache.ahead.current() is None and not hasattr(NullRamModelCache(), "ahead")


def test_reservations_count_what_is_to_be_kept_and_all_that_is_loading():
    loads = Reservations()
    loads.begin(A, 10)
    loads.begin(B, 20, refusal="read ahead")
    assert (loads.reserved_bytes(), loads.loading_bytes()) == (10, 30)
    loads.begin(A, 5)
    assert loads.take(A).estimated_bytes == 5 and loads.take(C, hold=True).held
    loads.end(B)
    loads.end(B)
    assert loads.loading_bytes() == 0


@pytest.mark.parametrize("seed", range(40))
def test_random_requests_are_decided_as_without_reading_ahead(seed):
    """Two caches get the same requests, one of them some reads ahead before each: the same is kept, evicted and loaded."""
    rng = random.Random(seed)
    cap = rng.choice([60, 100, 150, 1000])
    sizes = {Key(f"k{number}"): rng.choice([10, 25, 40, 70]) for number in range(8)}
    costs = {key: rng.choice([0.1, 1.0, 20.0]) for key in sizes}
    makers = [caches(Owner()) for _ in range(2)]
    plain, ahead = (next(maker)(cap) for maker in makers)
    in_use = ([], [])
    for _ in range(60):
        key = rng.choice(list(sizes))
        if rng.random() < 0.7:
            read_ahead(ahead, key, sizes[key], costs[key], beyond_cap=True)
        if rng.random() < 0.2:
            other = rng.choice(list(sizes))
            read_ahead(ahead, other, sizes[other], costs[other], beyond_cap=True)
            if other != key and other in ahead.ahead.waiting():
                ahead.ahead.let_go(other)
        keeps_using = rng.random() < 0.3
        for cache, users in zip((plain, ahead), in_use):
            model, _ = get(cache, key, sizes[key], seconds=costs[key])
            users[:] = [model] if keeps_using else []
            del model
            cache.tick()
        shown = [{entry["model"]: (entry["state"], entry["bytes"]) for entry in cache.entries()} for cache in (plain, ahead)]
        assert shown[0] == shown[1]
    figures = [dataclasses.asdict(cache.stats().counters) for cache in (plain, ahead)]
    for name in ("hits", "misses", "refusals", "evictions", "failures"):
        assert figures[0][name] == figures[1][name], name
    assert figures[1]["read_ahead"] > 0
    for maker in makers:
        with pytest.raises(StopIteration):
            next(maker)
