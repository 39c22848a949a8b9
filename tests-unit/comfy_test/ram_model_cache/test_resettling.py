"""After a restored snapshot: another size, files under other identities, a clock that jumped; and held models that find no room."""

from types import SimpleNamespace

import pytest
from ram_cache_fakes import Key, get, patcher

from comfy.ram_model_cache.cache import CacheSettings, NullRamModelCache
from comfy.ram_model_cache.holds import NoRoom
from comfy.ram_model_cache.host_memory import UNLIMITED_BYTES
from comfy.ram_model_cache.sizing import settings_anew
from comfy.units import GIB, MIB

A, B, C = Key("A"), Key("B"), Key("C")


def hold(cache, key):
    """Fetch *key*, of 40 bytes, held."""
    with cache.holds.block():
        return cache.fetch({key: 40}, lambda missing: {key: patcher(40)})


def test_a_smaller_size_evicts_held_models_last(make):
    cache = make(100)
    hold(cache, A)
    get(cache, B)
    cache.resettle(CacheSettings(50), lambda key: key)
    assert cache.is_held(A) and cache.stats().kept == 1
    cache.resettle(CacheSettings(10), lambda key: key)
    assert cache.stats().kept_bytes == 0 and cache.check() == []
    assert cache.stats().cap_bytes == cache.settings.cap_bytes == 10


def test_models_are_found_under_the_files_new_identity(make):
    cache = make(200)
    module = hold(cache, A)[A].model
    get(cache, B)
    cache.resettle(cache.settings, lambda key: Key("A elsewhere") if key == A else key)
    found, was_loaded = get(cache, Key("A elsewhere"))
    assert not was_loaded and found.model is module
    assert cache.is_held(Key("A elsewhere")) and not cache.is_held(A)
    assert cache.stats().kept_bytes == 80 and cache.check() == []
    assert get(cache, A)[1]


def test_a_name_that_is_taken_stays_with_its_owner(make):
    cache = make(200)
    get(cache, A)
    get(cache, B)
    cache.resettle(cache.settings, lambda key: A)
    assert not get(cache, B)[1] and cache.check() == []


def test_a_clock_that_jumped_makes_nothing_idle(make, owner):
    cache = make(100, ttl_s=10.0)
    get(cache, A)
    owner.now += 1e6
    cache.resettle(cache.settings, lambda key: key)
    cache.tick()
    assert not get(cache, A)[1]


def test_what_cannot_be_held_is_not_read(make):
    cache = make(100)
    hold(cache, A)
    hold(cache, B)
    with pytest.raises(NoRoom, match="C would take"), cache.holds.block():
        cache.fetch({C: 40}, lambda missing: pytest.fail("it was read"))
    assert cache.is_held(A) and cache.is_held(B) and cache.stats().reserved_bytes == 0
    assert get(cache, C)[1], "outside such a block it is read all the same"


def test_what_is_held_does_not_go_for_what_is_only_to_be_held(make, owner):
    cache = make(200)
    headroom = cache.settings.headroom
    hold(cache, A)
    owner.available = headroom + 10
    with pytest.raises(NoRoom, match="C would take"), cache.holds.block():
        cache.fetch({C: 40}, lambda missing: pytest.fail("it was read"))
    assert cache.is_held(A) and cache.stats().reserved_bytes == 0 and cache.check() == []
    owner.available = 1 << 40
    get(cache, B)
    owner.available = headroom + 10
    hold(cache, C)
    assert cache.is_held(A) and cache.is_held(C) and cache.stats().kept == 2, "what is not held makes room"
    assert get(cache, B)[1] and not cache.is_held(A), "for what a prompt needs, it goes"


def test_the_cache_of_size_0_has_nothing_to_fit():
    NullRamModelCache().resettle(CacheSettings(1), lambda key: key)


@pytest.mark.parametrize(
    ("flag_mb", "total_gib", "expected_gib"), [(8 * 1024, 32, 8), (8 * 1024, 6, 4), (None, 32, 10), (None, 256, 32), (None, 8, 6)]
)
def test_the_size_follows_flags_and_never_exceeds_what_may_be_used(flag_mb, total_gib, expected_gib):
    memory = SimpleNamespace(total_bytes=lambda: total_gib * GIB, available_bytes=lambda: total_gib * GIB)
    before = CacheSettings(10 * GIB, headroom_bytes=2 * GIB)
    args = SimpleNamespace(ram_model_cache_mb=flag_mb)
    assert settings_anew(args, memory, before, 0).cap_bytes == expected_gib * 1024 * MIB < UNLIMITED_BYTES
