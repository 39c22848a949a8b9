"""Lookups in cache providers that hang, block or fail, under the real executor."""

import asyncio
import threading
import time

import pytest
from provider_fakes import CACHES, Memory, new_executor, ran, registered, row, run, use  # noqa: F401

from comfy_execution import provider_deadline
from comfy_execution.provider_deadline import Breaker


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(provider_deadline, "LOOKUP_S", 0.2)
    monkeypatch.setattr(provider_deadline, "PROMPT_S", 0.5)


@pytest.mark.parametrize("cache_type", CACHES)
def test_what_a_provider_has_is_used(cache_type):
    provider = use(Memory())
    keys = {}

    async def know(context, value):
        keys[context.cache_key_hash] = value

    provider.on_store = know
    run(row(5), new_executor(cache_type))
    provider.values = keys
    assert run(row(5), new_executor(cache_type)) == [7] and "Number" not in ran


@pytest.mark.parametrize("blocks", [False, True], ids=["waits", "blocks its thread"])
def test_a_provider_that_hangs_costs_the_budget_at_most(blocks, monkeypatch):
    monkeypatch.setattr(provider_deadline, "FAILURES", 1000)
    provider, released = use(Memory()), threading.Event()

    async def hang(context):
        if blocks:
            released.wait(60)
        await asyncio.sleep(60)

    provider.on_lookup = hang
    began = time.monotonic()
    assert run(row(20)) == [7] and ran == ["Number"] * 20 + ["Save"]
    took_s = time.monotonic() - began
    released.set()
    assert took_s < 20  # of the minutes that it asks for


def test_every_prompt_has_a_budget_of_its_own():
    provider, executor = use(Memory()), new_executor()
    real, hangs = provider.on_lookup, [True]

    async def sometimes(context):
        await asyncio.sleep(60 if hangs[0] else 0)
        return await real(context)

    provider.on_lookup = sometimes
    run(row(1), executor)
    assert not provider.asked
    hangs[0] = False
    provider_deadline._breakers.clear()
    run(row(2, value=8), executor)
    assert provider.asked


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), SystemExit(3)], ids=lambda error: type(error).__name__)
def test_a_provider_that_fails_is_left_alone_and_changes_nothing(error):
    provider, calls = use(Memory()), []

    async def fail(context):
        calls.append(context.node_id)
        await asyncio.sleep(0)
        raise error

    provider.on_lookup = fail
    executor = new_executor()
    assert run(row(6), executor) == [7] and executor.success
    before = len(calls)
    assert run(row(6, value=8), executor) == [8] and executor.success
    assert len(calls) == before  # those of the first prompt had started side by side


def test_after_the_pause_one_call_finds_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(provider_deadline.time, "monotonic", lambda: now[0])
    breaker = Breaker()
    for _ in range(3):
        assert breaker.allows()
        breaker.note(False, "it")
    assert not breaker.allows()
    now[0] = 15.0
    assert breaker.allows() and not breaker.allows()
    breaker.note(False, "it")
    assert not breaker.allows()
    now[0] = 30.0
    assert breaker.allows()
    breaker.note(True, "it")
    assert breaker.allows() and breaker.allows()
