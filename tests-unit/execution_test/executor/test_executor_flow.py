"""Prompts as a whole: messages, caching, IS_CHANGED, threads, async nodes and size."""

import asyncio
import contextvars
import math
import threading

import pytest
from executor_harness import Log, benches, chain, make_node, meeting, node

import execution
from comfy.interruption import interrupt_flag
from comfy_execution.cache_provider import register_cache_provider, unregister_cache_provider
from comfy_execution.nodes_graph.registered_classes import registered_classes
from comfy_execution.utils import get_executing_context


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def bench(monkeypatch, log):
    """A function that makes a bench from named classes, besides the usual ones."""
    yield from benches(monkeypatch, log)


def events(bench):
    return [name for name, _, _ in bench.server.sent if name != "progress_state"]


# --- messages and caching ---


def test_messages_of_a_run_and_of_its_cached_repetition(bench):
    made = bench()
    made.run(chain(2))
    assert events(made) == ["execution_start", "execution_cached", "executing", "executing", "executing", "executed", "execution_success"]
    assert all(data["prompt_id"] == "prompt-1" and sid == "owner" for _, data, sid in made.server.sent)
    assert made.data("executing")[0] == {"node": "0", "display_node": "0", "prompt_id": "prompt-1"}
    assert made.data("execution_cached")[0]["nodes"] == []
    assert all(isinstance(data["timestamp"], int) for name in ("execution_start", "execution_success") for data in made.data(name))
    made.run(chain(2))
    assert events(made) == ["execution_start", "execution_cached", "executed", "execution_success"]
    assert sorted(made.data("execution_cached")[0]["nodes"]) == ["0", "1", "end"]
    assert made.data("executed")[0] == {"node": "end", "display_node": "end", "output": {"value": ["1"]}, "prompt_id": "prompt-2"}
    assert made.executor.history_result == {
        "outputs": {"end": {"value": ["1"]}},
        "meta": {"end": {"node_id": "end", "display_node": "end", "parent_node": None, "real_node_id": "end"}},
    }


def test_a_changed_literal_reruns_only_what_depends_on_it(bench, log):
    made = bench()
    prompt = {
        "a": node("Value", x=1),
        "b": node("Value", x=2),
        "s": node("Add", a=("a", 0), b=("b", 0)),
        "end": node("Sink", value=("s", 0)),
    }
    made.run(prompt)
    prompt["b"] = node("Value", x=5)
    made.run(prompt)
    assert log == [3, 6] and sorted(made.executed()) == ["b", "end", "s"]


def test_without_a_cache_everything_runs_again(bench, log):
    made = bench(cache_type=execution.CacheType.NONE)
    made.run(chain(3))
    made.run(chain(3))
    assert log == [1, 1] and len(made.executed()) == 4


def test_reset_forgets_results(bench, log):
    made = bench()
    made.run(chain(1))
    made.executor.reset()
    made.run(chain(1))
    assert log == [1, 1]


def test_without_a_client_nothing_is_sent(bench, log):
    made = bench()
    made.run(chain(2), client_id=None)
    assert made.server.sent == [] and log == [1]
    assert [name for name, _ in made.executor.status_messages] == ["execution_start", "execution_cached", "execution_success"]
    assert made.outputs == {"end": {"value": ["1"]}}


def test_the_same_work_twice_in_a_prompt_is_done_once(bench, log):
    made = bench()
    made.run({"a": node("Value", x=1), "b": node("Value", x=1), "s1": node("Sink", value=("a", 0)), "s2": node("Sink", value=("b", 0))})
    assert log == [1] and len(made.executed()) == 2
    assert made.outputs == {"s1": {"value": ["1"]}, "s2": {"value": ["1"]}}


def test_only_what_the_targets_depend_on_runs(bench, log):
    made = bench()
    prompt = {"a": node("Value", x=1), "b": node("Value", x=2), "s1": node("Sink", value=("a", 0)), "s2": node("Sink", value=("b", 0))}
    made.run(prompt, ["s2"])
    assert log == [2] and made.executed() == ["b", "s2"]


def test_intermediate_outputs_show_their_ui_again_when_cached(bench):
    shows = make_node(lambda self, value: {"ui": {"text": [value]}, "result": (value,)}, ["value"], HAS_INTERMEDIATE_OUTPUT=True)
    made = bench(Shows=shows)
    prompt = {"1": node("Shows", value="v"), "2": node("Sink", value=("1", 0))}
    made.run(prompt)
    made.run(prompt)
    assert {data["node"]: data["output"] for data in made.data("executed")} == {"1": {"text": ["v"]}, "2": {"value": ["'v'"]}}
    assert set(made.outputs) == {"1", "2"}


# --- IS_CHANGED ---


