"""The providers of one executor through several prompts, each on an event loop that ends with it."""

import asyncio
import logging
import threading
import time

import pytest

from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue
from comfy_execution.providers.client import ProviderLimits
from comfy_execution.providers.runtime import ProviderRuntime


class Memory(CacheProvider):
    def __init__(self, lookup_s=0.0, store_s=0.0):
        self.lookup_s, self.store_s = lookup_s, store_s
        self.values, self.asked, self.events = {}, [], []

    async def on_lookup(self, context):
        self.asked.append(context.cache_key_hash)
        await asyncio.sleep(self.lookup_s)
        return self.values.get(context.cache_key_hash)

    async def on_store(self, context, value):
        await asyncio.sleep(self.store_s)
        self.values[context.cache_key_hash] = value

    def on_prompt_start(self, prompt_id):
        self.events.append(("start", prompt_id))

    def on_prompt_end(self, prompt_id):
        self.events.append(("end", prompt_id))


def context(number):
    return CacheContext(str(number), "Node", f"{number:064x}")


async def stay():
    pass


async def hand_over(prompt, context, outputs, ui=None):
    return await prompt.store(context, CacheValue(outputs, ui), stay)


def always(value):
    return True


@pytest.fixture
def runtime():
    made = []

    def make(*providers, **limits):
        registered = list(providers)
        made.append(ProviderRuntime(ProviderLimits(**limits), registered=lambda: registered))
        return made[-1], registered

    yield make
    for one in made:
        one.close()


def run(runtime, work, prompt_id="p"):
    """Run *work(prompt)* between the begin and the end of a prompt, on a loop of its own; (its result, seconds)."""

    async def whole():
        prompt = await runtime.begin_prompt(prompt_id)
        try:
            return await work(prompt)
        finally:
            await prompt.end()

    began = time.monotonic()
    result = asyncio.run(whole())
    return result, time.monotonic() - began


def test_without_providers_nothing_is_started(runtime):
    one, _ = runtime()
    assert asyncio.run(one.begin_prompt("p")) is None


def test_two_hundred_slow_stores_are_all_made_though_the_prompt_ends_at_once(runtime, caplog):
    provider = Memory(store_s=0.05)
    one, _ = runtime(provider, drain_timeout_s=0.1)

    async def work(prompt):
        for number in range(200):
            assert await hand_over(prompt, context(number), [[number]])

    with caplog.at_level(logging.WARNING):
        _, took_s = run(one, work)
        assert took_s < 1.0 and len(provider.values) < 200
        one.close()
    assert {value.outputs[0][0] for value in provider.values.values()} == set(range(200))
    assert not caplog.records


def test_a_key_is_asked_for_once_in_a_prompt_and_again_in_the_next(runtime):
    provider = Memory()
    one, _ = runtime(provider)

    async def work(prompt):
        for _ in range(3):
            await prompt.lookup_all([(context(1), always), (context(2), always)])
        return prompt.has_asked(context(1).cache_key_hash), prompt.has_asked(context(3).cache_key_hash)

    assert run(one, work)[0] == (True, False)
    run(one, work)
    assert provider.asked == [context(1).cache_key_hash, context(2).cache_key_hash] * 2


def test_all_waiting_together_stays_within_the_budget(runtime, caplog):
    provider = Memory(lookup_s=60)
    one, _ = runtime(provider, lookup_timeout_s=0.2, prompt_budget_s=0.5)

    async def work(prompt):
        return [await prompt.lookup_all([(context(number), always)]) for number in range(20)]

    with caplog.at_level(logging.WARNING):
        answers, took_s = run(one, work)
    assert answers == [[None]] * 20
    assert took_s < 0.75
    assert provider.events == [("start", "p"), ("end", "p")]


def test_a_provider_that_blocks_is_not_waited_for_longer_than_one_that_awaits(runtime):
    provider, released = Memory(), threading.Event()

    async def block(context):
        released.wait(5)

    provider.on_lookup = block
    one, _ = runtime(provider, lookup_timeout_s=0.2, prompt_budget_s=0.5, drain_timeout_s=0.1)

    async def work(prompt):
        return await prompt.lookup_all([(context(1), always)])

    answers, took_s = run(one, work)
    released.set()
    assert answers == [None] and took_s < 0.8


def test_the_second_is_asked_for_what_the_first_lacks_and_the_first_gets_it(runtime):
    first, second = Memory(), Memory()
    first.values[context(1).cache_key_hash] = CacheValue([["near"]])
    second.values = {context(number).cache_key_hash: CacheValue([["far"]]) for number in (1, 2)}
    one, _ = runtime(first, second)

    async def work(prompt):
        return await prompt.lookup_all([(context(number), always) for number in (1, 2, 3)])

    answers, _ = run(one, work)
    assert [answer and answer.outputs for answer in answers] == [[["near"]], [["far"]], None]
    assert second.asked == [context(2).cache_key_hash, context(3).cache_key_hash]
    assert first.values[context(2).cache_key_hash].outputs == [["far"]]


def test_a_value_that_does_not_suit_the_node_is_ignored_with_a_warning(runtime, caplog):
    provider = Memory()
    provider.values[context(1).cache_key_hash] = CacheValue([["x"]])
    one, _ = runtime(provider)

    async def work(prompt):
        return await prompt.lookup_all([(context(1), lambda value: False)])

    with caplog.at_level(logging.WARNING):
        assert run(one, work)[0] == [None]
    assert "cannot have" in caplog.text


def test_results_that_are_not_plain_data_are_not_handed_over(runtime):
    provider = Memory()
    one, _ = runtime(provider)

    async def work(prompt):
        return await hand_over(prompt, context(1), [[object()]]), await hand_over(prompt, context(2), [[1]], {"output": {"text": ["x"]}})

    assert run(one, work)[0] == (False, True)
    assert list(provider.values) == [context(2).cache_key_hash]
    assert provider.values[context(2).cache_key_hash].ui == {"output": {"text": ["x"]}}


def test_what_a_later_node_changes_is_stored_as_it_was(runtime):
    provider = Memory(store_s=0.05)
    one, _ = runtime(provider)
    shared = [1, 2]

    async def work(prompt):
        await hand_over(prompt, context(1), [[shared]])
        shared.append(3)

    run(one, work)
    assert provider.values[context(1).cache_key_hash].outputs == [[[1, 2]]]


def test_a_provider_that_is_taken_away_finishes_its_stores(runtime):
    provider = Memory(store_s=0.2)
    one, registered = runtime(provider, drain_timeout_s=0.01)

    async def work(prompt):
        await hand_over(prompt, context(1), [[1]])

    run(one, work)
    registered.remove(provider)
    assert asyncio.run(one.begin_prompt("next")) is None
    one.close()
    assert len(provider.values) == 1


def test_closing_gives_up_what_takes_too_long(runtime, caplog):
    provider = Memory(store_s=60)
    one, _ = runtime(provider, drain_timeout_s=0.01, shutdown_timeout_s=0.2)

    async def work(prompt):
        await hand_over(prompt, context(1), [[1]])

    run(one, work)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        one.close()
    assert time.monotonic() - began < 3
    assert "given up" in caplog.text
