"""Loops, run by the executor: how often bodies run, what goes on and what is returned, what is cached, what is refused."""

import asyncio

import pytest
from executor_harness import Log, benches, make_node, node

import execution
from comfy_extras import nodes_logic, nodes_loop, nodes_toolkit

NODES = {one.GET_SCHEMA().node_id: one for one in asyncio.run(asyncio.run(nodes_loop.comfy_entrypoint()).get_node_list())}
NODES |= {**nodes_toolkit.NODE_CLASS_MAPPINGS, "ComfySwitchNode": nodes_logic.SwitchNode}


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def calls():
    """What the bodies' nodes were called with, in order."""
    return []


@pytest.fixture
def bench(monkeypatch, log, calls):
    def add(self, a, b):
        calls.append((a, b))
        return (a + b,)

    def show(self, value):
        log.append(("shown", value))
        return {"ui": {"value": [value]}, "result": (value,)}

    maker = benches(monkeypatch, log)
    classes = {"Note": make_node(add, ["a", "b"]), "Show": make_node(show, ["value"], is_output=True)}
    classes["OrOne"] = make_node(lambda self, value: (1 if value is None else value,), ["value"])
    yield next(maker)(**NODES, **classes)
    next(maker, None)


def start(count=3, **more):
    return node("StartLoop", **{"mode": "simple", "mode.num_iterations": count, "cache_iterations": False, **more})


def sums(count=3, accumulate=True, **more):
    """0 + 10, what comes of it + 10, and so on."""
    return {
        "zero": node("Value", x=0),
        "start": start(count, initial_iteration_value=("zero", 0), **more),
        "body": node("Note", a=("start", 4), b=10),
        "end": node("EndLoop", output_value=("body", 0), next_iteration_value=("body", 0), accumulate=accumulate),
        "sink": node("Sink", value=("end", 0)),
    }


def checked(prompt):
    return asyncio.run(execution.validate_prompt("x", prompt, None))


def test_the_body_runs_once_per_iteration_with_what_the_one_before_made(bench, log, calls):
    prompt = sums()
    assert checked(prompt)[:3] == (True, None, ["sink"])
    bench.run(prompt)
    assert calls == [(0, 10), (10, 10), (20, 10)] and log == [10, 20, 30]
    shown = [data["display_node"] for data in bench.data("executing")]
    assert shown.count("body") == 3 and "end" in shown
    assert not bench.data("execution_error") and bench.executor.success


def test_without_accumulating_the_last_iteration_is_returned(bench, log, calls):
    bench.run(sums(accumulate=False))
    assert len(calls) == 3 and log == [30]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ({"mode": "For", "mode.start_iteration_index": 2, "mode.max_iteration": 9, "mode.step": 3}, [2, 5, 8]),
        ({"mode": "simple", "mode.num_iterations": ("count", 0)}, [0, 1]),
    ],
)
def test_indices_first_and_last(bench, log, mode, expected):
    prompt = {
        "count": node("Value", x=2),
        "start": node("StartLoop", cache_iterations=False, **mode),
        "three": node("CreateList", **{f"inputs.input{place}": ("start", place) for place in range(3)}),
        "end": node("EndLoop", output_value=("three", 0), accumulate=True),
        "sink": node("Sink", value=("end", 0)),
    }
    bench.run(prompt)
    last = len(expected) - 1
    assert log == [value for place, index in enumerate(expected) for value in (index, place == 0, place == last)]


@pytest.mark.parametrize("source", [node("Many", x=["a", "b", ["c", 1]]), node("Value", x=["a", "b", ["c", 1]])])
def test_a_list_is_gone_through_item_by_item_also_where_one_looks_like_a_link(bench, log, source):
    prompt = {
        "items": source,
        "start": node("StartLoop", mode="List", cache_iterations=False, **{"mode.list": ("items", 0)}),
        "body": node("Pass", value=("start", 3)),
        "end": node("EndLoop", output_value=("body", 0), accumulate=True),
        "sink": node("Sink", value=("end", 0)),
    }
    bench.run(prompt)
    assert log == ["a", "b", ["c", 1]]


def test_several_values_are_carried_as_a_list_as_the_wan_animate_template_does(bench, log, calls):
    """The first iteration takes its own values, or none, as there is nothing carried yet."""
    prompt = {
        "start": start(3),
        "old": node("GetItemFromList", list=("start", 4), index=0),
        "sum": node("GetItemFromList", list=("start", 4), index=1),
        "before": node("ComfySwitchNode", switch=("start", 1), on_false=("old", 0)),  # None at first
        "first": node("OrOne", value=("before", 0)),
        "second": node("ComfySwitchNode", switch=("start", 1), on_true=("one", 0), on_false=("sum", 0)),
        "one": node("Value", x=1),
        "body": node("Note", a=("first", 0), b=("second", 0)),
        "pair": node("CreateList", **{"inputs.input0": ("second", 0), "inputs.input1": ("body", 0)}),
        "end": node("EndLoop", output_value=("body", 0), next_iteration_value=("pair", 0), accumulate=True),
        "sink": node("Sink", value=("end", 0)),
    }
    accepted, error, _, _ = checked(prompt)
    assert accepted, error
    bench.run(prompt)
    assert calls == [(1, 1), (1, 2), (2, 3)] and log == [2, 3, 5]


