"""Which models the RAM cache keeps: cost, size, scans, pending prompts, held entries."""

import random

import pytest
from ram_cache_fakes import patcher

from comfy.ram_model_cache.cache import CacheSettings, Loaded, RamModelCache
from comfy.ram_model_cache.policy import RamCachePolicy


def replay(policy, requests, sizes, seconds, cap):
    """Ask *policy* as the cache does; returns the keys that were found, request by request, and what is kept at the end."""
    kept, found = {}, []
    for key in requests:
        policy.request(key)
        found.append(key in kept)
        if key in kept:
            continue
        decision = policy.decide(key, sizes[key], cap, kept)
        policy.learn(key, sizes[key], seconds[key])
        for victim in decision.victims:
            del kept[victim]
        if decision.admit:
            kept[key] = sizes[key]
        assert sum(kept.values()) <= cap
    return found, kept


@pytest.mark.parametrize("count, fit", [(2, 1), (3, 2), (5, 3), (8, 7)])
def test_cycle_larger_than_the_cap_keeps_what_fits(count, fit):
    keys = [f"m{index}" for index in range(count)]
    found, _ = replay(RamCachePolicy(), keys * 10, dict.fromkeys(keys, 10), dict.fromkeys(keys, 2.0), 10 * fit + 5)
    assert sum(found[3 * count :]) >= 0.9 * fit * 7


def test_ping_pong_keeps_the_one_that_is_slow_to_reload():
    found, kept = replay(RamCachePolicy(), ["fast", "slow"] * 8, {"fast": 10, "slow": 10}, {"fast": 1.0, "slow": 9.0}, 12)
    assert list(kept) == ["slow"]
    assert sum(found) >= 6


def test_small_and_slow_keys_win_over_a_large_fast_one():
    keys = ["large", "a", "b"]
    _, kept = replay(RamCachePolicy(), keys * 8, {"large": 100, "a": 30, "b": 30}, {"large": 3.0, "a": 3.0, "b": 3.0}, 100)
    assert set(kept) == {"a", "b"}


def test_nightly_batch_of_one_off_files_leaves_what_is_used_daily():
    nights = [[f"batch{night}-{index}" for index in range(8)] for night in range(4)]
    requests = [key for night in nights for key in (*("a", "b") * 4, *night)] + ["a", "b"]
    found, _ = replay(RamCachePolicy(), requests, dict.fromkeys(requests, 10), dict.fromkeys(requests, 1.0), 20)
    assert found[-2:] == [True, True]


def test_working_set_that_moved_on_is_followed():
    sizes = dict.fromkeys("abcdef", 10)
    _, kept = replay(RamCachePolicy(), list("ab" * 20 + "cd" * 20 + "ef" * 20), sizes, dict.fromkeys(sizes, 1.0), 20)
    assert set(kept) == {"e", "f"}


def test_key_larger_than_the_cap_is_refused():
    decision = RamCachePolicy().decide("a", 11, 10, {})
    assert not decision.admit
    assert decision.reason == "too big for the cap"


def test_free_room_admits_anything_that_fits():
    assert RamCachePolicy().decide("a", 4, 10, {"b": 6}).admit


def test_keys_of_pending_prompts_are_evicted_last():
    policy = RamCachePolicy()
    for key in ("pending", "other"):
        policy.request(key)
        policy.learn(key, 10, 1.0 if key == "pending" else 50.0)
    kept = {"pending": 10, "other": 10}
    assert policy.eviction_order(kept, first={"pending"}) == ["other", "pending"]
    policy.request("new")
    decision = policy.decide("new", 10, 20, kept, first={"pending", "new"})
    assert decision.admit
    assert decision.victims == ("other",)
    assert not policy.decide("new", 10, 20, kept, first={"pending", "other"}).admit


def test_held_keys_never_make_room_and_come_last_in_the_order():
    policy = RamCachePolicy()
    for _ in range(5):
        policy.request("new")
    policy.learn("new", 10, 100.0)
    kept = {"held": 10, "plain": 10}
    assert policy.eviction_order(kept, held={"held"}) == ["plain", "held"]
    assert policy.decide("new", 10, 20, kept, held={"held"}).victims == ("plain",)
    assert policy.decide("new", 11, 20, kept, held={"held"}).reason == "too big for the cap"


def test_reload_seconds_of_an_unknown_key_follow_the_speed_measured_so_far():
    policy = RamCachePolicy()
    policy.request("a")
    policy.learn("a", 100, 5.0)
    assert policy.known.seconds_for("a", 100) == 5.0
    assert policy.known.seconds_for("never loaded", 40) == pytest.approx(2.0)


def test_random_requests_never_exceed_the_cap_nor_grow_the_record():
    rng = random.Random(3)
    keys = [f"m{index}" for index in range(700)]
    sizes, seconds = {key: rng.randint(1, 50) for key in keys}, {key: rng.random() for key in keys}
    policy = RamCachePolicy()
    replay(policy, rng.choices(keys, k=900), sizes, seconds, 200)
    assert len(policy.known) <= 512


@pytest.mark.parametrize("order", ["abc" * 8, "aabbbcacbbca" * 3, "ab" * 5 + "cd" * 5 + "abcd" * 4])
def test_cache_does_what_the_replay_predicts(order):
    sizes, seconds = dict(zip("abcd", (40, 30, 50, 20))), dict(zip("abcd", (1.0, 7.0, 2.0, 4.0)))
    predicted, _ = replay(RamCachePolicy(), order, sizes, seconds, 90)
    cache = RamModelCache(CacheSettings(90, headroom_bytes=0), start_thread=lambda run: None)
    found = []
    for key in order:
        hits = cache.stats().counters.hits
        cache.fetch({key: sizes[key]}, lambda missing: {name: Loaded(patcher(sizes[name]), seconds[name]) for name in missing})
        found.append(cache.stats().counters.hits > hits)
    assert found == predicted
    assert any(found)
    assert cache.check() == []
