"""The real executor over small node classes, each like a server of its own, for the tests of cache providers."""

import executor_harness as harness
import pytest

import execution
from comfy_execution.cache_provider import _clear_cache_providers
from comfy_execution.providers.client import ProviderLimits
from comfy_execution.providers.runtime import ProviderRuntime
from comfy_execution.shared_keys.world import make_world


@pytest.fixture
def log():
    return harness.Log()


@pytest.fixture
def bench(monkeypatch, log):
    yield from harness.benches(monkeypatch, log)


@pytest.fixture(autouse=True)
def no_providers():
    _clear_cache_providers()
    yield
    _clear_cache_providers()


@pytest.fixture
def server(bench):
    """Makes an executor that forgets nothing it needs not to: each is like a server of its own."""

    def make(limits=None, cache_type=execution.CacheType.CLASSIC, cache_args=None, **classes):
        made = bench(cache_type=cache_type, cache_args=cache_args, **classes)
        made.executor.providers = ProviderRuntime(limits or ProviderLimits())
        made.executor._world = make_world(lambda: "test")
        return made

    return make
