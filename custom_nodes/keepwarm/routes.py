"""``GET /keepwarm/caches`` and, when switched on, ``GET /keepwarm/metrics``."""

import importlib
import logging
from collections.abc import Iterable
from typing import Any

from aiohttp import web

log = logging.getLogger(__name__)


def add_routes(routes: web.RouteTableDef, providers: list[Any], publishes_metrics: bool) -> None:
    """Add the pack's routes to the server's table."""

    async def caches(request: web.Request) -> web.Response:
        return web.json_response({"providers": [describe(provider) for provider in providers]})

    routes.get("/keepwarm/caches")(caches)
    if not publishes_metrics:
        return
    try:
        client = importlib.import_module("prometheus_client")
    except ImportError:
        log.error("KEEPWARM_METRICS is set, but the package prometheus-client is missing: pip install prometheus-client")
        return

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=prometheus_text(client, providers), headers={"Content-Type": client.CONTENT_TYPE_LATEST})

    routes.get("/keepwarm/metrics")(metrics)


def describe(provider: Any) -> dict[str, Any]:
    """One provider as JSON."""
    inner = innermost(provider)
    return {"url": provider.url, "store": inner.store.name, "read_only": inner.read_only, **provider.measures.snapshot()}


def innermost(provider: Any) -> Any:
    """The provider that has the store, whatever *provider* wraps around it."""
    while hasattr(provider, "inner"):
        provider = provider.inner
    return provider


def prometheus_text(client: Any, providers: Iterable[Any]) -> bytes:
    """The numbers of all providers as Prometheus reads them; *client* is the module ``prometheus_client``."""
    described = [(provider.url, provider.measures.snapshot()) for provider in providers]

    class Collector:
        """Makes the families anew at each request, so nothing stays registered."""

        def collect(self) -> Iterable[Any]:
            for name, text in (
                ("hits", "Results found"),
                ("misses", "Results not found"),
                ("errors", "Calls that failed"),
                ("stores", "Results stored"),
                ("rejected", "Entries that were damaged or foreign"),
                ("bytes_fetched", "Bytes of results found"),
                ("bytes_stored", "Bytes written"),
            ):
                family = client.metrics_core.CounterMetricFamily(f"keepwarm_cache_{name}", text, labels=["provider"])
                for url, numbers in described:
                    family.add_metric([url], numbers[name])
                yield family
            family = client.metrics_core.GaugeMetricFamily(
                "keepwarm_cache_lookup_seconds", "Time of recent lookups", labels=["provider", "quantile"]
            )
            for url, numbers in described:
                for quantile, name in (("0.5", "lookup_p50_s"), ("0.95", "lookup_p95_s")):
                    if numbers[name] is not None:
                        family.add_metric([url, quantile], numbers[name])
            yield family

    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    return client.generate_latest(registry)
