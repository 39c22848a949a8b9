"""Cache providers under the real executor: what is asked for and stored, and what providers that misbehave can do."""

import asyncio
import threading
import time

import pytest
from provider_fakes import CACHES, Loop, Memory, Number, new_executor, node, ran, registered, row, run, use, wide  # noqa: F401

import execution
import nodes
from comfy_execution.cache_provider import CacheValue
from comfy_execution.provider_prompts import ExecutorProviders, close_providers
from comfy_execution.providers.client import ProviderLimits

QUICK = ProviderLimits(lookup_timeout_s=0.2, prompt_budget_s=0.5, drain_timeout_s=0.2, store_timeout_s=0.3, shutdown_timeout_s=1.0)


class Watched(Memory):
    """Counts how often it is asked while nothing else is on its way, and notes its event loops and what it is told of prompts."""

    def __init__(self, lookup_s=0.0, store_s=0.0):
        super().__init__(lookup_s, store_s)
        self.events, self.rounds, self.in_flight = [], 0, 0

    async def on_lookup(self, context):
        self.loops.add(asyncio.get_running_loop())
        self.rounds += self.in_flight == 0
        self.in_flight += 1
        found = await super().on_lookup(context)
        self.in_flight -= 1
        return found

    def on_prompt_start(self, prompt_id):
        self.events.append(("start", prompt_id))

    def on_prompt_end(self, prompt_id):
        self.events.append(("end", prompt_id))


class Sum(Number):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {f"v{index}": ("INT", {}) for index in range(200)}}

    def run(self, **values):
        ran.append("Sum")
        return (sum(values.values()),)


