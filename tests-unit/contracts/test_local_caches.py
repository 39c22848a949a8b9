"""What every cache of node results within the process keeps to, whatever its mode."""

import asyncio
import math

import pytest

from comfy_execution.caching import BasicCache, HierarchicalCache, LRUCache, NullCache, RAMPressureCache
from comfy_execution.graph import DynamicPrompt
from comfy_execution.local_caches.keys import CacheKeySetID, CacheKeySetInputSignature


class Plain:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


class Named(Plain):
    NOT_IDEMPOTENT = True


CLASSES = {"Plain": Plain, "Other": Plain, "Named": Named}


class Answers:
    """What nodes answer to IS_CHANGED."""

    def __init__(self, **answers):
        self.answers = answers

    async def get(self, node_id):
        return self.answers.get(node_id, False)


def keys(dynprompt, node_ids, is_changed_cache):
    return CacheKeySetInputSignature(dynprompt, node_ids, is_changed_cache, classes=lambda: CLASSES)


def chain(*literals, prefix="", class_type="Plain"):
    """Nodes in a row, each with a literal of its own."""
    graph = {}
    for index, literal in enumerate(literals):
        inputs = {"x": literal} | ({"a": [f"{prefix}{index - 1}", 0]} if index else {})
        graph[f"{prefix}{index}"] = {"class_type": class_type, "inputs": inputs}
    return graph


KINDS = {
    "basic": lambda **options: BasicCache(keys, **options),
    "classic": lambda **options: HierarchicalCache(keys, **options),
    "lru 0": lambda **options: LRUCache(keys, max_size=0, **options),
    "lru 100": lambda **options: LRUCache(keys, max_size=100, **options),
    "ram": lambda **options: RAMPressureCache(keys, available_bytes=lambda: 10**9, **options),
}


class Bench:
    """A cache, and prompts for it."""

    def __init__(self, cache):
        self.cache = cache
        self.dynprompt = None

    def begin(self, graph, **answers):
        self.dynprompt = DynamicPrompt(graph)
        asyncio.run(self.cache.set_prompt(self.dynprompt, graph.keys(), Answers(**answers)))
        self.cache.clean_unused()

    def expand(self, parent, children):
        for node_id, node in children.items():
            self.dynprompt.add_ephemeral_node(node_id, node, parent, parent)
        part = asyncio.run(self.cache.ensure_subcache_for(parent, set(children)))
        part.clean_unused()

    def set(self, node_id, value=None):
        asyncio.run(self.cache.set(node_id, value or f"entry of {node_id}"))

    def get(self, node_id):
        return asyncio.run(self.cache.get(node_id))

    def fill(self, *node_ids):
        for node_id in node_ids:
            self.set(node_id)


@pytest.fixture(params=KINDS, ids=str)
def bench(request):
    """A cache of each kind, sound afterwards."""
    made = Bench(KINDS[request.param]())
    yield made
    assert made.cache.check() == []


def test_an_entry_is_found_again_in_the_same_prompt_and_in_an_equal_one_with_other_ids(bench):
    bench.begin(chain(1, 2))
    assert bench.get("0") is None
    bench.fill("0", "1")
    assert (bench.get("0"), bench.cache.get_local("1")) == ("entry of 0", "entry of 1")
    bench.begin(chain(1, 2, prefix="n"))
    assert (bench.get("n0"), bench.get("n1")) == ("entry of 0", "entry of 1")


def test_a_changed_literal_and_what_depends_on_it_miss(bench):
    bench.begin(chain(1, 2, 3))
    bench.fill("0", "1", "2")
    bench.begin(chain(1, 2.0, 3))
    assert [bench.get(node_id) for node_id in "012"] == ["entry of 0", None, None]


def test_another_answer_to_is_changed_misses(bench):
    bench.begin(chain(1), **{"0": "v1"})
    bench.fill("0")
    bench.begin(chain(1), **{"0": "v1"})
    assert bench.get("0") == "entry of 0"
    bench.begin(chain(1), **{"0": "v2"})
    assert bench.get("0") is None


