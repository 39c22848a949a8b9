"""Which nodes of a prompt are asked for and stored, with the executor's part played by tables."""

import asyncio
from types import SimpleNamespace

from comfy_execution.cache_provider import CacheValue
from comfy_execution.providers.cache import ExecutorHooks, ProviderCache


class Providers:
    """Remembers what it is asked; has *values* by key."""

    def __init__(self, values=(), is_slow=False):
        self.values, self.is_slow = dict(values), is_slow
        self.waves, self.stored, self.answers = [], [], {}

    async def wait_for(self, awaitable):
        if self.is_slow:
            awaitable.close()
            raise TimeoutError
        return await awaitable

    async def lookup_all(self, wanted):
        wanted = [(context.cache_key_hash, is_sound) for context, is_sound in wanted]
        self.waves.append([key for key, _ in wanted])
        found = [value if (value := self.values.get(key)) is not None and is_sound(value) else None for key, is_sound in wanted]
        self.answers.update(zip((key for key, _ in wanted), found))
        return found

    def has_asked(self, key):
        return key in self.answers

    def answer(self, key):
        return self.answers[key]

    async def store(self, context, value, before_waiting):
        await before_waiting()
        self.stored.append((context.cache_key_hash, value))


class Keys:
    """The key of a node is its id, once it is prepared."""

    def __init__(self, prompt):
        self.prompt, self.prepared = prompt, set()

    async def settle(self):
        pass

    async def prepare(self, node_ids):
        waiting = list(node_ids)
        while waiting:
            node_id = waiting.pop()
            self.prepared.add(node_id)
            waiting += [value[0] for value in self.prompt[node_id]["inputs"].values() if isinstance(value, list)]

    def key(self, node_id):
        return node_id if node_id in self.prepared else None


class Outputs(dict):
    def get_local(self, node_id):
        return self.get(node_id)

    accept_external = dict.__setitem__


def node_class(returns=("INT",), **attributes):
    return type("Node", (), {"RETURN_TYPES": returns, "INPUT_TYPES": classmethod(lambda cls: {}), **attributes})


CLASSES = {"Number": node_class(), "Loader": node_class(("MODEL",)), "Save": node_class((), OUTPUT_NODE=True)}


def entry(ui=None, outputs=()):
    return SimpleNamespace(ui=ui, outputs=outputs)


class Bridge:
    """A ``ProviderCache`` over *prompt*, ``{id: (class, {input: id or value})}``."""

    def __init__(self, prompt, values=(), lazy=(), is_slow=False):
        prompt = {
            node_id: {
                "class_type": kind,
                "inputs": {name: [value, 0] if isinstance(value, str) else value for name, value in inputs.items()},
            }
            for node_id, (kind, inputs) in prompt.items()
        }
        self.providers, self.outputs, self.trips = Providers(values, is_slow), Outputs(), 0
        dynprompt = SimpleNamespace(get_node=prompt.__getitem__, has_node=prompt.__contains__)

        def find(kind, name, inputs):
            return "INT", "required", {"lazy": name in lazy}

        hooks = ExecutorHooks(CLASSES.__getitem__, find, entry, self._to_loop)
        self.cache = ProviderCache(self.providers, dynprompt, self.outputs, Keys(prompt), hooks)

    async def _to_loop(self):
        self.trips += 1


def chain(length):
    middle = {str(index): ("Number", {"x": str(index - 1)}) for index in range(1, length)}
    return {"0": ("Number", {"x": 5}), **middle, "save": ("Save", {"x": str(length - 1)})}


def value(number=1):
    return CacheValue([[number]])


def test_a_found_result_is_kept_and_nothing_above_it_is_asked_for():
    bridge = Bridge(chain(9), {str(index): value(index) for index in range(9)})
    asyncio.run(bridge.cache.prefetch(["save"]))
    assert bridge.providers.waves == [["8"]]
    assert {node_id: kept.outputs for node_id, kept in bridge.outputs.items()} == {"8": [[8]]}


def test_misses_are_walked_through_in_growing_waves():
    bridge = Bridge(chain(9), {"0": value()})
    asyncio.run(bridge.cache.prefetch(["save"]))
    assert [len(wave) for wave in bridge.providers.waves] == [1, 2, 4, 2]
    assert list(bridge.outputs) == ["0"]


def test_nodes_that_were_asked_for_in_vain_are_known():
    bridge = Bridge(chain(3), {"0": value()})
    asyncio.run(bridge.cache.prefetch(["save"]))
    assert bridge.cache.missing == {"1", "2"}
    other = Bridge(chain(2))
    assert asyncio.run(other.cache.lookup("0", None)) is None
    assert asyncio.run(other.cache.lookup("save", None)) is None
    assert other.cache.missing == set(), "neither has a key yet"


def test_what_is_here_is_not_asked_for():
    bridge = Bridge(chain(3))
    bridge.outputs["2"] = entry()
    asyncio.run(bridge.cache.prefetch(["save", "unknown"]))
    assert bridge.providers.waves == []


def test_nodes_at_lazy_inputs_are_not_asked_for():
    prompt = {"a": ("Number", {}), "b": ("Number", {}), "switch": ("Number", {"now": "a", "later": "b"}), "save": ("Save", {"x": "switch"})}
    bridge = Bridge(prompt, lazy=["later"])
    asyncio.run(bridge.cache.prefetch(["save"]))
    assert sorted(key for wave in bridge.providers.waves for key in wave) == ["a", "switch"]


def test_output_nodes_and_models_are_neither_asked_for_nor_stored():
    bridge = Bridge({"load": ("Loader", {}), "use": ("Number", {"model": "load"}), "save": ("Save", {"x": "use"})})

    async def run():
        await bridge.cache.prefetch(["save"])
        for node_id in ("load", "use", "save"):
            assert await bridge.cache.lookup(node_id, None) is None
            await bridge.cache.store(node_id, None, entry(outputs=[[1]]))

    asyncio.run(run())
    assert bridge.providers.waves == [["use"]]
    assert [key for key, _ in bridge.providers.stored] == ["use"]


def test_a_node_that_no_wave_reached_is_asked_for_when_it_is_needed():
    bridge = Bridge(chain(2), {"0": value(4)})

    async def run():
        assert await bridge.cache.lookup("0", None) is None
        await bridge.cache.store("1", None, entry(outputs=[[2]]))
        return [await bridge.cache.lookup("0", None) for _ in range(2)]

    found = asyncio.run(run())
    assert [one.outputs for one in found] == [[[4]], [[4]]]
    assert bridge.providers.waves == [["0"]]


def test_results_that_the_node_cannot_have_are_not_stored():
    bridge = Bridge(chain(1))
    files = {"output": {"images": [{"filename": "a.png"}]}}

    async def run():
        for one in (entry(outputs=[["text"]]), entry(outputs=[]), entry(outputs=[[1]], ui=files)):
            await bridge.cache.store("0", None, one)

    asyncio.run(run())
    assert bridge.providers.stored == []


def test_a_garbled_value_is_a_miss():
    bridge = Bridge(chain(1), {"0": CacheValue([["text"]])})
    asyncio.run(bridge.cache.prefetch(["save"]))
    assert not bridge.outputs


def test_keys_that_take_too_long_leave_the_prompt_without_providers():
    bridge = Bridge(chain(3), {"2": value()}, is_slow=True)
    asyncio.run(bridge.cache.prefetch(["save"]))
    assert bridge.providers.waves == [] and not bridge.outputs
    assert bridge.trips == 1