def nested():
    return {
        "zero": node("Value", x=0),
        "outer": start(2, initial_iteration_value=("zero", 0)),
        "inner": start(3, parent_iteration=("outer", 0), initial_iteration_value=("outer", 4)),
        "body": node("Note", a=("inner", 4), b=("outer", 0)),
        "ten": node("Note", a=("body", 0), b=10),
        "inner end": node("EndLoop", output_value=("ten", 0), next_iteration_value=("ten", 0), accumulate=False),
        "end": node("EndLoop", output_value=("inner end", 0), next_iteration_value=("inner end", 0), accumulate=True),
        "sink": node("Sink", value=("end", 0)),
    }


def test_loops_in_loops_run_their_bodies_in_order(bench, log, calls):
    prompt = nested()
    assert checked(prompt)[0]
    bench.run(prompt)
    assert [call for call in calls if call[1] != 10] == [(0, 0), (10, 0), (20, 0), (30, 1), (41, 1), (52, 1)]
    assert log == [30, 63]


@pytest.mark.parametrize("asked", [None, ["show"]])
def test_output_nodes_in_the_body_run_in_every_iteration(bench, log, asked):
    prompt = {
        "start": start(3),
        "body": node("Note", a=("start", 0), b=100),
        "show": node("Show", value=("body", 0)),
        "end": node("EndLoop", accumulate=False, **{"terminations.termination0": ("show", 0)}),
    }
    accepted, error, good, _ = asyncio.run(execution.validate_prompt("x", prompt, asked))
    assert accepted and good == ["show"], error
    bench.run(prompt, good)
    assert log == [("shown", 100), ("shown", 101), ("shown", 102)]
    shown = [(data["display_node"], data["output"]["value"]) for data in bench.data("executed")]
    assert shown == [("show", [100]), ("show", [101]), ("show", [102])]


def test_no_iterations_return_an_empty_list(bench, log, calls):
    prompt = sums(0)
    prompt["sink"] = node("Joined", value=("end", 0))
    joined = make_node(lambda self, value: log.append(list(value)) or {}, ["value"], (), True, INPUT_IS_LIST=True)
    bench.classes["Joined"] = joined
    __import__("nodes").NODE_CLASS_MAPPINGS["Joined"] = joined
    bench.run(prompt)
    assert calls == [] and log == [[]]


def test_loops_run_again_unless_their_iterations_may_be_reused(bench, calls):
    for cached, again in ((False, 3), (True, 0)):
        prompt = sums(cache_iterations=cached)
        bench.run(prompt)
        calls.clear()
        bench.run(prompt)
        assert len(calls) == again, cached


def test_reused_iterations_are_those_in_which_nothing_changed(bench, log, calls):
    bench.run(sums(3, cache_iterations=True))
    calls.clear()
    bench.run(sums(5, cache_iterations=True))  # the third is not the last one any more, so it runs again
    assert calls == [(20, 10), (30, 10), (40, 10)] and log[3:] == [10, 20, 30, 40, 50]
    calls.clear()
    other = sums(5, cache_iterations=True)
    other["body"]["inputs"]["b"] = 1
    bench.run(other)
    assert len(calls) == 5 and log[8:] == [1, 2, 3, 4, 5]


def test_a_failing_iteration_ends_the_prompt_at_the_bodys_node(bench, calls):
    prompt = sums()
    prompt["body"]["inputs"]["b"] = ("text", 0)
    prompt["text"] = node("Value", x="text")
    bench.run(prompt)
    assert "unsupported operand" in bench.error()["exception_message"] and len(calls) == 1
    prompt = sums(mode="For", **{"mode.start_iteration_index": 0, "mode.max_iteration": 4, "mode.step": ("zero", 0)})
    bench.run(prompt)
    assert "the step of Start Loop is 0" in bench.error()["exception_message"]


@pytest.mark.parametrize(
    ("change", "told", "wrong"),
    [
        ({"end": node("EndLoop", accumulate=True)}, "has no Start Loop before it", {"end"}),
        ({"sink": node("Sink", value=("body", 0))}, "node sink uses the loop", {"sink", "start", "end"}),
        ({"sink": node("Sink", value=("start", 0))}, "node sink uses the loop", {"sink", "start", "end"}),
    ],
)
def test_loops_that_cannot_run_are_refused_with_the_nodes_named(bench, change, told, wrong):
    accepted, error, good, errors = checked(sums() | change)
    assert not accepted and good == [] and told in error["details"] and set(errors) == wrong
    assert all(one["errors"][0]["extra_info"]["input_name"] == "loop boundary" for one in errors.values())


def test_what_is_wrong_with_one_loop_leaves_other_outputs_alone(bench):
    prompt = sums() | {"alone": start(2), "lost": node("Sink", value=("alone", 0)), "fine": node("Sink", value=("zero", 0))}
    accepted, _, good, errors = checked(prompt)
    assert accepted and good == ["sink", "fine"] and set(errors) == {"alone"}
    assert errors["alone"]["dependent_outputs"] == ["lost"]


def test_an_end_that_is_wrong_fails_the_outputs_in_its_loop(bench):
    prompt = {
        "start": start(2),
        "show": node("Show", value=("start", 0)),
        "end": node("EndLoop", **{"terminations.termination0": ("show", 0), "accumulate": ["lost", 0]}),
    }
    accepted, _, good, errors = checked(prompt)
    assert not accepted and good == [] and "end" in errors


def test_items_that_are_not_there_are_one_error(bench, log):
    prompt = {
        "many": node("Many", x=[5, 6]),
        "item": node("GetItemFromList", list=("many", 0), index=-1),
        "sink": node("Sink", value=("item", 0)),
    }
    bench.run(prompt)
    assert log == [6]
    prompt["item"]["inputs"]["index"] = 2
    bench.run(prompt)
    assert "the list has 2 items" in bench.error()["exception_message"]