@pytest.mark.parametrize("literal", [math.nan, object()], ids=["nan", "object"])
def test_what_cannot_be_compared_is_found_in_its_prompt_only(bench, literal):
    graph = chain(literal, 2)
    bench.begin(graph)
    bench.fill("0", "1")
    assert (bench.get("0"), bench.get("1")) == ("entry of 0", "entry of 1")
    bench.begin(graph)
    assert (bench.get("0"), bench.get("1")) == (None, None)
    assert bench.cache.stats().entries == 0, "nothing can ever find them"


def test_nodes_whose_results_depend_on_their_id_are_found_by_the_same_id_only(bench):
    bench.begin(chain(1, class_type="Named"))
    bench.fill("0")
    bench.begin(chain(1, class_type="Named"))
    assert bench.get("0") == "entry of 0"
    bench.begin(chain(1, prefix="n", class_type="Named"))
    assert bench.get("n0") is None


def test_equal_nodes_of_one_prompt_share_an_entry(bench):
    bench.begin(chain(1) | chain(1, prefix="n"))
    bench.fill("0")
    assert bench.get("n0") == "entry of 0"
    assert bench.cache.stats().entries == 1


def test_the_running_prompts_entries_stay_through_cleaning(bench):
    bench.begin(chain(*range(20)))
    bench.fill(*map(str, range(20)))
    bench.cache.clean_unused()
    assert all(bench.get(str(index)) for index in range(20))


def test_a_node_that_is_not_in_the_prompt_is_neither_found_nor_kept(bench):
    assert bench.cache.get_local("0") is None, "before any prompt"
    bench.begin(chain(1))
    bench.cache.set_local("nobody", "lost")
    assert bench.get("nobody") is None and bench.cache.stats().entries == 0


def test_nodes_of_an_expansion_are_kept_as_long_as_the_expanded_node(bench):
    bench.begin(chain(1))
    bench.expand("0", chain("a", "b", prefix="0.0."))
    bench.fill("0.0.0", "0.0.1", "0")
    assert bench.get("0.0.1") == "entry of 0.0.1"
    assert {"0", "0.0.0", "0.0.1"} <= bench.cache.all_node_ids()
    bench.begin(chain(1))
    assert bench.get("0") == "entry of 0"


@pytest.mark.parametrize("kind", ["classic", "lru 100", "ram"])
def test_an_expansion_made_again_finds_its_children(kind):
    bench = Bench(KINDS[kind]())
    bench.begin(chain(1))
    bench.expand("0", chain("same", "first", prefix="0.0."))
    bench.fill("0.0.0", "0.0.1", "0")
    bench.begin(chain(2))
    assert bench.get("0") is None
    bench.expand("0", chain("same", "second", prefix="0.0."))
    assert (bench.get("0.0.0"), bench.get("0.0.1")) == ("entry of 0.0.0", None)
    assert bench.cache.check() == []


@pytest.mark.parametrize("kind", ["classic", "lru 0", "lru 100", "ram"])
def test_deeply_nested_expansions_need_no_recursion_and_no_climbing(kind):
    bench = Bench(KINDS[kind]())
    depth = 3000
    bench.begin({"0": {"class_type": "Plain", "inputs": {"x": 0}}})
    for level in range(1, depth):
        bench.expand(str(level - 1), {str(level): {"class_type": "Plain", "inputs": {"x": level}}})
    for level in range(depth):
        bench.cache.set_local(str(level), level + 1)
    assert bench.cache.get_local(str(depth - 1)) == depth
    assert bench.cache.stats().entries == depth
    assert len(bench.cache.all_node_ids()) == depth
    assert bench.cache.recursive_debug_dump()
    bench.begin(chain("else"))
    bench.cache.clean_unused()


