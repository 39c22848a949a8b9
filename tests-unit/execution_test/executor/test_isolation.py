"""Whatever code that is not ours raises, it ends no thread and no loop, and what it raised is told."""

import asyncio
import json
import logging
import signal
import threading
import types

import pytest
from executor_harness import Log, benches, chain, make_node, node

import execution
from app.running.stop_watch import StopWatch
from comfy.interruption import InterruptProcessingException
from comfy_execution.executor.isolation import Isolation, is_own_end, log_failure
from comfy_execution.progress_board.state import ProgressHandler, add_progress_handler, get_progress_state


class Panic(BaseException):
    """What extension modules raise for a panic in their own language."""


class Mute(BaseException):
    """An error that tells nothing about itself."""

    @property
    def __class__(self):
        raise KeyboardInterrupt

    @property
    def __traceback__(self):
        raise SystemExit

    def __str__(self):
        raise GeneratorExit

    __repr__ = __str__


def raise_group():
    raise BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError("one")])


def raise_interrupts_lookalike():
    raise type("KeyboardInterrupt", (KeyboardInterrupt,), {})("not from a keyboard")


ERRORS = {
    "KeyboardInterrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt("by code")),
    "SystemExit": lambda: (_ for _ in ()).throw(SystemExit(3)),
    "CancelledError": lambda: (_ for _ in ()).throw(asyncio.CancelledError()),
    "GeneratorExit": lambda: (_ for _ in ()).throw(GeneratorExit()),
    "Panic": lambda: (_ for _ in ()).throw(Panic("panicked")),
    "Mute": lambda: (_ for _ in ()).throw(Mute()),
    "BaseExceptionGroup": raise_group,
    "subclass": raise_interrupts_lookalike,
    "StopAsyncIteration": lambda: (_ for _ in ()).throw(StopAsyncIteration()),
}


@pytest.fixture(params=ERRORS)
def fail(request):
    """A function that raises something."""
    return ERRORS[request.param]


@pytest.fixture
def bench(monkeypatch):
    """See ``executor_harness.benches``."""
    yield from benches(monkeypatch, Log())


def failed(made, **classes):
    """Run a prompt of node ``Bad`` and check that it is that node's failure and that the next prompt runs on the same threads."""
    loop, worker = made.executor.threads.loop, made.executor.threads.worker
    made.run(chain(1))
    threads = (loop._thread, worker._thread)
    made.run({"1": node("Bad", value=1), "2": node("Sink", value=("1", 0))})
    error = made.error()
    assert not made.executor.success and error["node_id"] == "1" and error["node_type"] == "Bad"
    json.dumps(made.executor.status_messages, allow_nan=False)
    made.run(chain(2))
    assert made.executor.success and (loop._thread, worker._thread) == threads and all(one.is_alive() for one in threads)
    return error


def passing(self, value=None):
    return (value,)


async def passing_async(self, value=None):
    return (value,)


def test_a_sync_node_may_raise_anything(bench, fail):
    failed(bench(Bad=make_node(lambda self, value: fail(), ["value"])))


def test_an_async_node_may_raise_anything(bench, fail):
    async def at_once(self, value):
        fail()

    async def later(self, value):
        await asyncio.sleep(0.01)
        fail()

    for function in (at_once, later):
        failed(bench(Bad=make_node(function, ["value"])))


# The event loop itself reports an error that cannot be shown.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_node_whose_own_tasks_raise_anything_does_not_end_the_loop(bench, fail):
    async def go(self, value):
        task = asyncio.create_task(background())
        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(0.01)
        return (task.done(),)

    async def background():
        fail()

    made = bench(Bad=make_node(go, ["value"]))
    made.run(chain(1))
    thread = made.executor.threads.loop._thread
    made.run({"1": node("Bad", value=1), "2": node("Sink", value=("1", 0))})
    assert made.executor.success and thread.is_alive() and made.executor.threads.loop._thread is thread


