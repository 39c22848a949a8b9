"""Cache providers under the real executor: what is asked for and what is stored."""

import asyncio
import time

import pytest
from executor_harness import chain, make_node, node
from provider_kinds import Memory

import execution
from comfy_execution.cache_provider import CacheValue, _clear_cache_providers, register_cache_provider, unregister_cache_provider
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder
from comfy_execution.providers.client import ProviderLimits


def wide(width):
    prompt = {str(index): node("Value", x=index) for index in range(width)}
    return {**prompt, "end": node("Many in", **{f"v{index}": (str(index), 0) for index in range(width)})}


def many_in(log):
    def go(self, **values):
        log.append(sorted(values.values()))
        return ()

    return make_node(go, {}, returns=(), is_output=True, ACCEPT_ALL_INPUTS=True)


def test_second_server_executes_no_cacheable_node_and_lists_hits_as_cached(server, log):
    provider = Memory()
    register_cache_provider(provider)
    server().run(chain(5, value=3))
    second = server()
    second.run(chain(5, value=3))
    assert log == [3, 3]
    assert second.executed() == ["end", None] or second.executed() == ["end"]
    assert second.data("execution_cached")[0]["nodes"] == ["4"]
    assert second.executor.success


def test_only_what_the_outputs_need_is_fetched(server):
    provider = Memory()
    register_cache_provider(provider)
    server().run(chain(40))
    provider.lookups.clear()
    server().run(chain(40))
    assert len(provider.lookups) == 1


@pytest.mark.parametrize("length, most_rounds", [(200, 6), (40, 5), (1, 1)])
def test_a_deep_graph_of_misses_costs_few_round_trips_and_no_key_is_asked_twice(server, length, most_rounds):
    provider = Memory(delay_s=0.02)
    register_cache_provider(provider)
    server().run(chain(length))
    assert provider.rounds <= most_rounds
    assert len(provider.lookups) == len(set(provider.lookups)) == length


def test_a_wide_graph_is_asked_for_at_once(server, log):
    provider = Memory(delay_s=0.01)
    register_cache_provider(provider)
    server(**{"Many in": many_in(log)}).run(wide(200))
    assert provider.rounds == 1 and len(provider.lookups) == 200


def test_no_store_is_lost_when_the_prompt_ends_at_once(server, log):
    provider = Memory()
    register_cache_provider(provider)
    bench = server(**{"Many in": many_in(log)})

    async def slow_store(context, value):
        await asyncio.sleep(0.05)
        provider.stores.append(context.cache_key_hash)

    provider.on_store = slow_store
    bench.run(wide(200))
    bench.executor.close()
    assert len(set(provider.stores)) == 200


def test_stores_go_on_after_the_prompt_when_they_are_slower_than_it_waits(server):
    provider = Memory(delay_s=0.5)
    register_cache_provider(provider)
    bench = server(ProviderLimits(drain_timeout_s=0.05, lookup_timeout_s=2.0))
    began = time.monotonic()
    bench.run(chain(1))
    assert time.monotonic() - began < 1.0 and not provider.stores
    bench.executor.close()
    assert provider.stores == ["Value"]


def test_starts_and_ends_are_paired_in_order_on_success_and_error(server):
    def fail(self):
        raise RuntimeError("broken")

    provider = Memory()
    register_cache_provider(provider)
    bench = server(Broken=make_node(fail, {}, returns=("*",)))
    bench.run(chain(1))
    bench.run({"a": node("Broken"), "end": node("Sink", value=("a", 0))})
    assert provider.events == [(event, f"prompt-{number}") for number in (1, 2) for event in ("start", "end")]


def expanding(length):
    def go(self, value):
        graph = GraphBuilder()
        current = graph.node("Value", x=value)
        for _ in range(length - 1):
            current = graph.node("Pass", value=current.out(0))
        return {"result": (current.out(0),), "expand": graph.finalize()}

    return make_node(go, ["value"], sections={"hidden": {"prompt": "PROMPT"}}, go=lambda self, value, prompt=None: go(self, value))


