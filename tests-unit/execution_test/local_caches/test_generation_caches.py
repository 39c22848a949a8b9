"""What caches over several prompts keep and let go, and in which order."""

import asyncio
import itertools
import math

from comfy_execution.graph import DynamicPrompt
from comfy_execution.local_caches.generations import LRUCache, RAMPressureCache, available_ram_bytes
from comfy_execution.local_caches.keys import CacheKeySetInputSignature
from comfy_execution.units import GIB


class Plain:
    @classmethod
    def INPUT_TYPES(cls):
        return {}


class Unchanged:
    async def get(self, node_id):
        return False


def keys(dynprompt, node_ids, is_changed_cache):
    return CacheKeySetInputSignature(dynprompt, node_ids, is_changed_cache, classes=lambda: {"Plain": Plain})


def use(cache, *literals, values=None):
    """A prompt of unconnected nodes, one per literal, whose missing results are then there."""
    graph = {str(index): {"class_type": "Plain", "inputs": {"x": literal}} for index, literal in enumerate(literals)}
    dynprompt = DynamicPrompt(graph)

    async def scenario():
        await cache.set_prompt(dynprompt, graph.keys(), Unchanged())
        cache.clean_unused()
        hits = [literals[int(node_id)] for node_id in graph if await cache.get(node_id) is not None]
        for node_id in graph:
            if cache.get_local(node_id) is None:
                await cache.set(node_id, (values or {}).get(literals[int(node_id)], "result"))
        return hits

    hits = asyncio.run(scenario())
    assert cache.check() == []
    return hits


def test_prompts_used_longest_ago_go_first_and_whole():
    cache = LRUCache(keys, max_size=4)
    use(cache, "a", "b")
    use(cache, "c", "d")
    assert use(cache, "a", "b") == ["a", "b"]
    use(cache, "e")
    assert len(cache.cache) == 5, "the running prompt's entries come on top"
    assert use(cache, "a") == ["a"], "c and d went, as their prompt was the oldest"
    assert use(cache, "c", "d") == []
    assert cache.stats().evictions >= 2


def test_a_size_of_zero_keeps_the_last_prompts_entries():
    cache = LRUCache(keys, max_size=0)
    use(cache, "a", "b")
    assert use(cache, "b", "c") == ["b"]
    assert use(cache, "a", "b", "c") == ["b", "c"]


def test_nothing_is_remembered_of_nodes_that_never_finished_or_can_never_be_found():
    cache = LRUCache(keys, max_size=1000)
    graph = {str(index): {"class_type": "Plain", "inputs": {"x": index}} for index in range(50)}
    graph |= {f"n{index}": {"class_type": "Plain", "inputs": {"x": math.nan}} for index in range(50)}
    for _ in range(20):
        asyncio.run(cache.set_prompt(DynamicPrompt(graph), graph.keys(), Unchanged()))
        cache.set_local("n0", "result")
    assert (len(cache.cache), len(cache.used_generation), len(cache.children)) == (1, 1, 0)
    assert cache.check() == []


def test_children_of_an_expansion_are_used_with_their_node():
    cache = LRUCache(keys, max_size=2)

    async def scenario(name, expand):
        graph = {"p": {"class_type": "Plain", "inputs": {"x": name}}}
        dynprompt = DynamicPrompt(graph)
        await cache.set_prompt(dynprompt, graph.keys(), Unchanged())
        cache.clean_unused()
        if expand:
            dynprompt.add_ephemeral_node("p.0", {"class_type": "Plain", "inputs": {"x": f"child of {name}"}}, "p", "p")
            await cache.ensure_subcache_for("p", {"p.0"})
            await cache.set("p.0", "child")
            await cache.set("p", "parent")

    asyncio.run(scenario("a", True))
    asyncio.run(scenario("b", True))
    asyncio.run(scenario("a", False))
    assert len(cache.cache) == 2 and cache.check() == [], "a and its child were just used, b and its child went"
    asyncio.run(scenario("a", False))
    assert len(cache.cache) == 2


class Memory:
    """A machine with so many bytes, of which results take theirs."""

    def __init__(self, total_bytes):
        self.total_bytes = total_bytes
        self.cache = None
        self.asked = 0

    def available(self):
        self.asked += 1
        return self.total_bytes - sum(map(len, self.cache.cache.values()))


def pressured(total_bytes):
    memory = Memory(total_bytes)
    ticks = itertools.count()
    memory.cache = RAMPressureCache(keys, available_bytes=memory.available, size_bytes=len, clock=lambda: next(ticks))
    return memory.cache, memory


def kept(cache):
    return sorted({value[0] for value in cache.cache.values()})


def test_nothing_goes_while_there_is_room():
    cache, _ = pressured(1000_000)
    for name in "abcdef":
        use(cache, name, values={name: name * 1000})
    assert cache.relieve(900_000) == 0 and kept(cache) == list("abcdef")


def test_large_ones_go_before_small_ones_and_old_ones_before_new_ones():
    cache, _ = pressured(1_000_000)
    values = {"a": "a" * 100_000, "b": "b" * 300_000, "c": "c" * 100_000, "d": "d" * 100_000}
    for name in "abcd":
        use(cache, name, values=values)
    use(cache, "e", values={"e": "e"})
    assert cache.relieve(500_000) == 1 and kept(cache) == ["a", "c", "d", "e"], "b: 300 kB × 3 prompts"
    assert cache.relieve(750_000) == 1 and kept(cache) == ["c", "d", "e"]
    assert cache.check() == []


def test_among_equals_the_one_used_longest_ago_goes():
    cache, _ = pressured(1_000_000)
    use(cache, "a", "b", values={"a": "a" * 100_000, "b": "b" * 100_000})
    use(cache, "c", values={"c": "c"})
    assert cache.relieve(850_000) == 1 and kept(cache) == ["b", "c"]


def test_the_running_prompts_entries_never_go():
    cache, _ = pressured(1000)
    use(cache, "a", "b", values={"a": "a" * 900, "b": "b" * 900})
    assert cache.relieve(10**12) == 0 and kept(cache) == ["a", "b"]
    use(cache, "b", "c", values={"c": "c" * 10})
    assert cache.relieve(10**12) == 1 and kept(cache) == ["b", "c"]
    assert use(cache, "a") == []


def test_the_system_is_not_asked_for_every_entry():
    cache, memory = pressured(10**9)
    use(cache, *range(3000), values=dict.fromkeys(range(3000), "x" * 1000))
    use(cache, "now", values={"now": "n"})
    memory.asked = 0
    assert cache.relieve(10**9 - 10) == 3000
    assert memory.asked < 60


def test_polling_gives_the_headroom_in_gigabytes():
    cache, _ = pressured(2 * GIB)
    use(cache, "a", values={"a": "a" * 100})
    use(cache, "b", values={"b": "b" * 100})
    cache.poll(ram_headroom=1)
    assert kept(cache) == ["a", "b"]
    cache.poll(ram_headroom=2)
    assert kept(cache) == ["b"]


def test_the_system_tells_how_much_ram_is_free():
    assert available_ram_bytes() > 0
