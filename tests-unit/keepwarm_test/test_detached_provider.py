"""The pack in servers that do not guard providers: deadlines, stores that outlive their loop, nothing that only looks shareable."""

import asyncio
import sys
import types

import pytest

from comfy_execution.cache_provider import CacheContext, CacheValue
from custom_nodes.keepwarm import detached_provider
from custom_nodes.keepwarm.detached_provider import DetachedProvider
from custom_nodes.keepwarm.measures import Measures
from custom_nodes.keepwarm.namespaced_provider import NamespacedProvider
from custom_nodes.keepwarm.settings import read_settings


class Inner:
    """A provider that takes its time."""

    read_only, url = False, "test://"
    store = types.SimpleNamespace(name="test")

    def __init__(self, delay_s=0.0):
        self.delay_s, self.values, self.measures, self.asked = delay_s, {}, Measures(), 0

    def should_cache(self, context, value=None):
        return True

    async def on_lookup(self, context):
        self.asked += 1
        await asyncio.sleep(self.delay_s)
        return self.values.get(context.cache_key_hash)

    async def on_store(self, context, value):
        await asyncio.sleep(self.delay_s)
        self.values[context.cache_key_hash] = value


class Plain:
    RETURN_TYPES = ("*",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


class Saves(Plain):
    OUTPUT_NODE = True


class Told(Plain):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "hidden": {"key": "API_KEY_COMFY_ORG"}}


@pytest.fixture(autouse=True)
def server(monkeypatch):
    monkeypatch.setitem(sys.modules, "nodes", types.SimpleNamespace(NODE_CLASS_MAPPINGS={"Plain": Plain, "Saves": Saves, "Told": Told}))


def context(class_type="Plain"):
    return CacheContext("1", class_type, "a" * 64)


def test_a_store_begun_in_a_loop_that_ends_at_once_is_finished():
    one = DetachedProvider(Inner(0.1))
    asyncio.run(one.on_store(context(), CacheValue([[1]])))
    assert not one.inner.values
    one.drain(5)
    assert asyncio.run(one.on_lookup(context())).outputs == [[1]]


def test_the_namespace_is_part_of_the_key():
    inner = Inner()
    one, other = (DetachedProvider(NamespacedProvider(inner, name)) for name in "ab")
    asyncio.run(one.on_store(context(), CacheValue([[1]])))
    one.drain(5)
    assert asyncio.run(one.on_lookup(context())) is not None and asyncio.run(other.on_lookup(context())) is None


def test_lookups_end_and_a_place_that_does_not_answer_is_left_alone(monkeypatch):
    monkeypatch.setattr(detached_provider, "LOOKUP_TIMEOUT_S", 0.05)
    one = DetachedProvider(Inner(30))
    for _ in range(3):
        assert one.should_cache(context()) and asyncio.run(one.on_lookup(context())) is None
    assert not one.should_cache(context())


def test_nodes_that_act_or_see_secrets_or_show_files_are_not_shared():
    one = DetachedProvider(Inner())
    shown = CacheValue([[1]], {"output": {"images": [{"filename": "x.png"}]}, "meta": {}})
    assert one.should_cache(context()) and one.should_cache(context(), CacheValue([[1]]))
    assert not one.should_cache(context("Saves")) and not one.should_cache(context("Told")) and not one.should_cache(context("Unknown"))
    assert not one.should_cache(context(), shown)


def test_a_value_changed_after_its_store_began_is_stored_as_it_was():
    torch = pytest.importorskip("torch")
    one, tensor = DetachedProvider(Inner(0.05)), torch.zeros(3)

    async def prompt():
        await one.on_store(context(), CacheValue([[tensor]]))
        tensor.add_(1)

    asyncio.run(prompt())
    one.drain(5)
    assert float(asyncio.run(one.on_lookup(context())).outputs[0][0].sum()) == 0


def test_a_stored_value_that_the_node_cannot_return_is_a_miss(monkeypatch, caplog):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(Plain, "RETURN_TYPES", ("IMAGE",))
    inner = Inner()
    one = DetachedProvider(inner)
    inner.values["a" * 64] = CacheValue([[torch.zeros(3)]])
    assert asyncio.run(one.on_lookup(context())) is None and "Plain gives" in caplog.text
    inner.values["a" * 64] = CacheValue([[torch.zeros(1, 8, 8, 3)]])
    assert asyncio.run(one.on_lookup(context())) is not None


class Broken(Plain):
    @classmethod
    def INPUT_TYPES(cls):
        raise RuntimeError("broken")


def test_what_a_node_or_the_environment_holds_raises_nothing(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules["nodes"].NODE_CLASS_MAPPINGS, "Broken", Broken)
    one = DetachedProvider(NamespacedProvider(Inner(), "team \udcff"))
    assert not one.should_cache(context("Broken")) and "does not say" in caplog.text
    endless: list = []
    endless.append(endless)
    assert not one.should_cache(context(), CacheValue([[1]], {"output": endless}))
    asyncio.run(one.on_store(context(), CacheValue([[endless]])))
    asyncio.run(one.on_store(context(), CacheValue([["\ud800"]])))
    one.drain(5)
    assert asyncio.run(one.on_lookup(context())).outputs == [["\ud800"]]


def test_a_key_that_is_not_text_is_sealed_all_the_same():
    assert read_settings(None, {"KEEPWARM_CACHE_KEY": "\udcff"}).sealing_key == b"\xff"
