"""What fails, how it is told, and that the next prompt does not notice."""

import gc
import json
import logging
import sys
import types
import weakref

import pytest
from executor_harness import Log, benches, chain, make_node, node

import execution
from comfy.interruption import InterruptProcessingException, interrupt_flag


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def bench(monkeypatch, log):
    """A function that makes a bench from named classes, besides the usual ones."""
    yield from benches(monkeypatch, log)


def test_an_error_is_reported_with_what_led_to_it(bench, log):
    class Unprintable:
        def __repr__(self):
            raise RuntimeError("no repr")

    def go(self, value, text, thing):
        raise ValueError("bad value")

    made = bench(Fails=make_node(go, ["value", "text", "thing"]))
    made.run(
        {
            "1": node("Value", x=3),
            "2": node("Fails", value=("1", 0), text="t" * 100_000, thing=Unprintable()),
            "3": node("Sink", value=("2", 0)),
        }
    )
    error = made.error()
    assert not made.executor.success and log == []
    assert (error["node_id"], error["exception_message"], error["exception_type"]) == ("2", "bad value", "ValueError")
    assert error["executed"] == ["1"] and "in go" in "".join(error["traceback"]) and isinstance(error["timestamp"], int)
    assert error["current_inputs"]["value"] == [3] and "cannot be printed" in error["current_inputs"]["thing"][0]
    assert len(error["current_inputs"]["text"][0]) < 5000 and sorted(error["current_outputs"]) == ["1", "2", "3"]
    assert made.executor.status_messages[-1][0] == "execution_error"


def test_an_error_whose_text_cannot_be_made_is_still_reported(bench):
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    def go(self):
        raise Odd

    made = bench(Fails=make_node(go))
    made.run({"1": node("Fails"), "2": node("Sink", value=("1", 0))})
    assert "Odd" in made.error()["exception_message"]


def test_exit_and_stop_iteration_in_a_node_are_its_errors(bench):
    def leave(self):
        raise SystemExit(3)

    def stop(self):
        raise StopIteration

    made = bench(Leaves=make_node(leave), Stops=make_node(stop))
    made.run({"1": node("Leaves"), "2": node("Sink", value=("1", 0))})
    assert made.error()["exception_type"] == "SystemExit"
    made.run({"1": node("Stops"), "2": node("Sink", value=("1", 0))})
    assert "StopIteration" in made.error()["exception_type"] + made.error()["exception_message"]
    made.run(chain(1))
    assert made.executor.success


def test_out_of_memory_unloads_models_and_gives_a_hint(bench, monkeypatch):
    unloaded = []
    fake = types.ModuleType("comfy.model_management")
    fake.DISABLE_SMART_MEMORY = False
    fake.is_oom = lambda error: isinstance(error, MemoryError)
    fake.unload_all_models = lambda: unloaded.append(1)
    fake.process_models = lambda: types.SimpleNamespace(has_manager=lambda: False)
    monkeypatch.setitem(sys.modules, "comfy.model_management", fake)

    def go(self):
        raise MemoryError("full")

    made = bench(Big=make_node(go))
    made.run({"1": node("Big"), "2": node("Sink", value=("1", 0))})
    assert unloaded == [1] and made.error()["exception_message"] == f"full\n{execution.OUT_OF_MEMORY_HINT}"


@pytest.mark.parametrize("cause", [InterruptProcessingException, None])
def test_an_interrupt_stops_before_the_next_call(bench, log, cause):
    def go(self):
        if cause is not None:
            raise cause
        interrupt_flag.set()
        return (1,)

    made = bench(Stops=make_node(go))
    made.run({"1": node("Stops"), "2": node("Sink", value=("1", 0))}, client_id=None)
    ((_, message, sid),) = made.server.sent
    assert sid is None and made.server.sent[0][0] == "execution_interrupted" and log == []
    assert message["node_id"] == ("1" if cause else "2") and message["node_type"] == ("Stops" if cause else "Sink")
    assert not made.executor.success
    made.run(chain(1))
    assert made.executor.success


def test_an_interrupt_left_over_does_not_hit_the_next_prompt(bench, log):
    made = bench()
    interrupt_flag.set()
    made.run(chain(1))
    assert made.executor.success and log == [1]


