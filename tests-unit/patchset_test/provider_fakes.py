"""Nodes, a provider that remembers, and executors like servers of their own, for the tests of cache providers under the real executor."""

import asyncio
import importlib.util

import pytest
import torch

from comfy.cli_args import args

if not torch.cuda.is_available():
    args.cpu = True

import execution
import nodes
from comfy_execution.cache_provider import CacheProvider, _clear_cache_providers, register_cache_provider
from comfy_execution.graph_utils import GraphBuilder

SIZES = {"lru": 50, "ram": 0.0, "ram_inactive": 0.0}
CACHES = [execution.CacheType.CLASSIC, execution.CacheType.LRU, execution.CacheType.RAM_PRESSURE]
ran = []


class Memory(CacheProvider):
    """Answers from *values* and notes what it is asked."""

    def __init__(self, lookup_s=0.0, store_s=0.0):
        self.lookup_s, self.store_s = lookup_s, store_s
        self.values, self.asked, self.stored, self.loops = {}, [], [], set()

    async def on_lookup(self, context):
        self.asked.append((context.class_type, context.cache_key_hash))
        await asyncio.sleep(self.lookup_s)
        return self.values.get(context.cache_key_hash)

    async def on_store(self, context, value):
        self.loops.add(asyncio.get_running_loop())
        await asyncio.sleep(self.store_s)
        self.stored.append(context.class_type)
        self.values[context.cache_key_hash] = value


class QuietServer:
    def __init__(self):
        self.client_id = self.last_node_id = self.last_prompt_id = None
        self.sockets_metadata = {}
        self.sent = []

    def send_sync(self, event, data, sid=None):
        self.sent.append((event, data))


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
        return (torch.full((1, 4, 4, 3), float(value)),)


class Brighten(Picture):
    """Changes its input in place."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        return (image.add_(1),)


class Save(Number):
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {f"v{index}": ("*", {}) for index in range(200)}}

    def run(self, **values):
        ran.append("Save")
        return {"ui": {"total": [float(sum(torch.as_tensor(value).sum() for value in values.values()))]}}


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

    def run(self, value):
        ran.append("Loop")
        graph = GraphBuilder()
        last = graph.node("TestNumber", value=value)
        for _ in range(9):
            last = graph.node("TestNumber", value=last.out(0))
        return {"result": (last.out(0),), "expand": graph.finalize()}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for node_class in (Number, Picture, Brighten, Save, Chosen, Loop):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, f"Test{node_class.__name__}", node_class)
    _clear_cache_providers()
    yield
    _clear_cache_providers()


def use(provider):
    register_cache_provider(provider)
    return provider


def new_executor(cache_type=execution.CacheType.CLASSIC):
    return execution.PromptExecutor(QuietServer(), cache_type=cache_type, cache_args=SIZES)


def run(prompt, executor=None, prompt_id="p"):
    """The total that ``save`` shows; *ran* then names what ran."""
    ran.clear()
    executor = executor or new_executor()
    executor.server.sent.clear()
    executor.execute(prompt, prompt_id, {"client_id": "me"}, ["save"])
    return executor.history_result["outputs"].get("save", {}).get("total")


def settle():
    """Wait for stores that outlive the prompt, where ComfyUI has them."""
    if importlib.util.find_spec("comfy_execution.provider_stores") is not None:
        importlib.import_module("comfy_execution.provider_stores").finish_stores()


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