@pytest.mark.parametrize("cache_type", [execution.CacheType.CLASSIC, execution.CacheType.LRU, execution.CacheType.RAM_PRESSURE])
def test_nodes_of_expanded_subgraphs_take_part(server, log, cache_type):
    provider = Memory()
    register_cache_provider(provider)
    ran = []
    prompt = {"a": node("Grow", value=5), "end": node("Sink", value=("a", 0))}
    watched = make_node(lambda self, value: ran.append(value) or (value,), ["value"])
    classes = {"Grow": expanding(4), "Pass": watched}
    server(cache_type=cache_type, cache_args={"lru": 5, "ram": 0.001}, **classes).run(prompt)
    assert len(ran) == 3
    provider.lookups.clear()
    server(cache_type=cache_type, cache_args={"lru": 5, "ram": 0.001}, **classes).run(prompt)
    assert log == [5, 5] and len(ran) == 3
    assert len(provider.lookups) == 1


class Opaque:
    pass


@pytest.mark.parametrize("value", [Opaque(), object, [Opaque()], {"x": (Opaque(),)}, ExecutionBlocker(None), lambda: 1])
def test_results_that_are_not_plain_data_stay_inside(server, value):
    provider = Memory()
    register_cache_provider(provider)
    bench = server(Make=make_node(lambda self: (value,), {}))
    bench.run({"a": node("Make"), "end": node("Sink", value=("a", 0))})
    assert not provider.stores


@pytest.mark.parametrize(
    "attributes",
    [
        {"sections": {"hidden": {"key": "API_KEY_COMFY_ORG"}}},
        {"sections": {"hidden": {"token": "AUTH_TOKEN_COMFY_ORG"}}},
        {"sections": {"hidden": {"prompt": "PROMPT"}}},
        {"NOT_IDEMPOTENT": True},
    ],
)
def test_nodes_that_are_not_hermetic_and_all_below_them_are_neither_asked_for_nor_stored(server, attributes):
    provider = Memory()
    register_cache_provider(provider)
    bench = server(Make=make_node(lambda self, **hidden: (1,), {}, **attributes))
    bench.run({"a": node("Make"), "b": node("Pass", value=("a", 0)), "end": node("Sink", value=("b", 0))})
    assert not provider.stores and not provider.lookups


@pytest.mark.parametrize("kind", ["MODEL", "CLIP", "VAE", "CONTROL_NET"])
def test_models_are_never_asked_for_but_what_they_make_is(server, kind):
    provider = Memory()
    register_cache_provider(provider)
    bench = server(Load=make_node(lambda self, name: (Opaque(),), ["name"], returns=(kind,)), Use=make_node(lambda self, m: (5,), ["m"]))
    bench.run({"a": node("Load", name="x"), "b": node("Use", m=("a", 0)), "end": node("Sink", value=("b", 0))})
    assert len(provider.lookups) == 1 and provider.stores == ["Use"]


def test_should_cache_is_honoured_for_both(server):
    provider = Memory()
    provider.should_cache = lambda context, value=None: context.class_type == "Value"
    register_cache_provider(provider)
    bench = server()
    bench.run(chain(3))
    bench.executor.close()
    assert provider.stores == ["Value"] and len(provider.lookups) == 1


def test_a_hit_fills_the_providers_that_were_asked_before(server):
    near, far = Memory(), Memory()
    register_cache_provider(far)
    server().run(chain(3))
    _clear_cache_providers()
    register_cache_provider(near)
    register_cache_provider(far)
    bench = server()
    bench.run(chain(3))
    bench.executor.close()
    assert len(near.values) == 1 and near.values.keys() <= far.values.keys()


def test_nothing_goes_out_without_a_cache(server):
    provider = Memory()
    register_cache_provider(provider)
    server(cache_type=execution.CacheType.NONE).run(chain(2))
    assert not provider.lookups and not provider.stores


def test_a_provider_may_come_and_go_between_prompts(server):
    provider = Memory()
    bench = server()
    bench.run(chain(1))
    register_cache_provider(provider)
    bench.run(chain(1, value=2))
    unregister_cache_provider(provider)
    bench.run(chain(1, value=3))
    assert len(provider.lookups) == 1 and provider.events == [("start", "prompt-2"), ("end", "prompt-2")]


