"""Under which keys nodes are cached."""

import asyncio
import math

import pytest

from comfy_execution.cache_provider import _contains_self_unequal
from comfy_execution.graph import DynamicPrompt
from comfy_execution.local_caches.keys import (
    CacheKeySetID,
    CacheKeySetInputSignature,
    Unhashable,
    include_unique_id_in_input,
    names_its_node,
    to_hashable,
)
from comfy_execution.nodes_graph.registered_classes import class_source
from comfy_execution.signatures import Uncacheable


def declare(hidden, **attributes):
    return type("Declared", (), {"INPUT_TYPES": classmethod(lambda cls: {"hidden": hidden}), **attributes})


CLASSES = {
    "Plain": declare({}),
    "Told": declare({"me": "UNIQUE_ID"}),
    "ToldV3": declare({"unique_id": ("UNIQUE_ID",)}),
    "Unique": declare({}, NOT_IDEMPOTENT=True),
}


class Unchanged:
    async def get(self, node_id):
        return False


def keys_of(graph, kind=CacheKeySetInputSignature, **options):
    key_set = kind(DynamicPrompt(graph), graph.keys(), Unchanged(), **options)
    asyncio.run(key_set.add_keys([*graph, "nobody"]))
    return key_set


@pytest.mark.parametrize(("class_type", "own"), [("Plain", False), ("Told", True), ("ToldV3", False), ("Unique", True)])
def test_the_id_belongs_to_the_key_of_classes_that_can_see_it(class_type, own, monkeypatch):
    graph = {name: {"class_type": class_type, "inputs": {"x": 1}} for name in "ab"}
    found = keys_of(graph, classes=lambda: CLASSES)
    assert (found.get_data_key("a") != found.get_data_key("b")) is own
    monkeypatch.setattr(class_source, "_classes", lambda: CLASSES)
    assert names_its_node(CLASSES[class_type]) is own is include_unique_id_in_input(class_type)


def test_a_subclass_may_put_every_id_in():
    class WithIds(CacheKeySetInputSignature):
        def include_node_id_in_input(self):
            return True

    graph = {name: {"class_type": "Plain", "inputs": {}} for name in "ab"}
    found = keys_of(graph, WithIds, classes=lambda: CLASSES)
    assert found.get_data_key("a") != found.get_data_key("b")


def test_keys_by_id_hold_id_and_class():
    found = keys_of({"a": {"class_type": "Plain", "inputs": {}}}, CacheKeySetID)
    assert list(found.get_used_keys()) == list(found.get_used_subcache_keys()) == [("a", "Plain")]
    assert found.all_node_ids() == {"a"} and found.get_data_key("nobody") is None is found.get_subcache_key("nobody")


def test_an_unhashable_answer_makes_the_node_uncacheable():
    class Odd:
        async def get(self, node_id):
            return Unhashable()

    key_set = CacheKeySetInputSignature(DynamicPrompt({"a": {"class_type": "Plain", "inputs": {}}}), ["a"], Odd(), classes=lambda: CLASSES)
    asyncio.run(key_set.add_keys(["a"]))
    assert isinstance(key_set.get_data_key("a"), Uncacheable) and _contains_self_unequal(key_set.get_data_key("a"))


def test_hashable_forms_tell_types_apart_and_odd_values_equal_nothing():
    assert to_hashable({"a": [1, (2,)]}) == to_hashable({"a": [1, (2,)]}) != to_hashable({"a": [1.0, (2,)]})
    for odd in (math.nan, object(), [object()]):
        first, second = to_hashable(odd), to_hashable(odd)
        assert isinstance(first, Unhashable) and first != second and first != first and math.isnan(first.value)
        assert {first: 1}[first] == 1 and second not in {first: 1}
