"""The registry of external caches and what keys look like outside the process."""

import logging
import math
import threading

import pytest

from comfy_execution import cache_provider
from comfy_execution.cache_provider import (
    CacheProvider,
    CacheValue,
    ProviderRegistry,
    _canonicalize,
    _contains_self_unequal,
    _estimate_value_size,
    _get_cache_providers,
    _has_cache_providers,
    _serialize_cache_key,
    register_cache_provider,
    unregister_cache_provider,
)


class Kept(CacheProvider):
    async def on_lookup(self, context):
        return None

    async def on_store(self, context, value):
        pass


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Leave the process's registry alone."""
    monkeypatch.setattr(cache_provider, "_registry", ProviderRegistry())


def test_providers_are_asked_in_the_order_of_registration():
    first, second = Kept(), Kept()
    assert not _has_cache_providers()
    register_cache_provider(first)
    register_cache_provider(second)
    before = _get_cache_providers()
    unregister_cache_provider(first)
    assert before == (first, second) and _get_cache_providers() == (second,) and _has_cache_providers()


def test_each_change_is_logged_and_what_changes_nothing_is_warned_of(caplog):
    provider = Kept()
    with caplog.at_level(logging.DEBUG, "comfy_execution.cache_provider"):
        for change in (register_cache_provider, register_cache_provider, unregister_cache_provider, unregister_cache_provider):
            change(provider)
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING", "DEBUG", "WARNING"]
    assert {record.name for record in caplog.records} == {"comfy_execution.cache_provider"}
    assert all("Kept" in record.getMessage() for record in caplog.records)


def test_threads_may_register_at_once():
    registry = ProviderRegistry()
    barrier = threading.Barrier(8)

    def work():
        barrier.wait()
        for _ in range(50):
            registry.register(Kept())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.snapshot()) == 400
    registry.clear()
    assert registry.snapshot() == ()


def test_a_provider_needs_both_coroutines_and_takes_everything_by_default():
    with pytest.raises(TypeError):
        CacheProvider()
    provider = Kept()
    assert provider.should_cache(None) and provider.should_cache(None, CacheValue([]))
    assert provider.on_prompt_start("p") is provider.on_prompt_end("p") is None
    assert CacheValue([[1]]).ui is None


def test_keys_outside_tell_types_apart_and_do_not_depend_on_order():
    keys = [1, 1.0, True, "1", None, b"1", (1,), [1], {1}, frozenset({1}), {"1": 1}, {1: 1}, (), [], ("__tuple__", [])]
    hashes = [_serialize_cache_key(key) for key in keys]
    assert len(set(hashes)) == len(keys) and all(len(one) == 64 for one in hashes)
    assert _serialize_cache_key({"b": {3, 1, 2}, "a": 0}) == _serialize_cache_key({"a": 0, "b": {2, 3, 1}})


@pytest.mark.parametrize("key", [object(), [object()], math.nan, {1: {2: object()}}], ids=lambda value: repr(value).partition(" at 0x")[0])
def test_a_key_without_a_form_is_warned_of(key, caplog):
    assert _serialize_cache_key(key) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_endless_nesting_gives_no_key():
    key = []
    for _ in range(100_000):
        key = [key]
    assert _serialize_cache_key(key) is None
    assert _contains_self_unequal([key, math.nan]) and not _contains_self_unequal(key)
    circle = [1]
    circle.append(circle)
    assert not _contains_self_unequal({"a": 1}) and _contains_self_unequal({math.nan: 1})


class Odd:
    def __eq__(self, other):
        raise RuntimeError("cannot say")

    __hash__ = None


@pytest.mark.parametrize("value", [Odd(), [Odd()], {"a": Odd()}])
def test_what_cannot_be_compared_counts_as_unequal(value):
    assert _contains_self_unequal(value)


def test_types_without_a_canonical_form_are_refused():
    with pytest.raises(ValueError, match="object"):
        _canonicalize([object()])


class Tensor:
    def numel(self):
        return 6

    def element_size(self):
        return 2


def test_the_size_of_a_value_is_that_of_its_tensors():
    assert _estimate_value_size(CacheValue([[Tensor()], [{"a": [Tensor(), "text"]}], [b"12345"]])) == 24
