"""Cache providers under the real executor: what is asked for and stored, and what providers that misbehave can do."""

import asyncio
import threading
import time

import pytest
import torch

from comfy.cli_args import args

if not torch.cuda.is_available():
    args.cpu = True

import execution
import nodes
from comfy_execution.cache_provider import CacheProvider, CacheValue, _clear_cache_providers, register_cache_provider
from comfy_execution.graph_utils import GraphBuilder
from comfy_execution.provider_prompts import ExecutorProviders, close_providers
from comfy_execution.providers.client import ProviderLimits

SIZES = {"lru": 50, "ram": 0.0, "ram_inactive": 0.0}
CACHES = [execution.CacheType.CLASSIC, execution.CacheType.LRU, execution.CacheType.RAM_PRESSURE]
QUICK = ProviderLimits(lookup_timeout_s=0.2, prompt_budget_s=0.5, drain_timeout_s=0.2, store_timeout_s=0.3, shutdown_timeout_s=1.0)


class Memory(CacheProvider):
    """Answers from *values*; counts how often it is asked while nothing else is on its way."""

    def __init__(self, lookup_s=0.0, store_s=0.0):
        self.lookup_s, self.store_s = lookup_s, store_s
        self.values, self.asked, self.stored, self.events, self.loops = {}, [], [], [], set()
        self.rounds = self.in_flight = 0

    async def on_lookup(self, context):
        self.loops.add(asyncio.get_running_loop())
        self.asked.append((context.class_type, context.cache_key_hash))
        self.rounds += self.in_flight == 0
        self.in_flight += 1
        await asyncio.sleep(self.lookup_s)
        self.in_flight -= 1
        return self.values.get(context.cache_key_hash)

    async def on_store(self, context, value):
        self.loops.add(asyncio.get_running_loop())
        await asyncio.sleep(self.store_s)
        self.stored.append(context.class_type)
        self.values[context.cache_key_hash] = value

    def on_prompt_start(self, prompt_id):
        self.events.append(("start", prompt_id))

    def on_prompt_end(self, prompt_id):
        self.events.append(("end", prompt_id))


class QuietServer:
    def __init__(self):
        self.client_id = self.last_node_id = self.last_prompt_id = None
        self.sockets_metadata = {}
        self.sent = []

    def send_sync(self, event, data, sid=None):
        self.sent.append((event, data))


ran = []


class Number:
    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {})}}

    def run(self, value):
        ran.append(type(self).__name__)
        return (value,)


class Picture(Number):
    RETURN_TYPES = ("IMAGE",)

    def run(self, value):
        ran.append("Picture")
        return (torch.full((1, 4, 4, 3), float(value)),)


class Brighten(Picture):
    """Changes its input in place."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        ran.append("Brighten")
        return (image.add_(1),)


class Sum(Number):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {f"v{index}": ("INT", {}) for index in range(200)}}

    def run(self, **values):
        ran.append("Sum")
        return (sum(values.values()),)


class Save(Sum):
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    def run(self, **values):
        ran.append("Save")
        return {"ui": {"total": [sum(values.values())]}}


class SavePicture(Save):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        ran.append("Save")
        return {"ui": {"total": [float(image.sum())]}}


class Chosen(Number):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"second": ("BOOLEAN", {}), "a": ("INT", {"lazy": True}), "b": ("INT", {"lazy": True})}}

    def check_lazy_status(self, second, a=None, b=None):
        return [name for name, value in (("b", b), ("a", a)) if (name == "b") is second and value is None]

    def run(self, second, a=None, b=None):
        ran.append("Chosen")
        return (b if second else a,)


class Loop(Number):
    """Expands into a row of numbers."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {})}, "hidden": {"prompt": "PROMPT"}}

    def run(self, value, prompt):
        ran.append("Loop")
        graph = GraphBuilder()
        last = graph.node("TestNumber", value=value)
        for _ in range(9):
            last = graph.node("TestNumber", value=last.out(0))
        return {"result": (last.out(0),), "expand": graph.finalize()}