class LoopOfPrompt(Loop):
    """Cannot be stored itself, since it is given the whole prompt."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {})}, "hidden": {"prompt": "PROMPT"}}

    def run(self, value, prompt):
        return super().run(value)


class Failing(Number):
    def run(self, value):
        raise RuntimeError("broken")


@pytest.fixture(autouse=True)
def more_nodes(monkeypatch):
    for node_class in (Sum, LoopOfPrompt, Failing):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, f"Test{node_class.__name__}", node_class)


@pytest.fixture
def executor():
    """Makes executors that know nothing yet, like servers of their own; ``run`` tells the total that was shown."""
    made = []

    def make(limits=None, cache_type=execution.CacheType.CLASSIC):
        one = new_executor(cache_type)
        if limits is not None:
            one.cache_providers = ExecutorProviders(execution.CacheEntry, limits)
        made.append(one)
        return one

    yield make
    for one in made:
        one.cache_providers.close()


def cached(executor):
    return [data["nodes"] for event, data in executor.server.sent if event == "execution_cached"][0]


@pytest.mark.parametrize("cache_type", CACHES)
def test_another_server_runs_only_the_output_node(executor, cache_type):
    use(Watched())
    assert run(row(5), executor(cache_type=cache_type)) == [7]
    assert ran == ["Number"] * 5 + ["Save"]
    other = executor(cache_type=cache_type)
    assert run(row(5), other) == [7]
    assert ran == ["Save"] and cached(other) == ["n4"]


def test_no_store_is_lost_when_the_prompt_ends_at_once(executor):
    provider, released = use(Watched()), threading.Event()
    store = provider.on_store

    async def when_released(context, value):
        while not released.is_set():
            await asyncio.sleep(0.005)
        await store(context, value)

    provider.on_store = when_released
    one = executor(ProviderLimits(drain_timeout_s=0.05))
    assert run(wide(200), one) == [sum(range(200))]
    assert not provider.stored
    released.set()
    close_providers()
    assert len(provider.stored) == len(provider.values) == 200


def test_stores_of_a_prompt_that_fails_are_made(executor):
    provider = use(Watched(store_s=0.05))
    one = executor(ProviderLimits(drain_timeout_s=0.01))
    run({"n0": node("Number", value=1), "bad": node("Failing", value="n0"), "save": node("Save", v0="bad")}, one)
    assert not one.success
    one.cache_providers.close()
    assert provider.stored == ["TestNumber"]


def test_a_row_of_misses_takes_few_round_trips_and_no_key_is_asked_twice(executor):
    provider = use(Watched(lookup_s=0.01))
    run(row(200), executor())
    assert provider.rounds <= 10
    assert len(provider.asked) == len(set(provider.asked)) == 200


def test_nothing_above_a_result_that_is_found_is_asked_for(executor):
    provider = use(Watched())
    run(row(200), executor())
    provider.asked.clear()
    run(row(200), executor())
    assert len(provider.asked) == 1 and ran == ["Save"]


def test_nodes_side_by_side_are_asked_for_at_once(executor):
    provider = use(Watched(lookup_s=0.01))
    run(wide(200), executor())
    assert provider.rounds == 1 and len(provider.asked) == 200


@pytest.mark.parametrize("cache_type", CACHES)
def test_nodes_of_expanded_subgraphs_take_part(executor, cache_type):
    provider = use(Watched())
    prompt = row(1, kind="LoopOfPrompt")
    assert run(prompt, executor(cache_type=cache_type)) == [7]
    assert ran.count("Number") == 10 and provider.stored == ["TestNumber"] * 10
    provider.asked.clear()
    assert run(prompt, executor(cache_type=cache_type)) == [7]
    assert ran == ["Loop", "Save"] and len(provider.asked) == 1


def test_what_a_lazy_input_wants_is_asked_for_when_it_is_wanted(executor):
    provider = use(Watched())
    switch = node("Chosen", second=True, a="x", b="n4")
    prompt = {**row(5), "x": node("Number", value=3), "switch": switch, "save": node("Save", v0="switch")}
    assert run(prompt, executor()) == [7]
    assert len(provider.asked) == 6
    provider.values = {key: value for key, value in provider.values.items() if ("TestChosen", key) not in provider.asked}
    provider.asked.clear()
    assert run(prompt, executor()) == [7]
    assert ran == ["Chosen", "Save"] and [kind for kind, _ in provider.asked] == ["TestChosen", "TestNumber"]


def test_results_are_stored_as_they_were_handed_over(executor):
    provider = use(Watched(store_s=0.05))
    one = executor()
    assert run({"n": node("Picture", value=1), "m": node("Brighten", image="n"), "save": node("Save", v0="m")}, one) == [96.0]
    one.cache_providers.close()
    assert sorted(float(value.outputs[0][0].sum()) for value in provider.values.values()) == [48.0, 96.0]


def test_a_loop_lives_as_long_as_the_server(executor):
    provider = use(Watched())
    one = executor()
    for number in range(3):
        run(row(2, value=number), one, f"p{number}")
    assert len(provider.loops) == 1 and not next(iter(provider.loops)).is_closed()
    assert provider.events == [(event, f"p{number}") for number in range(3) for event in ("start", "end")]


ERRORS = [ValueError("no"), OSError("down"), asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_provider_that_raises_changes_nothing(executor, error):
    provider = use(Watched())

    def fail(*arguments):
        raise error

    async def fail_later(*arguments):
        raise error

    provider.on_lookup, provider.on_store, provider.on_prompt_start, provider.on_prompt_end = fail_later, fail_later, fail, fail
    one = executor(QUICK)
    for number in (4, 5):
        assert run(row(6, value=number), one) == [number] and one.success


@pytest.mark.parametrize("blocks", [False, True], ids=["waits", "blocks its thread"])
def test_a_provider_that_hangs_costs_the_budget_at_most(executor, blocks):
    provider, released = use(Watched()), threading.Event()

    async def hang(*arguments):
        if blocks:
            released.wait(60)
        else:
            await asyncio.sleep(60)

    provider.on_lookup = provider.on_store = hang
    one = executor(QUICK)
    began = time.monotonic()
    assert run(row(20), one) == [7] and one.success
    took_s = time.monotonic() - began
    released.set()
    assert took_s < QUICK.prompt_budget_s * 1.1 + 0.3


GARBAGE = [
    "text",
    7,
    CacheValue(7),
    CacheValue([]),
    CacheValue([["text"]]),
    CacheValue([1]),
    CacheValue([[1], [2]]),
    CacheValue([[1]], ui="ui"),
    CacheValue([[1]], ui={"total": [1]}),
]


@pytest.mark.parametrize("answer", GARBAGE, ids=lambda value: repr(value).partition(" at 0x")[0])
def test_garbage_is_a_miss(executor, answer):
    provider = use(Watched())

    async def garbage(context):
        return answer

    provider.on_lookup = garbage
    one = executor()
    assert run(row(3), one) == [7] and one.success
    assert ran == ["Number"] * 3 + ["Save"]


def test_nothing_is_asked_or_stored_without_a_cache(executor):
    provider = use(Watched())
    assert run(row(3), executor(cache_type=execution.CacheType.NONE)) == [7]
    assert not provider.asked and not provider.stored


def test_should_cache_is_respected(executor):
    provider = use(Watched())
    provider.should_cache = lambda context, value=None: context.class_type == "TestSum"
    run({"n": node("Number", value=1), "m": node("Sum", v0="n"), "save": node("Save", v0="m")}, executor())
    assert provider.stored == ["TestSum"] and [kind for kind, _ in provider.asked] == ["TestSum"]
