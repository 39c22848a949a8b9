"""Results to store, and providers to store them with."""

import asyncio

import pytest

from comfy_execution.cache_provider import CacheContext, CacheValue
from custom_nodes.keepwarm.activation import ServerTraits, make_provider
from custom_nodes.keepwarm.settings import Settings
from custom_nodes.keepwarm.store_urls import parse_url

torch = pytest.importorskip("torch")


def provider(url, key=None):
    return make_provider(parse_url(url), Settings((), key, "", False), ServerTraits(guards=True, covers_machine=True))


def context(number=0):
    return CacheContext("1", "Node", f"{number:064x}")


def value(size=100_000, fill=1.0):
    return CacheValue([[{"samples": torch.full((size,), fill)}], [3, "x"]], {"output": {"text": ["a"]}, "meta": {"node_id": "1"}})


def same(first, second):
    return (
        torch.equal(first.outputs[0][0]["samples"], second.outputs[0][0]["samples"])
        and first.outputs[1] == second.outputs[1]
        and first.ui == second.ui
    )


def run(*steps):
    async def all_steps():
        return [await step for step in steps]

    return asyncio.run(all_steps())