class Failing(Number):
    def run(self, value):
        raise RuntimeError("broken")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for node_class in (Number, Picture, Brighten, Sum, Save, SavePicture, Chosen, Loop, Failing):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, f"Test{node_class.__name__}", node_class)
    ran.clear()
    _clear_cache_providers()
    yield
    _clear_cache_providers()


@pytest.fixture
def executor():
    """Makes executors that know nothing yet, like servers of their own; ``run`` tells the total that was shown."""
    made = []

    def make(limits=None, cache_type=execution.CacheType.CLASSIC):
        one = execution.PromptExecutor(QuietServer(), cache_type=cache_type, cache_args=SIZES)
        if limits is not None:
            one.cache_providers = ExecutorProviders(execution.CacheEntry, limits)
        made.append(one)
        return one

    yield make
    for one in made:
        one.cache_providers.close()


def run(executor, prompt, prompt_id="p"):
    ran.clear()
    executor.server.sent.clear()
    executor.execute(prompt, prompt_id, {"client_id": "me"}, ["save"])
    return executor.history_result["outputs"].get("save", {}).get("total")


def cached(executor):
    return [data["nodes"] for event, data in executor.server.sent if event == "execution_cached"][0]


def node(kind, **inputs):
    links = {name: [value, 0] for name, value in inputs.items() if isinstance(value, str)}
    return {"class_type": f"Test{kind}", "inputs": inputs | links}


def row(length, value=7, kind="Number"):
    prompt = {"n0": node(kind, value=value)}
    for index in range(1, length):
        prompt[f"n{index}"] = node("Number", value=f"n{index - 1}")
    return {**prompt, "save": node("Save", v0=f"n{length - 1}")}


def wide(width):
    prompt = {f"n{index}": node("Number", value=index) for index in range(width)}
    return {**prompt, "save": node("Save", **{f"v{index}": f"n{index}" for index in range(width)})}


def use(provider):
    register_cache_provider(provider)
    return provider


@pytest.mark.parametrize("cache_type", CACHES)
def test_another_server_runs_only_the_output_node(executor, cache_type):
    use(Memory())
    assert run(executor(cache_type=cache_type), row(5)) == [7]
    assert ran == ["Number"] * 5 + ["Save"]
    other = executor(cache_type=cache_type)
    assert run(other, row(5)) == [7]
    assert ran == ["Save"] and cached(other) == ["n4"]


def test_no_store_is_lost_when_the_prompt_ends_at_once(executor):
    provider = use(Memory(store_s=0.05))
    one = executor(ProviderLimits(drain_timeout_s=0.05))
    assert run(one, wide(200)) == [sum(range(200))]
    assert len(provider.stored) < 200
    close_providers()
    assert len(provider.stored) == len(provider.values) == 200


def test_stores_of_a_prompt_that_fails_are_made(executor):
    provider = use(Memory(store_s=0.05))
    one = executor(ProviderLimits(drain_timeout_s=0.01))
    run(one, {"n0": node("Number", value=1), "bad": node("Failing", value="n0"), "save": node("Save", v0="bad")})
    assert not one.success
    one.cache_providers.close()
    assert provider.stored == ["TestNumber"]


def test_a_row_of_misses_takes_few_round_trips_and_no_key_is_asked_twice(executor):
    provider = use(Memory(lookup_s=0.01))
    run(executor(), row(200))
    assert provider.rounds <= 10
    assert len(provider.asked) == len(set(provider.asked)) == 200


def test_nothing_above_a_result_that_is_found_is_asked_for(executor):
    provider = use(Memory())
    run(executor(), row(200))
    provider.asked.clear()
    run(executor(), row(200))
    assert len(provider.asked) == 1 and ran == ["Save"]


def test_nodes_side_by_side_are_asked_for_at_once(executor):
    provider = use(Memory(lookup_s=0.01))
    run(executor(), wide(200))
    assert provider.rounds == 1 and len(provider.asked) == 200


