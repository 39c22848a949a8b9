"""What providers that misbehave can do to the real executor: nothing but cost the time that is allowed."""

import asyncio
import time

import pytest
from executor_harness import chain
from provider_kinds import GARBAGE, Blocking, Garbage, Hanging, Memory, Raising, endless

from comfy_execution.cache_provider import CacheValue, _clear_cache_providers, register_cache_provider
from comfy_execution.providers.client import ProviderLimits
from comfy_execution.providers.runtime import ProviderRuntime
from comfy_execution.shared_keys.keys import HermeticKeys

QUICK = ProviderLimits(lookup_timeout_s=0.2, prompt_budget_s=0.5, drain_timeout_s=0.2, store_timeout_s=0.3, shutdown_timeout_s=1.0)
ERRORS = [ValueError("no"), KeyError(), RuntimeError(), asyncio.CancelledError(), SystemExit(3), TimeoutError("own")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_provider_that_raises_changes_nothing(server, log, error):
    provider = Raising(error)
    register_cache_provider(provider)
    bench = server(QUICK)
    bench.run(chain(4))
    bench.run(chain(4, value=2))
    assert log == [1, 2] and bench.executor.success
    assert [name for name, _ in provider.events] == ["start", "end"] * 2


@pytest.mark.parametrize("text", ["\ud800", "\udc80.safetensors", "embedding:\ud800", "/\ud800", "tae\ud800"])
def test_half_a_surrogate_in_a_text_is_shared_like_any_text(server, log, text):
    register_cache_provider(Memory())
    for _ in range(2):
        bench = server()
        bench.run(chain(2, value=text))
        assert bench.executor.success, bench.error()
    assert log == [text, text] and bench.executed()[0] == "end"


@pytest.mark.parametrize("method", ["settle", "prepare", "key", "_above"])
def test_keys_that_cannot_be_made_are_reported_once_and_nothing_is_shared(server, log, monkeypatch, caplog, method):
    def fail(*arguments):
        raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    provider = Memory()
    register_cache_provider(provider)
    monkeypatch.setattr(HermeticKeys, method, fail)
    bench = server()
    bench.run(chain(3))
    assert log == [1] and bench.executor.success and not provider.lookups
    bench.executor.close()
    assert not provider.stores
    assert len([record for record in caplog.records if "outside this process" in record.message]) == 1


@pytest.mark.parametrize("kind", [Hanging, Blocking])
def test_a_provider_that_hangs_costs_the_budget_at_most(server, log, kind):
    provider = kind()
    register_cache_provider(provider)
    bench = server(QUICK)
    began = time.monotonic()
    bench.run(chain(20))
    took_s = time.monotonic() - began
    assert log == [1] and bench.executor.success
    assert took_s < QUICK.prompt_budget_s * 1.1 + 0.3
    if kind is Blocking:
        provider.released.set()


def test_a_provider_that_blocks_its_thread_costs_nothing_once_it_is_left_alone(server, log):
    provider = Blocking()
    register_cache_provider(provider)
    bench = server(ProviderLimits(lookup_timeout_s=0.2, prompt_budget_s=0.6, drain_timeout_s=0.5, shutdown_timeout_s=0.5))
    took_s = []
    for value in range(7):
        began = time.monotonic()
        bench.run(chain(3, value=value))
        took_s.append(time.monotonic() - began)
    assert log == list(range(7)) and bench.executor.providers.stats()[0].state == "open"
    assert took_s[0] > 0.5 and min(took_s[3:]) < 0.15  # a busy machine may hold up one of them
    provider.released.set()


def test_a_blocked_provider_does_not_keep_others_from_answering(server, log):
    good, blocked = Memory(), Blocking()
    register_cache_provider(good)
    server().run(chain(3))
    _clear_cache_providers()
    register_cache_provider(blocked)
    register_cache_provider(good)
    bench = server(ProviderLimits(lookup_timeout_s=0.2, prompt_budget_s=5.0))
    bench.run(chain(3))
    assert "2" in bench.data("execution_cached")[0]["nodes"]
    blocked.released.set()


@pytest.mark.parametrize("make", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_a_miss_with_a_warning(server, log, caplog, make):
    register_cache_provider(Garbage(make))
    bench = server()
    bench.run(chain(2, value=9))
    assert log == [9] and bench.executor.success
    assert any("Garbage" in record.getMessage() for record in caplog.records if record.levelname == "WARNING")


def test_outputs_that_contain_themselves_are_measured_in_finite_time(server):
    register_cache_provider(Garbage(lambda: CacheValue([[[endless()]]])))
    bench = server()
    bench.run(chain(2))
    assert bench.executor.success


class Unreadable(Memory):
    """Its attributes fail."""

    @property
    def url(self):
        raise RuntimeError("no url")

    @property
    def read_only(self):
        raise RuntimeError("cannot say")


def test_a_provider_whose_attributes_fail_is_still_used(server, log):
    provider = Unreadable()
    register_cache_provider(provider)
    bench = server()
    bench.run(chain(2))
    bench.executor.close()
    assert log == [1] and len(provider.stores) == 2


def test_a_provider_whose_functions_are_not_async_changes_nothing(server, log):
    provider = Memory()
    provider.on_lookup = lambda context: None
    provider.on_store = lambda context, value: None
    register_cache_provider(provider)
    bench = server(QUICK)
    bench.run(chain(3))
    assert log == [1] and bench.executor.success and bench.executor.providers.stats()[0].errors >= 1


def test_the_circuit_opens_and_a_later_try_closes_it(server, log):
    now = [0.0]
    provider = Raising(OSError("down"))
    provider.should_cache = lambda context, value=None: True
    register_cache_provider(provider)
    bench = server()
    bench.executor.providers = ProviderRuntime(clock=lambda: time.monotonic() + now[0])
    for value in range(4):
        bench.run(chain(1, value=value))
    (stats,) = bench.executor.providers.stats()
    asked = len(provider.lookups)
    assert stats.state == "open" and asked <= 3
    now[0] += 60
    provider.error = None

    async def works(context):
        provider.lookups.append(context.cache_key_hash)

    provider.on_lookup = works
    bench.run(chain(1, value=50))
    assert len(provider.lookups) == asked + 1
    assert bench.executor.providers.stats()[0].state in ("closed", "open")