def test_a_node_that_stops_the_loop_or_cancels_what_runs_on_it_stops_itself_only(bench):
    async def stop(self, value):
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        return (value,)

    async def cancel(self, value):
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(1)

    made = bench(Stops=make_node(stop, ["value"]), Cancels=make_node(cancel, ["value"]))
    made.run({"1": node("Stops", value=1), "2": node("Sink", value=("1", 0))})
    assert made.executor.success
    with pytest.raises(BaseException):  # noqa: B017, PT011  (the cancellation reaches whoever waits)
        made.run({"1": node("Cancels", value=1), "2": node("Sink", value=("1", 0))})
    made.run(chain(1))
    assert made.executor.success


def test_replaced_functions_are_isolated_too(bench, fail, monkeypatch):
    async def replaced(*arguments, original=execution.get_output_data, **named):
        return await original(*arguments, **named)

    monkeypatch.setattr(execution, "get_output_data", replaced)
    failed(bench(Bad=make_node(lambda self, value: fail(), ["value"])))


@pytest.mark.parametrize("is_async", [True, False])
def test_is_changed_may_raise_anything_and_then_the_node_runs_again(bench, fail, is_async):
    async def ask_async(cls, value):
        fail()

    ran = []
    asked = classmethod(ask_async if is_async else lambda cls, value: fail())
    made = bench(Bad=make_node(lambda self, value: (ran.append(value),), ["value"], IS_CHANGED=asked))
    for _ in range(2):
        made.run({"1": node("Bad", value=1), "2": node("Sink", value=("1", 0))})
        assert made.executor.success
    assert ran == [1, 1]


def test_an_interrupt_in_is_changed_stops_the_prompt(bench):
    def ask(cls, value):
        raise InterruptProcessingException

    made = bench(Bad=make_node(passing, ["value"], IS_CHANGED=classmethod(ask)))
    made.run({"1": node("Bad", value=1), "2": node("Sink", value=("1", 0))})
    assert not made.executor.success and [event for event, *_ in made.server.sent][-1] == "execution_interrupted"


@pytest.mark.parametrize("is_async", [True, False])
def test_check_lazy_status_may_raise_anything(bench, fail, is_async):
    async def ask_async(self, value):
        fail()

    asked = ask_async if is_async else lambda self, value: fail()
    failed(bench(Bad=make_node(passing, ["value"], check_lazy_status=asked)))


def test_making_the_instance_may_raise_anything(bench, fail):
    failed(bench(Bad=make_node(passing, ["value"], __init__=lambda self: fail())))


class Hostile:
    """A value all of whose methods fail."""

    def __init__(self, fail):
        self._fail = fail

    def _refuse(self):
        self._fail()

    __str__ = __repr__ = __len__ = __iter__ = as_dict = items = _refuse


def test_a_ui_may_raise_anything_when_it_is_looked_at(bench, fail):
    shown = {"as_dict": Hostile(fail), "in a dict": {"values": [Hostile(fail)]}}

    class Stops(dict):
        def items(self):
            fail()

    failed(bench(Bad=make_node(lambda self, value: {"ui": shown["as_dict"], "result": (1,)}, ["value"])))
    failed(bench(Bad=make_node(lambda self, value: {"ui": {"a": [Stops()]}, "result": (1,)}, ["value"])))
    made = bench(Bad=make_node(lambda self, value: {"ui": shown["in a dict"], "result": (value,)}, ["value"]))
    made.run({"1": node("Bad", value=1), "2": node("Sink", value=("1", 0))})
    assert made.executor.success and "cannot be printed" in made.outputs["1"]["values"][0]


def test_inputs_and_error_texts_may_raise_anything_when_they_are_shown(bench, fail):
    class Error(Exception):
        __str__ = __repr__ = lambda self: fail()

    def go(self, value, thing):
        raise Error

    made = bench(Make=make_node(lambda self: (Hostile(fail),)), Bad=make_node(go, ["value", "thing"]))
    made.run({"0": node("Make"), "1": node("Bad", value=1, thing=("0", 0)), "2": node("Sink", value=("1", 0))})
    error = made.error()
    assert "cannot be printed" in error["exception_message"] and "cannot be printed" in error["current_inputs"]["thing"][0]


