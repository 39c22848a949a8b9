"""Signatures of generated values and graphs, against definitions that are slow but plain."""

import asyncio
import enum
import math
import struct
from collections import OrderedDict, UserDict, UserList

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_execution.signatures import InputSignatures, NotCanonical, Uncacheable, canonical_bytes

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary())
HASHABLE = st.recursive(SCALARS, lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=3)), max_leaves=5)
VALUES = st.recursive(
    st.one_of(SCALARS, HASHABLE),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner), st.dictionaries(HASHABLE, inner, max_size=3), st.sets(HASHABLE, max_size=3)
    ),
    max_leaves=8,
)
# Few different leaves, so that equal values come up often.
NEAR = st.recursive(
    st.sampled_from([0, 0.0, -0.0, False, "", b"", None, "0"]),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.tuples(inner), st.dictionaries(st.sampled_from([0, False, ""]), inner)),
    max_leaves=4,
)


def typed(value):
    """*value* with every type spelt out, so that Python's own == tells what a signature should."""
    kind = type(value).__name__
    if isinstance(value, float):
        return kind, struct.pack(">d", value)
    if isinstance(value, dict):
        return kind, frozenset((typed(key), typed(item)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return kind, frozenset(typed(item) for item in value)
    if isinstance(value, list | tuple):
        return kind, tuple(typed(item) for item in value)
    return kind, value


@given(st.one_of(st.tuples(VALUES, VALUES), st.tuples(NEAR, NEAR)))
def test_forms_are_equal_exactly_when_types_and_contents_are(pair):
    first, second = pair
    assert (canonical_bytes(first) == canonical_bytes(second)) == (typed(first) == typed(second))


@given(st.lists(VALUES, min_size=2, max_size=6))
def test_no_form_is_the_beginning_of_another(values):
    forms = sorted({canonical_bytes(value) for value in values})
    assert not any(longer.startswith(shorter) for shorter, longer in zip(forms, forms[1:]))


def test_depth_and_sharing_cost_no_recursion_and_no_repetition():
    value = [1]
    for _ in range(20_000):
        value = [value, value]
    flat = "x"
    for _ in range(20_000):
        flat = {"a": flat}
    assert canonical_bytes(value) != canonical_bytes(flat)


def test_a_value_that_contains_itself_is_refused():
    value = [1]
    value.append({"again": (value, value)})
    with pytest.raises(NotCanonical, match="contains itself"):
        canonical_bytes(value)


class Shout(str):
    """All of these print alike."""

    def __str__(self):
        return "!"


class Never(int):
    __hash__ = int.__hash__

    def __eq__(self, other):
        return False


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Pair(tuple):
    __slots__ = ()


class Broken(UserList):
    def __iter__(self):
        raise OSError("the file is gone")


def test_subclasses_are_distinguished_by_type_and_by_their_plain_content():
    assert canonical_bytes(Shout("a")) == canonical_bytes(Shout("a")) != canonical_bytes(Shout("b"))
    forms = [
        canonical_bytes(one)
        for one in (
            Shout("!"),
            "!",
            Level.LOW,
            1,
            True,
            Colour.RED,
            Colour.BLUE,
            Pair((1,)),
            (1,),
            UserList([1]),
            [1],
            OrderedDict(a=1),
            {"a": 1},
            UserDict(a=1),
            range(3),
            [0, 1, 2],
            bytearray(b"a"),
            b"a",
            1 + 0j,
            1.0,
        )
    ]
    assert len(set(forms)) == len(forms)


@pytest.mark.parametrize(
    "value",
    [Never(1), [Never(1)], Broken([1]), object(), {1: object()}, float("nan"), complex(0, math.nan), lambda: 1, iter([1]), Colour, range],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_values_that_cannot_be_compared_are_refused(value):
    with pytest.raises(NotCanonical):
        canonical_bytes(value)


def test_a_very_long_range_and_number_cost_little():
    assert canonical_bytes(range(10**15)) != canonical_bytes(range(10**15 + 1))
    assert canonical_bytes(10**6000) != canonical_bytes(10**6000 + 1)


LITERALS = st.sampled_from([1, 1.0, True, "1", None, (1,), "x"])


@st.composite
def graphs(draw):
    """A graph without circles, with links to nodes before, in the order of ids "0", "1", …"""
    graph = {}
    for index in range(draw(st.integers(1, 9))):
        inputs = {}
        for name in draw(st.sets(st.sampled_from("abc"))):
            link = st.tuples(st.integers(0, index - 1).map(str), st.integers(0, 1)).map(list) if index else LITERALS
            inputs[name] = draw(st.one_of(LITERALS, link))
        graph[str(index)] = {"class_type": draw(st.sampled_from("PQ")), "inputs": inputs}
    return graph


def sign_all(graph, order=None, changed=None, named=frozenset()):
    async def is_changed(node_id):
        return (changed or {}).get(node_id, False)

    async def scenario():
        signatures = InputSignatures(graph.get, is_changed, lambda node_id: node_id in named)
        await signatures.add(order or graph)
        return {node_id: await signatures.get(node_id) for node_id in graph}

    return asyncio.run(scenario())


def unfolded(graph, node_id):
    """What a node computes, written out in full: shared ancestors appear once for each use."""
    node = graph[node_id]
    return node["class_type"], tuple(
        (name, ("link", unfolded(graph, value[0]), value[1]) if isinstance(value, list) else typed(value))
        for name, value in sorted(node["inputs"].items())
    )


def ancestor_list_key(graph, node_id):
    """A key that lists the node and its ancestors, each once, numbered in the order in which inputs lead to them."""
    order = {}

    def visit(one):
        for _, value in sorted(graph[one]["inputs"].items()):
            if isinstance(value, list) and value[0] not in order:
                order[value[0]] = len(order)
                visit(value[0])

    visit(node_id)
    return tuple(
        (
            graph[one]["class_type"],
            tuple(
                (name, ("ancestor", order[value[0]], value[1]) if isinstance(value, list) else typed(value))
                for name, value in sorted(graph[one]["inputs"].items())
            ),
        )
        for one in [node_id, *order]
    )


@settings(max_examples=150)
@given(graphs(), st.randoms(use_true_random=False))
def test_signatures_agree_with_the_graph_written_out_in_full(graph, dice):
    order = list(graph)
    dice.shuffle(order)
    signed = sign_all(graph, order)
    for first in graph:
        for second in graph:
            assert (signed[first] == signed[second]) == (unfolded(graph, first) == unfolded(graph, second))
            if ancestor_list_key(graph, first) == ancestor_list_key(graph, second):
                assert signed[first] == signed[second], "keys that list all ancestors would hit"


@given(graphs(), st.randoms(use_true_random=False))
def test_renaming_all_nodes_changes_no_signature(graph, dice):
    names = [f"n{index}" for index in range(len(graph))]
    dice.shuffle(names)
    new_id = dict(zip(graph, names))
    renamed = {
        new_id[one]: {
            "class_type": node["class_type"],
            "inputs": {name: [new_id[value[0]], value[1]] if isinstance(value, list) else value for name, value in node["inputs"].items()},
        }
        for one, node in graph.items()
    }
    signed, after = sign_all(graph), sign_all(renamed)
    assert all(signed[one] == after[new_id[one]] for one in graph)


@given(graphs(), st.data())
def test_an_incomparable_node_spoils_exactly_what_depends_on_it(graph, data):
    spoilt = data.draw(st.sampled_from(sorted(graph)))
    below = {spoilt}
    for one, node in graph.items():
        if any(isinstance(value, list) and value[0] in below for value in node["inputs"].values()):
            below.add(one)
    signed = sign_all(graph, changed={spoilt: [math.nan]})
    assert {one for one, signature in signed.items() if isinstance(signature, Uncacheable)} == below


def test_links_by_float_or_bool_numbers_mean_the_same_output():
    graph = {"a": {"class_type": "P", "inputs": {}}}
    graph |= {name: {"class_type": "Q", "inputs": {"i": ["a", socket]}} for name, socket in (("b", 1), ("c", 1.0), ("d", True), ("e", 0))}
    signed = sign_all(graph)
    assert signed["b"] == signed["c"] == signed["d"] != signed["e"]


def test_a_graph_with_many_circles_is_settled_in_linear_time():
    count = 3000
    graph = {str(i): {"class_type": "P", "inputs": {"a": [str((i + 1) % count), 0], "b": ["0", 0]}} for i in range(count)}
    looked = []

    def node_at(node_id):
        looked.append(node_id)
        return graph.get(node_id)

    async def is_changed(node_id):
        return False

    async def scenario():
        signatures = InputSignatures(node_at, is_changed, lambda node_id: False)
        return [await signatures.get(node_id) for node_id in graph]

    assert all(isinstance(one, Uncacheable) for one in asyncio.run(scenario()))
    assert len(looked) <= 3 * count
