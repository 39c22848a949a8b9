"""Signatures are equal exactly when class, inputs, types and everything above are, and cost the same per node in any graph."""

import asyncio
import itertools
import math
import random

import pytest

from comfy_execution.signatures import InputSignatures, NotCanonical, Uncacheable, canonical_bytes


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def sign(graph, node_id, changed=None, named=()):
    async def is_changed(one):
        return (changed or {}).get(one)

    return asyncio.run(InputSignatures(graph.get, is_changed, lambda one: one in named).get(node_id))


DISTINCT = [
    None,
    True,
    False,
    0,
    1,
    -1,
    1.0,
    0.0,
    -0.0,
    1.5,
    "",
    "1",
    "True",
    b"1",
    b"",
    [],
    (),
    {},
    set(),
    frozenset(),
    [1],
    (1,),
    [[1]],
    [1, 2],
    [2, 1],
    {"a": 1},
    {"a": 1.0},
    {"a": True},
    {"a": None},
    {1: "a"},
    {"1": "a"},
    {1},
    frozenset({1}),
    {"a": {"b": []}},
    [None],
    "None",
    10**40,
    10**40 + 1,
    float("inf"),
    -float("inf"),
    "a\0b",
    "ab",
    ["a", "b"],
    ["ab"],
]


def test_different_values_have_different_forms():
    for first, second in itertools.combinations(DISTINCT, 2):
        assert canonical_bytes(first) != canonical_bytes(second), (first, second)


def test_order_of_mappings_and_sets_does_not_matter():
    assert canonical_bytes({"a": 1, "b": 2}) == canonical_bytes({"b": 2, "a": 1})
    assert canonical_bytes({3, 1, 2}) == canonical_bytes({2, 3, 1})


@pytest.mark.parametrize(
    "value",
    [math.nan, [1, math.nan], {"a": {"b": math.nan}}, object(), [object()]],
    ids=["nan", "nan in list", "nan in dict", "object", "object in list"],
)
def test_values_without_a_form_are_refused(value):
    with pytest.raises(NotCanonical):
        canonical_bytes(value)


def test_ids_do_not_matter_but_class_inputs_sockets_and_ancestors_do():
    graph = {"a": node("Load", name="x"), "b": node("Blur", image=["a", 0], by=2)}
    renamed = {"7": node("Load", name="x"), "9": node("Blur", by=2, image=["7", 0])}
    assert sign(graph, "b") == sign(renamed, "9")
    for other in (
        node("Sharpen", image=["a", 0], by=2),
        node("Blur", image=["a", 1], by=2),
        node("Blur", image=["a", 0], by=2.0),
        node("Blur", image=["a", 0]),
        node("Blur", picture=["a", 0], by=2),
    ):
        assert sign({**graph, "b": other}, "b") != sign(graph, "b")
    assert sign({**graph, "a": node("Load", name="y")}, "b") != sign(graph, "b")


def test_a_literal_cannot_pass_for_a_link():
    graph = {"a": node("Load"), "b": node("Blur", image=["a", 0])}
    parent = sign(graph, "a")
    for forged in (("image", parent, 0), [parent, 0], {"link": [parent, 0]}):
        assert sign({"b": node("Blur", image=forged)}, "b") != sign(graph, "b")


def test_nodes_that_name_themselves_differ_by_id_and_so_does_what_follows():
    graph = {"a": node("Count"), "b": node("Count"), "c": node("Show", v=["a", 0]), "d": node("Show", v=["b", 0])}
    assert sign(graph, "a") == sign(graph, "b")
    assert sign(graph, "a", named=("a", "b")) != sign(graph, "b", named=("a", "b"))
    assert sign(graph, "c", named=("a", "b")) != sign(graph, "d", named=("a", "b"))


def test_changed_values_count():
    graph = {"a": node("Load")}
    assert sign(graph, "a", {"a": "v1"}) == sign(graph, "a", {"a": "v1"})
    assert sign(graph, "a", {"a": "v1"}) != sign(graph, "a", {"a": "v2"})


@pytest.mark.parametrize(
    "graph",
    [
        {"a": node("Load", x=math.nan), "b": node("Show", v=["a", 0])},
        {"a": node("Load", x=object()), "b": node("Show", v=["a", 0])},
        {"b": node("Show", v=["missing", 0])},
        {"a": node("Loop", v=["b", 0]), "b": node("Show", v=["a", 0])},
        {"b": node("Show", v=["b", 0])},
    ],
    ids=["nan", "object", "missing", "cycle", "self"],
)
def test_what_cannot_be_compared_makes_all_below_equal_to_nothing(graph):
    found = sign(graph, "b")
    assert isinstance(found, Uncacheable)
    assert found != found
    assert found.reason
    assert found not in {sign(graph, "b"): 1}


def test_the_same_nan_object_is_still_unequal():
    assert isinstance(sign({"a": node("Load")}, "a", {"a": math.nan}), Uncacheable)


def reference(graph, node_id):
    """The plain recursive definition: nested tuples instead of hashes."""
    one = graph[node_id]
    parts = []
    for name in sorted(one["inputs"]):
        value = one["inputs"][name]
        is_link = isinstance(value, list)
        parts.append((name, ("link", reference(graph, value[0]), value[1]) if is_link else (type(value).__name__, value)))
    return one["class_type"], tuple(parts)


def test_random_graphs_agree_with_the_recursive_definition():
    for seed in range(20):
        check_random_graph(random.Random(seed), f"seed {seed}")


def check_random_graph(dice, which):
    graph = {}
    for index in range(30):
        inputs = {f"i{k}": dice.choice([1, 1.0, "1", True]) for k in range(dice.randrange(4))}
        for name in [name for name in inputs if index and dice.random() < 0.5]:
            inputs[name] = [str(dice.randrange(index)), dice.randrange(2)]
        graph[str(index)] = node(dice.choice("AB"), **inputs)
    signed = {node_id: sign(graph, node_id) for node_id in graph}
    plain = {node_id: reference(graph, node_id) for node_id in graph}
    for first, second in itertools.combinations(graph, 2):
        assert (signed[first] == signed[second]) == (plain[first] == plain[second]), which


def test_nodes_that_appear_later_are_signed_from_what_is_known():
    asked = []
    graph = {"a": node("Load")}

    async def is_changed(node_id):
        asked.append(node_id)

    async def scenario():
        signatures = InputSignatures(graph.get, is_changed, lambda node_id: False)
        await signatures.get("a")
        graph["a.0.1"] = node("Blur", image=["a", 0])
        return await signatures.get("a.0.1")

    assert asyncio.run(scenario()) == sign(graph, "a.0.1")
    assert asked == ["a", "a.0.1"]


@pytest.mark.parametrize("count", [10, 20_000])
def test_every_node_of_a_chain_is_looked_at_a_fixed_number_of_times(count):
    graph = {"0": node("N", v=0)} | {str(i): node("N", v=[str(i - 1), 0]) for i in range(1, count)}
    looked, asked = [], []

    def node_at(node_id):
        looked.append(node_id)
        return graph.get(node_id)

    async def is_changed(node_id):
        asked.append(node_id)

    asyncio.run(InputSignatures(node_at, is_changed, lambda node_id: False).add(graph))
    assert sorted(asked) == sorted(graph)
    assert len(looked) <= 3 * count