@pytest.mark.parametrize("cache_type", CACHES)
def test_nodes_of_expanded_subgraphs_take_part(executor, cache_type):
    provider = use(Memory())
    prompt = row(1, kind="Loop")
    assert run(executor(cache_type=cache_type), prompt) == [7]
    assert ran.count("Number") == 10 and provider.stored == ["TestNumber"] * 10
    provider.asked.clear()
    assert run(executor(cache_type=cache_type), prompt) == [7]
    assert ran == ["Loop", "Save"] and len(provider.asked) == 1


def test_what_a_lazy_input_wants_is_asked_for_when_it_is_wanted(executor):
    provider = use(Memory())
    switch = node("Chosen", second=True, a="x", b="n4")
    prompt = {**row(5), "x": node("Number", value=3), "switch": switch, "save": node("Save", v0="switch")}
    assert run(executor(), prompt) == [7]
    assert len(provider.asked) == 6
    provider.values = {key: value for key, value in provider.values.items() if ("TestChosen", key) not in provider.asked}
    provider.asked.clear()
    assert run(executor(), prompt) == [7]
    assert ran == ["Chosen", "Save"] and [kind for kind, _ in provider.asked] == ["TestChosen", "TestNumber"]


def test_results_are_stored_as_they_were_handed_over(executor):
    provider = use(Memory(store_s=0.05))
    one = executor()
    assert run(one, {"n": node("Picture", value=1), "m": node("Brighten", image="n"), "save": node("SavePicture", image="m")}) == [96.0]
    one.cache_providers.close()
    assert sorted(float(value.outputs[0][0].sum()) for value in provider.values.values()) == [48.0, 96.0]


def test_a_loop_lives_as_long_as_the_server(executor):
    provider = use(Memory())
    one = executor()
    for number in range(3):
        run(one, row(2, value=number), f"p{number}")
    assert len(provider.loops) == 1 and not next(iter(provider.loops)).is_closed()
    assert provider.events == [(event, f"p{number}") for number in range(3) for event in ("start", "end")]


ERRORS = [ValueError("no"), OSError("down"), asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_provider_that_raises_changes_nothing(executor, error):
    provider = use(Memory())

    def fail(*arguments):
        raise error

    async def fail_later(*arguments):
        raise error

    provider.on_lookup, provider.on_store, provider.on_prompt_start, provider.on_prompt_end = fail_later, fail_later, fail, fail
    one = executor(QUICK)
    for number in (4, 5):
        assert run(one, row(6, value=number)) == [number] and one.success


@pytest.mark.parametrize("blocks", [False, True], ids=["waits", "blocks its thread"])
def test_a_provider_that_hangs_costs_the_budget_at_most(executor, blocks):
    provider, released = use(Memory()), threading.Event()

    async def hang(*arguments):
        if blocks:
            released.wait(60)
        else:
            await asyncio.sleep(60)

    provider.on_lookup = provider.on_store = hang
    one = executor(QUICK)
    began = time.monotonic()
    assert run(one, row(20)) == [7] and one.success
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
    provider = use(Memory())

    async def garbage(context):
        return answer

    provider.on_lookup = garbage
    one = executor()
    assert run(one, row(3)) == [7] and one.success
    assert ran == ["Number"] * 3 + ["Save"]


def test_nothing_is_asked_or_stored_without_a_cache(executor):
    provider = use(Memory())
    assert run(executor(cache_type=execution.CacheType.NONE), row(3)) == [7]
    assert not provider.asked and not provider.stored


def test_should_cache_is_respected(executor):
    provider = use(Memory())
    provider.should_cache = lambda context, value=None: context.class_type == "TestSum"
    run(executor(), {"n": node("Number", value=1), "m": node("Sum", v0="n"), "save": node("Save", v0="m")})
    assert provider.stored == ["TestSum"] and [kind for kind, _ in provider.asked] == ["TestSum"]
