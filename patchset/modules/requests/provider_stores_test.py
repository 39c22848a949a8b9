"""Stores of cache providers outlive the prompt, under the real executor."""

import threading

import pytest
from provider_fakes import CACHES, Memory, new_executor, node, registered, row, run, use, wide  # noqa: F401

from comfy_execution import provider_stores
from comfy_execution.provider_stores import finish_stores


@pytest.mark.parametrize("cache_type", CACHES)
def test_no_store_is_lost_when_the_prompt_ends_at_once(cache_type):
    provider = use(Memory(store_s=0.05))
    assert run(wide(200), new_executor(cache_type)) == [sum(range(200))]
    finish_stores()
    assert provider.stored.count("TestNumber") == len(provider.values) - provider.stored.count("TestSave") == 200


def test_results_are_stored_as_they_were_handed_over():
    provider = use(Memory(store_s=0.05))
    assert run({"n": node("Picture", value=1), "m": node("Brighten", image="n"), "save": node("Save", v0="m")}) == [96.0]
    finish_stores()
    sums = [float(value.outputs[0][0].sum()) for value in provider.values.values() if value.outputs]
    assert sorted(sums) == [48.0, 96.0]


def test_all_stores_of_a_provider_run_on_one_loop():
    provider, executor = use(Memory()), new_executor()
    for number in range(3):
        run(row(2, value=number), executor)
    finish_stores()
    assert len(provider.loops) == 1


def test_keys_stay_as_they_were():
    provider = use(Memory())
    run(row(3))
    finish_stores()
    assert {key for _, key in provider.asked} == set(provider.values)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)], ids=lambda error: type(error).__name__)
def test_a_store_that_fails_stops_nothing(error):
    provider = use(Memory())
    store, fails = provider.on_store, iter([True])

    async def fail_once(context, value):
        if next(fails, False):
            raise error
        await store(context, value)

    provider.on_store = fail_once
    assert run(row(4)) == [7]
    finish_stores()
    assert len(provider.stored) == 4


def test_what_waits_is_bounded(monkeypatch):
    provider, released = use(Memory()), threading.Event()
    store = provider.on_store

    async def wait(context, value):
        released.wait(60)
        await store(context, value)

    provider.on_store = wait
    monkeypatch.setattr(provider_stores, "MOST_WAITING_BYTES", 500)
    prompt = {f"n{index}": node("Picture", value=index) for index in range(6)}
    assert run({**prompt, "save": node("Save", **{f"v{index}": f"n{index}" for index in range(6)})}) == [48.0 * sum(range(6))]
    released.set()
    finish_stores()
    assert provider.stored.count("TestPicture") == 2  # of 192 bytes each