@pytest.fixture
def queued(bench):
    """``queued(**classes)``: a bench whose server has a queue, and a function that runs a prompt from there."""

    def make(**classes):
        made = bench(**classes)
        queue = made.server.prompt_queue = execution.PromptQueue(made.server)

        def run(prompt, meanwhile=lambda: None):
            queue.put((0, f"prompt-{made.runs + 1}", prompt, {}, [], {}))
            _, item_id = queue.get(0)
            meanwhile()
            made.run(prompt)
            queue.task_done(item_id, made.executor.history_result, None)
            return [event for event, *_ in made.server.sent]

        return made, queue, run

    return make


@pytest.mark.parametrize("cancel", ["interrupt_all", "interrupt_if_running"])
def test_a_prompt_cancelled_before_its_first_step_stops(queued, log, cancel):
    _, queue, run = queued()
    arguments = () if cancel == "interrupt_all" else ("prompt-1",)
    assert "execution_interrupted" in run(chain(1), lambda: getattr(queue, cancel)(*arguments)) and log == []
    assert "execution_success" in run(chain(1)) and log == [1], "the next one does not"


def test_a_prompt_whose_nodes_are_all_cached_can_be_cancelled(queued):
    _, queue, run = queued()
    assert "execution_success" in run(chain(1))
    assert "execution_interrupted" in run(chain(1), queue.interrupt_all)


def test_a_node_that_swallows_the_interrupt_is_the_last_one(queued, log):
    def go(self):
        queue.interrupt_all()
        try:
            execution.before_call()
        except BaseException:  # noqa: BLE001  (what some nodes do)
            log.append("swallowed")
        return (1,)

    made, queue, run = queued(Swallows=make_node(go), Last=make_node(go, is_output=True))
    sent = run({"1": node("Swallows"), "2": node("Sink", value=("1", 0))})
    assert log == ["swallowed"] and "execution_interrupted" in sent and "execution_success" not in sent
    assert made.data("execution_interrupted")[0]["node_id"] == "2"
    sent = run({"1": node("Last")})
    assert "execution_interrupted" in sent and "execution_success" not in sent, "also at the very end"


def test_a_bad_ui_breaks_neither_the_prompt_nor_the_history(bench):
    uis = {"list": [1], "nan": {"v": [float("nan")]}, "object": {"v": [object()]}, "scalar": {"v": 3}, "text": {"v": "hello"}}
    made = bench(Shows=make_node(lambda self, kind: {"ui": uis[kind]}, ["kind"], returns=(), is_output=True))
    made.run({kind: node("Shows", kind=kind) for kind in uis})
    assert made.executor.success
    json.dumps(made.executor.history_result, allow_nan=False)
    assert made.outputs["scalar"] == {"v": [3]} and made.outputs["text"] == {"v": ["hello"]} and "list" not in made.outputs


def test_ui_of_mapped_calls_is_joined(bench):
    made = bench(Shows=make_node(lambda self, value: {"ui": {"v": (value,)}}, ["value"], returns=(), is_output=True))
    made.run({"m": node("Many", x=[1, 2]), "s": node("Shows", value=("m", 0))})
    assert made.outputs["s"] == {"v": [1, 2]}


def test_a_failure_of_the_engine_itself_is_reported(bench, monkeypatch):
    made = bench()

    async def broken(*arguments):
        raise RuntimeError("cache on fire")

    monkeypatch.setattr(made.executor.caches.outputs, "set_prompt", broken)
    made.run(chain(1))
    assert not made.executor.success and made.error()["exception_message"] == "cache on fire" and made.error()["node_id"] == "end"
    assert made.executor.history_result == {"outputs": {}, "meta": {}}


@pytest.mark.parametrize("is_disabled", [True, False])
def test_without_smart_memory_models_are_unloaded_after_each_prompt(bench, monkeypatch, is_disabled):
    unloaded = []
    fake = types.ModuleType("comfy.model_management")
    fake.DISABLE_SMART_MEMORY = is_disabled
    fake.unload_all_models = lambda: unloaded.append(1)
    monkeypatch.setitem(sys.modules, "comfy.model_management", fake)
    bench().run(chain(1))
    assert unloaded == [1] * is_disabled


def test_the_values_of_a_failed_node_are_released(bench):
    class Tensor:
        pass

    held = []

    def go(self):
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        raise ValueError("failed")

    made = bench(Fails=make_node(go))
    gc.disable()
    # pytest keeps log records, and with them the traceback.
    logging.disable(logging.CRITICAL)
    try:
        made.run({"1": node("Fails"), "2": node("Sink", value=("1", 0))})
        assert held[0]() is None
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()
