"""``GET /caches``: sections, and one that fails beside one that works."""

from aiohttp import web

from app.routes.caches import CacheSections, describe_results
from comfy_execution.cache_provider import CacheProvider
from comfy_execution.providers.runtime import ProviderRuntime
from execution import CacheSet


class Empty(CacheProvider):
    async def on_lookup(self, context):
        return None

    async def on_store(self, context, value):
        return None


async def test_sections_are_shown_and_a_failing_one_says_so(aiohttp_client):
    def fail():
        raise RuntimeError("broken")

    sections = CacheSections()
    sections.add("good", lambda: {"entries": 3})
    sections.add("bad", fail)
    app, routes = web.Application(), web.RouteTableDef()
    sections.add_routes(routes)
    app.add_routes(routes)
    client = await aiohttp_client(app)
    answer = await client.get("/caches")
    assert answer.status == 200 and await answer.json() == {"good": {"entries": 3}, "bad": {"error": "RuntimeError: broken"}}


def test_results_are_described_with_each_provider():
    executor = type("Executor", (), {"caches": CacheSet(), "providers": ProviderRuntime(registered=lambda: [Empty.__new__(Empty)])})
    described = describe_results(executor)
    assert described["mode"] == "classic" and described["local"]["entries"] == 0
    (provider,) = described["providers"]
    assert provider["name"] == "Empty" and provider["state"] == "closed" and provider["lookup_p95_s"] is None and provider["queued"] == 0