def changing(answers, is_async=False):
    """A class whose ``IS_CHANGED`` gives the next of *answers*; exceptions are raised."""
    pending = iter(answers)

    def is_changed(cls, x=None, **others):
        answer = next(pending)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def async_is_changed(cls, x=None, **others):
        await asyncio.sleep(0)
        return is_changed(cls, x)

    return make_node(lambda self, x: (x,), ["x"], IS_CHANGED=classmethod(async_is_changed if is_async else is_changed))


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("answers, runs", [(["a", "a"], 1), (["a", "b"], 2), ([float("nan"), float("nan")], 2), ([math.nan, math.nan], 2)])
def test_is_changed_decides_whether_a_node_runs_again(bench, log, answers, runs, is_async):
    made = bench(Changing=changing(answers, is_async))
    for _ in answers:
        made.run({"1": node("Changing", x=1), "2": node("Sink", value=("1", 0))})
    assert len(log) == runs


def test_is_changed_that_fails_warns_and_reruns(bench, log, caplog):
    made = bench(Changing=changing([ValueError("disk gone"), ValueError("disk gone")]))
    for _ in range(2):
        made.run({"1": node("Changing", x=1), "2": node("Sink", value=("1", 0))})
    assert made.executor.success and log == [1, 1] and "IS_CHANGED of node 1" in caplog.text


def test_is_changed_sees_constants_and_none_for_links(bench):
    seen = []
    asks = make_node(lambda self, x, y: (x,), ["x", "y"], IS_CHANGED=classmethod(lambda cls, **inputs: seen.append(inputs)))
    made = bench(Asks=asks)
    prompt = {"0": node("Value", x=1), "1": node("Asks", x=("0", 0), y=5), "2": node("Sink", value=("1", 0))}
    made.run(prompt)
    assert seen == [{"x": None, "y": 5}] and "is_changed" not in prompt["1"]


# --- threads, contexts, async nodes ---


def test_sync_nodes_run_on_one_worker_thread_with_their_context(bench):
    seen = []

    def go(self, value=None):
        context = get_executing_context()
        seen.append((threading.current_thread().name, context.prompt_id, context.node_id, context.list_index))
        return (value,)

    made = bench(Where=make_node(go, ["value"]))
    made.run({"m": node("Many", x=[1, 2]), "1": node("Where", value=("m", 0)), "2": node("Sink", value=("1", 0))})
    assert seen == [("node-worker", "prompt-1", "1", 0), ("node-worker", "prompt-1", "1", 1)]
    assert get_executing_context() is None


def test_context_variables_do_not_leak_from_call_to_call(bench, log):
    variable = contextvars.ContextVar("leak", default="clean")

    def go(self, x):
        before = variable.get()
        variable.set("dirty")
        return (before,)

    made = bench(Leaky=make_node(go, ["x"]))
    made.run({"1": node("Leaky", x=1), "2": node("Leaky", x=2), "3": node("Sink", value=("1", 0)), "4": node("Sink", value=("2", 0))})
    assert log == ["clean", "clean"]


def test_async_nodes_overlap(bench, log):
    made = bench(Meet=meeting(3))
    prompt = {str(index): node("Meet", value=index) for index in range(3)}
    prompt.update({f"s{index}": node("Sink", value=(str(index), 0)) for index in range(3)})
    made.run(prompt)
    assert made.executor.success and sorted(log) == [0, 1, 2]


def test_mapped_async_calls_overlap_and_keep_their_order(bench, log):
    made = bench(Meet=meeting(3))
    made.run({"m": node("Many", x=["a", "b", "c"]), "1": node("Meet", value=("m", 0)), "2": node("Sink", value=("1", 0))})
    assert log == ["a", "b", "c"]


def test_a_sync_node_runs_while_an_async_one_waits_for_it(bench, log):
    ready = {}

    async def waits(self, x):
        ready["event"] = asyncio.Event()
        ready["loop"] = asyncio.get_running_loop()
        await asyncio.wait_for(ready["event"].wait(), 10)
        return (x,)

    def frees(self, x):
        ready["loop"].call_soon_threadsafe(ready["event"].set)
        return (x,)

    made = bench(Waits=make_node(waits, ["x"]), Frees=make_node(frees, ["x"]))
    made.run(
        {"1": node("Waits", x="async"), "2": node("Frees", x="sync"), "3": node("Sink", value=("1", 0)), "4": node("Sink", value=("2", 0))}
    )
    assert sorted(log) == ["async", "sync"]


def test_async_error_cancels_what_still_runs_and_the_next_prompt_works(bench, log):
    ended = []

    async def forever(self, x):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(x)

    async def fails(self, x):
        await asyncio.sleep(0)
        raise ValueError("async trouble")

    made = bench(Forever=make_node(forever, ["x"]), Fails=make_node(fails, ["x"]))
    made.run({"1": node("Forever", x=1), "2": node("Fails", x=2), "3": node("Sink", value=("1", 0)), "4": node("Sink", value=("2", 0))})
    assert made.error()["node_id"] == "2" and made.error()["exception_message"] == "async trouble" and ended == [1]
    made.run(chain(2))
    assert made.executor.success and log == [1]


