"""Nodes of expanded graphs and cache providers, under the real executor."""

import pytest
from provider_fakes import CACHES, Memory, new_executor, ran, registered, row, run, settle, use  # noqa: F401


@pytest.mark.parametrize("cache_type", CACHES)
def test_nodes_of_expanded_graphs_take_part(cache_type):
    provider, kept = use(Memory()), {}

    async def store(context, value):
        if context.class_type == "TestNumber":
            kept[context.cache_key_hash] = value

    provider.on_store = store
    assert run(row(1, kind="Loop"), new_executor(cache_type)) == [7]
    settle()
    assert ran.count("Number") == 10 and len(kept) == 10
    provider.values = kept
    assert run(row(1, kind="Loop"), new_executor(cache_type)) == [7]
    assert ran == ["Loop", "Save"]


def test_results_of_the_cache_above_keep_their_keys():
    provider, keys = use(Memory()), []

    async def store(context, value):
        keys.append((context.class_type, context.cache_key_hash))

    provider.on_store = store
    run(row(3))
    settle()
    assert sorted(set(provider.asked)) == sorted(set(keys))


@pytest.mark.parametrize("cache_type", CACHES)
def test_without_providers_nothing_changes(cache_type):
    executor = new_executor(cache_type)
    assert run(row(1, kind="Loop"), executor) == [7] and ran.count("Number") == 10
    assert run(row(1, kind="Loop"), executor) == [7] and ran == []