def test_numbers_too_large_for_json_are_sent_as_text(bench):
    def go(self, value):
        raise ValueError(value)

    made = bench(
        Make=make_node(lambda self: (10**6000,)),
        Shows=make_node(lambda self, value: {"ui": {"v": [value]}}, ["value"], returns=(), is_output=True),
        Bad=make_node(go, ["value"], is_output=True),
    )
    made.run({"0": node("Make"), "1": node("Shows", value=("0", 0)), "2": node("Bad", value=("0", 0))})
    json.dumps([made.executor.history_result, made.executor.status_messages])
    assert made.error()["node_id"] == "2"


@pytest.mark.parametrize("method", ["start_handler", "update_handler", "finish_handler", "reset"])
def test_a_progress_handler_may_raise_anything(bench, fail, method):
    def go(self, value):
        handler = ProgressHandler("hostile")
        setattr(handler, method, lambda *arguments: fail())
        add_progress_handler(handler)
        get_progress_state().update_progress("1", 1, 2)
        return (value,)

    made = bench(Bad=make_node(go, ["value"]))
    made.run({"1": node("Bad", value=1), "2": node("Sink", value=("1", 0))})
    if method == "reset":
        assert made.executor.success
    else:
        assert made.error()["node_id"] == ("2" if method == "start_handler" else "1")
    made.run(chain(1))
    assert made.executor.success


@pytest.mark.parametrize("name", ["unload_all_models", "is_oom"])
def test_questions_about_an_error_may_raise_anything(bench, fail, monkeypatch, name):
    from app.running import surroundings

    class Models:
        DISABLE_SMART_MEMORY = True
        is_oom = staticmethod(lambda error: True)
        unload_all_models = staticmethod(lambda: None)
        process_models = staticmethod(lambda: types.SimpleNamespace(has_manager=lambda: False))

    setattr(Models, name, staticmethod(lambda *arguments: fail()))
    monkeypatch.setattr(surroundings, "model_management", Models)
    failed(bench(Bad=make_node(lambda self, value: value.absent, ["value"])))


def test_ctrl_c_on_the_main_thread_passes():
    with pytest.raises(KeyboardInterrupt), Isolation("A test"):
        raise KeyboardInterrupt
    assert is_own_end(KeyboardInterrupt(), None)
    seen = []

    def elsewhere():
        with Isolation("A test") as attempt:
            raise KeyboardInterrupt
        seen.extend([type(attempt.error), is_own_end(KeyboardInterrupt(), None)])

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [KeyboardInterrupt, False]


def test_while_the_server_handles_signals_ctrl_c_raises_nothing():
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        with StopWatch(lambda: None), Isolation("A test") as attempt:
            raise KeyboardInterrupt
        assert type(attempt.error) is KeyboardInterrupt
    finally:
        signal.set_wakeup_fd(-1)
        for one, handler in before.items():
            signal.signal(one, handler)


async def test_a_cancellation_counts_only_when_somebody_asked_for_it():
    async def sleeps():
        await asyncio.sleep(60)

    task = asyncio.create_task(sleeps())
    assert not is_own_end(asyncio.CancelledError(), task) and not is_own_end(GeneratorExit(), task)
    task.cancel()
    assert is_own_end(asyncio.CancelledError(), task)
    assert not is_own_end(SystemExit(), task) and not is_own_end(ValueError(), task)
    await asyncio.wait([task])


def test_a_failure_is_logged_whatever_the_error_is_like(caplog):
    logger = logging.getLogger("test_isolation")
    log_failure(logger, "This", Mute())
    log_failure(logger, "That", ValueError("plain"))
    assert "This: <Mute that cannot be printed: GeneratorExit>" in caplog.text and "That: plain" in caplog.text