def test_keys_of_an_expansion_cost_nothing_for_the_graph_around_it():
    asked = []

    class Counting(Answers):
        async def get(self, node_id):
            asked.append(node_id)
            return False

    async def scenario(cache):
        graph = chain(*range(200))
        dynprompt = DynamicPrompt(graph)
        await cache.set_prompt(dynprompt, graph.keys(), Counting())
        for index in range(50):
            child = f"199.{index}"
            above = f"199.{index - 1}" if index else "199"
            dynprompt.add_ephemeral_node(child, {"class_type": "Plain", "inputs": {"a": [above, 0]}}, "199", "199")
            await cache.ensure_subcache_for("199", {child})

    for make in (KINDS["classic"], KINDS["lru 100"]):
        asked.clear()
        asyncio.run(scenario(make()))
        assert len(asked) == len(set(asked)) == 250


def test_counters_tell_what_happened(bench):
    bench.begin(chain(1, 2))
    bench.get("0")
    bench.fill("0", "1")
    bench.get("0")
    bench.get("1")
    stats = bench.cache.stats()
    assert (stats.entries, stats.hits, stats.misses, stats.evictions, stats.external_hits) == (2, 2, 1, 0, 0)


class Outside:
    """A cache outside the process that is a dictionary."""

    def __init__(self):
        self.kept = {}
        self.asked = []
        self.missing = set()

    async def lookup(self, node_id, key):
        self.asked.append(node_id)
        return self.kept.get(key)

    async def store(self, node_id, key, value):
        self.kept[key] = value


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_result_is_asked_for_outside_once_and_then_kept(kind):
    first, second, outside = Bench(KINDS[kind](enable_providers=True)), Bench(KINDS[kind](enable_providers=True)), Outside()
    first.cache.external = second.cache.external = outside
    first.begin(chain(1, math.nan))
    first.fill("0", "1")
    assert len(outside.kept) == 1, "what cannot be compared is nothing for others"
    second.begin(chain(1, math.nan))
    assert (second.get("0"), second.get("0"), second.get("1")) == ("entry of 0", "entry of 0", None)
    assert outside.asked == ["0"]
    assert second.cache.get_local("0") == "entry of 0"
    assert second.cache.stats().external_hits == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_outside_has_is_not_asked_for_again(kind):
    bench, outside = Bench(KINDS[kind](enable_providers=True)), Outside()
    bench.cache.external = outside
    bench.begin(chain(1, 2))
    outside.missing.add("0")
    assert bench.get("0") is None and bench.get("1") is None
    assert outside.asked == ["1"]


@pytest.mark.parametrize("kind", KINDS)
def test_providers_are_asked_only_where_that_is_switched_on(kind):
    bench, outside = Bench(KINDS[kind]()), Outside()
    bench.cache.external = outside
    bench.begin(chain(1))
    bench.fill("0")
    assert bench.get("0") == "entry of 0" and not outside.kept and not outside.asked


def test_classic_drops_what_the_next_prompt_does_not_use():
    bench = Bench(KINDS["classic"]())
    bench.begin(chain(1, 2))
    bench.expand("1", chain("a", prefix="1.0."))
    bench.fill("0", "1", "1.0.0")
    bench.begin(chain(1, 3))
    assert bench.cache.stats().entries == 2, "of 0, and of the expansion of 1, which is still in the prompt"
    bench.begin(chain(5))
    assert (bench.cache.stats().entries, bench.cache.stats().evictions) == (0, 3)
    assert bench.cache.check() == []


def test_none_keeps_nothing():
    bench = Bench(NullCache())
    bench.begin(chain(1))
    bench.expand("0", chain("a", prefix="0.0."))
    bench.fill("0", "0.0.0")
    assert bench.get("0") is None and bench.cache.get_local("0") is None
    assert (bench.cache.stats().entries, bench.cache.stats().misses, bench.cache.all_node_ids(), bench.cache.check()) == (0, 1, set(), [])


def test_instances_are_kept_by_id_and_class():
    bench = Bench(HierarchicalCache(CacheKeySetID))
    bench.begin(chain(1, 2))
    bench.fill("0", "1")
    bench.begin({"0": {"class_type": "Plain", "inputs": {"x": "changed"}}, "1": {"class_type": "Other", "inputs": {}}})
    assert (bench.get("0"), bench.get("1")) == ("entry of 0", None)