def test_interrupt_ends_waiting_for_async_nodes(bench):
    async def stops(self, x):
        interrupt_flag.set()
        await asyncio.Event().wait()

    made = bench(Stops=make_node(stops, ["x"]))
    made.run({"1": node("Stops", x=1), "2": node("Sink", value=("1", 0))})
    (message,) = made.data("execution_interrupted")
    assert message["node_id"] == "1" and not interrupt_flag.is_set()


def test_executor_can_be_awaited_on_another_loop(bench, log):
    made = bench(Meet=meeting(1))
    prompt = {"1": node("Meet", value=1), "2": node("Pass", value=("1", 0)), "3": node("Sink", value=("2", 0))}
    asyncio.run(made.executor.execute_async(prompt, "p", {}, ["3"]))
    assert made.executor.success and log == [1]


def test_the_loop_lives_on_between_prompts(bench, log):
    loops = []

    async def go(self, x):
        loops.append(asyncio.get_running_loop())
        return (x,)

    made = bench(Loops=make_node(go, ["x"]))
    for x in (1, 2):
        made.run({"1": node("Loops", x=x), "2": node("Sink", value=("1", 0))})
    assert loops[0] is loops[1]


# --- size ---


def test_long_chains_and_wide_graphs(bench, log):
    made = bench()
    made.run(chain(3000))
    made.run(chain(3000))
    assert log == [1] and made.executed() == []
    wide = {str(index): node("Value", x=index) for index in range(1500)}
    wide.update({f"s{index}": node("Sink", value=(str(index), 0)) for index in range(1500)})
    made.run(wide)
    assert sorted(log[1:]) == list(range(1500))


def test_progress_of_a_wide_graph_fits_the_budget(bench):
    import json

    made = bench()
    wide = {str(index): node("Value", x=index) for index in range(1000)}
    wide["join"] = {"class_type": "Sum", "inputs": {f"v{index}": [str(index), 0] for index in range(1000)}}
    made.classes["Sum"] = registered_classes()["Sum"] = make_node(
        lambda self, **values: {"ui": {"sum": [sum(values.values())]}}, returns=(), is_output=True
    )
    made.run(wide)
    assert made.outputs["join"] == {"sum": [499500]}
    total_bytes = sum(len(json.dumps({"type": name, "data": data})) for name, data, _ in made.server.sent)
    assert total_bytes < 2_000_000 and len(made.executed()) == 1001
    assert len(made.data("progress_state")[-1]["nodes"]) == 1001
    assert all(entry["state"] == "finished" for entry in made.data("progress_state")[-1]["nodes"].values())


# --- what surrounds a prompt ---


class Provider:
    """Notes prompts; finds nothing."""

    def __init__(self, fails=False):
        self.seen, self.fails = [], fails

    def on_prompt_start(self, prompt_id):
        self.seen.append(("start", prompt_id))
        if self.fails:
            raise RuntimeError("provider down")

    def on_prompt_end(self, prompt_id):
        self.seen.append(("end", prompt_id))

    def should_cache(self, context, value=None):
        return False


@pytest.fixture
def provider():
    made = []

    def make(**arguments):
        made.append(Provider(**arguments))
        register_cache_provider(made[-1])
        return made[-1]

    yield make
    for one in made:
        unregister_cache_provider(one)


def test_cache_providers_hear_of_every_prompt_and_cannot_fail_it(bench, log, provider, caplog):
    first, second = provider(fails=True), provider()
    made = bench(Fails=make_node(lambda self: 1 / 0))
    made.run(chain(2))
    made.run({"1": node("Fails"), "2": node("Sink", value=("1", 0))})
    assert first.seen == second.seen == [(event, f"prompt-{index}") for index in (1, 2) for event in ("start", "end")]
    assert log == [1] and "Provider failed at the start" in caplog.text


def test_with_a_cache_provider_sync_nodes_still_run_on_the_worker(bench, provider):
    provider()
    seen = []
    made = bench(Where=make_node(lambda self: (seen.append(threading.current_thread().name),)))
    made.run({"1": node("Where"), "2": node("Sink", value=("1", 0))})
    assert made.executor.success and seen == ["node-worker"]


def test_closing_interrupts_what_runs(bench):
    entered = threading.Event()

    def go(self):
        entered.set()
        while True:
            execution.before_call()

    made = bench(Endless=make_node(go))
    prompt = {"1": node("Endless"), "2": node("Sink", value=("1", 0))}
    runner = threading.Thread(target=made.executor.threads.loop.run, args=(made.executor.execute_async(prompt, "p", {}, ["2"]),))
    runner.start()
    assert entered.wait(5)
    made.executor.close()
    runner.join(5)
    assert not runner.is_alive()


async def test_prompts_are_validated_against_the_node_table_of_the_moment(bench):
    made = bench()
    good, error, outputs, problems = await execution.validate_prompt("p", chain(2), None)
    assert (good, error, outputs, problems) == (True, None, ["end"], {})
    made.classes.clear()
    registered_classes().pop("Sink")
    good, error, _, _ = await execution.validate_prompt("p", chain(2), None)
    assert not good and error["type"] == "missing_node_type"
