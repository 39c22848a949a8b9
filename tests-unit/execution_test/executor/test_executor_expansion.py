"""Nodes that grow into graphs: results, ids, outputs inside, nesting, cycles."""

import pytest
from executor_harness import Log, benches, make_node, meeting, node

from comfy_execution.graph_utils import GraphBuilder


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def bench(monkeypatch, log):
    """A function that makes a bench from named classes, besides the usual ones."""
    yield from benches(monkeypatch, log)


def expanding(build, **attributes):
    """A class whose function returns what *build(GraphBuilder, value)* gives."""
    return make_node(lambda self, value=None: build(GraphBuilder(), value), ["value"], **attributes)


def test_an_expansion_runs_and_its_links_become_the_results(bench, log):
    def build(graph, value):
        inner = graph.node("Add", a=value, b=10)
        return {"result": (inner.out(0),), "expand": graph.finalize(), "ui": {"note": ["expanded"]}}

    made = bench(Grow=expanding(build))
    prompt = {"1": node("Value", x=1), "2": node("Grow", value=("1", 0)), "3": node("Sink", value=("2", 0))}
    made.run(prompt)
    assert log == [11]
    child = next(data for data in made.data("executing") if data["node"] not in prompt)
    assert child["node"].startswith("2.0.0.") and child["display_node"] == "2"
    assert made.outputs["2"] == {"note": ["expanded"]}
    made.run(prompt)
    assert made.executed() == []


def test_mapped_calls_may_mix_forms_and_keep_their_order(bench, log):
    def build(graph, value):
        if value == 2:
            inner = graph.node("Add", a=value, b=10)
            return {"result": (inner.out(0),), "expand": graph.finalize()}
        return (value,) if value == 1 else {"result": (value,)}

    made = bench(Grow=expanding(build))
    made.run({"m": node("Many", x=[1, 2, 3]), "g": node("Grow", value=("m", 0)), "s": node("Sink", value=("g", 0))})
    assert log == [1, 12, 3]


def test_a_list_result_of_an_expansion_stays_together(bench, log):
    def build(graph, value):
        many, one = graph.node("Many", x=[1, 2, 3]), graph.node("Value", x="single")
        return {"result": (many.out(0), one.out(0)), "expand": graph.finalize()}

    made = bench(Grow=expanding(build, RETURN_TYPES=("*", "*")))
    made.run({"g": node("Grow", value=0), "s": node("Sink", value=("g", 0)), "t": node("Sink", value=("g", 1))})
    assert sorted(map(str, log)) == ["1", "2", "3", "single"]


def test_expansions_nest_and_loop(bench, log):
    def build(graph, value):
        if value == 0:
            return ("done",)
        inner = graph.node("Grow", value=value - 1)
        return {"result": (inner.out(0),), "expand": graph.finalize()}

    made = bench(Grow=expanding(build))
    made.run({"g": node("Grow", value=4), "s": node("Sink", value=("g", 0))})
    assert log == ["done"]
    assert {data["display_node"] for data in made.data("executing")} == {"g", "s"}


def test_output_nodes_inside_an_expansion_run_and_show(bench, log):
    def build(graph, value):
        graph.node("Sink", id="inner", value=value)
        shown = graph.node("Sink", id="other", value="shown elsewhere")
        shown.set_override_display_id("elsewhere")
        return {"result": (value,), "expand": graph.finalize()}

    made = bench(Grow=expanding(build))
    made.run({"g": node("Grow", value="v"), "s": node("Sink", value=("g", 0))})
    assert sorted(log) == ["shown elsewhere", "v", "v"]
    children = {key: meta for key, meta in made.executor.history_result["meta"].items() if key != "s"}
    assert {meta["display_node"] for meta in children.values()} == {"g", "elsewhere"}
    assert all(meta["parent_node"] == "g" and meta["real_node_id"] == "g" for meta in children.values())


@pytest.mark.parametrize(
    "expansion, text",
    [({"v": {"class_type": "Value", "inputs": {"x": 1}}}, "already has"), ({"new": {"class_type": "Nobody", "inputs": {}}}, "Nobody")],
)
def test_wrong_expansions_are_errors_of_the_node(bench, expansion, text):
    made = bench(Grow=make_node(lambda self: {"result": (1,), "expand": expansion}))
    made.run({"v": node("Value", x=0), "g": node("Grow"), "s": node("Sink", value=("g", 0)), "t": node("Sink", value=("v", 0))}, ["t", "s"])
    assert made.error()["node_id"] == "g" and text in made.error()["exception_message"]


def test_a_cycle_made_by_expansion_ends_as_an_error_everywhere(bench):
    def build(graph, value):
        first, second = graph.node("Pass", id="a"), graph.node("Pass", id="b")
        first.set_input("value", second.out(0))
        second.set_input("value", first.out(0))
        return {"result": (first.out(0),), "expand": graph.finalize()}

    made = bench(Grow=expanding(build))
    made.run({"g": node("Grow", value=0), "s": node("Sink", value=("g", 0))})
    assert made.error()["node_id"] == "g" and made.error()["node_type"] == "Grow"
    assert not made.executor.success and made.executor.status_messages[-1][0] == "execution_error"


def test_async_nodes_made_by_expansion_overlap(bench, log):
    def build(graph, value):
        first, second = graph.node("Meet", value=1), graph.node("Meet", value=2)
        total = graph.node("Add", a=first.out(0), b=second.out(0))
        return {"result": (total.out(0),), "expand": graph.finalize()}

    made = bench(Grow=expanding(build), Meet=meeting(2))
    made.run({"g": node("Grow", value=0), "s": node("Sink", value=("g", 0))})
    assert log == [3]