def test_lazy_inputs_are_asked_for_only_when_wanted(server, log):
    provider = Memory()
    register_cache_provider(provider)
    lazy = {"which": ("INT", {}), "a": ("*", {"lazy": True}), "b": ("*", {"lazy": True})}
    switch = make_node(
        lambda self, which, a=None, b=None: ((a, b)[which],),
        lazy,
        check_lazy_status=lambda self, which, a=None, b=None: ["ab"[which]] if (a, b)[which] is None else [],
    )
    prompt = {
        "a": node("Value", x=10),
        "b": node("Value", x=20),
        "s": node("Switch", which=1, a=("a", 0), b=("b", 0)),
        "end": node("Sink", value=("s", 0)),
    }
    server(Switch=switch).run(prompt)
    assert log == [20] and len(provider.lookups) == 2


def test_int_and_text_differ(server, log):
    provider = Memory()
    register_cache_provider(provider)
    bench = server()
    bench.run(chain(1, value=7))
    bench.run(chain(1, value="7"))
    assert log == [7, "7"] and len(provider.values) == 2


def test_stored_values_are_copies(server):
    torch = pytest.importorskip("torch")
    provider = Memory(delay_s=0.05)
    register_cache_provider(provider)
    make = make_node(lambda self: (torch.zeros(1, 2, 4, 1),), {}, returns=("IMAGE",))
    spoil = make_node(lambda self, image: (image.add_(1),), ["image"], returns=("IMAGE",))
    bench = server(Make=make, Spoil=spoil)
    bench.run({"a": node("Make"), "b": node("Spoil", image=("a", 0)), "end": node("Sink", value=("b", 0))})
    bench.executor.close()
    sums = sorted(float(value.outputs[0][0].sum()) for value in provider.values.values())
    assert sums == [0.0, 8.0]


def test_a_stored_value_of_another_shape_than_declared_is_a_miss(server):
    torch = pytest.importorskip("torch")
    provider = Memory()
    register_cache_provider(provider)
    make = make_node(lambda self: (torch.zeros(1, 2, 4, 3),), {}, returns=("IMAGE",))
    first = make_node(lambda self, image: (float(image[0, 0, 0, 0]),), ["image"], returns=("FLOAT",))
    prompt = {"a": node("Make"), "b": node("First", image=("a", 0)), "end": node("Sink", value=("b", 0))}
    for _ in range(2):
        bench = server(Make=make, First=first)
        bench.run(prompt)
        bench.executor.close()
        assert bench.executor.success, bench.error()
        for value in provider.values.values():
            value.outputs[0][0] = torch.zeros(3)


def test_a_tensor_changed_since_it_was_handed_over_is_not_stored_again(server):
    torch = pytest.importorskip("torch")
    provider = Memory()
    register_cache_provider(provider)
    shared = torch.zeros(1, 2, 2, 1)
    make = make_node(lambda self: (shared,), {}, returns=("IMAGE",))
    spoil = make_node(lambda self, image: (image.add_(1),), ["image"], returns=("IMAGE",))
    bench = server(Make=make, Spoil=spoil)
    bench.run({"a": node("Make"), "b": node("Spoil", image=("a", 0)), "end": node("Sink", value=("b", 0))})
    bench.executor.close()
    assert provider.stores == ["Make"]


def test_a_node_that_shows_files_is_not_shared(server):
    provider = Memory()
    register_cache_provider(provider)
    ui = {"images": [{"filename": "a.png", "subfolder": "", "type": "temp"}]}
    bench = server(
        Show=make_node(lambda self: {"ui": ui, "result": (1,)}, {}), Say=make_node(lambda self: {"ui": {"text": ["x"]}, "result": (1,)}, {})
    )
    bench.run({"a": node("Show"), "b": node("Say"), "end": node("Sink", value=("a", 0)), "end2": node("Sink", value=("b", 0))})
    assert provider.stores == ["Say"]
    second = server(Say=bench.classes["Say"])
    second.run({"z": node("Say"), "end": node("Sink", value=("z", 0))})
    assert second.data("execution_cached")[0]["nodes"] == ["z"]


def test_values_are_the_providers_own_class(server):
    seen = []
    provider = Memory()
    provider.should_cache = lambda context, value=None: seen.append((context, value)) or True
    register_cache_provider(provider)
    bench = server()
    bench.run(chain(1, value=4))
    bench.executor.close()
    (asked, nothing), (context, value) = seen
    assert nothing is None and isinstance(value, CacheValue) and value.outputs == [[4]] and value.ui is None
    assert (asked.node_id, asked.class_type, len(asked.cache_key_hash)) == ("0", "Value", 64) and asked == context
