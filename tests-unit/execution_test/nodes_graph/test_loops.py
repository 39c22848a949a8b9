"""Which nodes of a prompt are loops: pairs, bodies, what runs for nodes inside, and what is wrong."""

import re

import pytest

from comfy_execution.nodes_graph.loops import Loop, boundary_of, find_loops


def graph(**links):
    """Nodes by id, with links to the named ones; what begins with S starts a loop, with E ends one."""
    return {
        node_id: {"class_type": node_id, "inputs": {name: [parent, 0] for name, parent in inputs.items()}}
        for node_id, inputs in links.items()
    }


def kind(node_id):
    return {"S": "start", "E": "end"}.get(node_id[0])


def loops(**links):
    return find_loops(graph(**links), kind)


OUTER = {"S": {}, "SI": {"parent_iteration": "S"}, "body": {"a": "SI", "b": "S", "c": "source"}, "source": {}}
NESTED = {**OUTER, "EI": {"output_value": "body"}, "more": {"a": "EI"}, "E": {"next_iteration_value": "more"}, "out": {"a": "E"}}


def test_inner_loops_come_first_and_lie_in_the_outer_ones():
    found = loops(**NESTED)
    assert not found.faults
    assert found.found == (Loop("SI", "EI", frozenset({"body"})), Loop("S", "E", frozenset({"SI", "body", "EI", "more"})))


def test_nodes_before_a_loop_and_behind_it_are_not_in_it():
    found = loops(**NESTED)
    assert found.run_for("source") == "source" and found.run_for("out") == "out"
    assert found.run_for("body") == found.run_for("more") == "E"


def test_loops_one_after_another_and_beside_each_other_are_told_apart():
    found = loops(
        S={}, E={"output_value": "S"}, S2={"list": "E"}, b={"a": "S2"}, E2={"output_value": "b"}, S3={}, E3={"terminations.0": "S3"}
    )
    assert not found.faults and {(loop.start, loop.end) for loop in found.found} == {("S", "E"), ("S2", "E2"), ("S3", "E3")}


@pytest.mark.parametrize(
    ("links", "told", "nodes"),
    [
        ({"a": {}, "E": {"output_value": "a"}}, "has no Start Loop before it", ("E",)),
        ({"S": {}, "a": {"x": "S"}}, "has no End Loop after it", ("S",)),
        ({"S": {}, "S2": {}, "a": {"x": "S", "y": "S2"}, "E": {"output_value": "a"}}, r"may end several loops \(S, S2\)", ("E", "S", "S2")),
        ({"S": {}, "a": {"x": "S"}, "E": {"output_value": "a"}, "out": {"x": "a", "y": "E"}}, "node out uses the loop", ("out", "S", "E")),
        ({"S": {}, "a": {"x": "S"}, "E": {"output_value": "a"}, "out": {"x": "S"}}, "node out uses the loop", ("out", "S", "E")),
        ({"S": {}, "a": {"x": "S"}, "E": {"output_value": "a", "accumulate": "a"}}, "comes from the loop itself", ("E", "S")),
    ],
)
def test_faults_name_the_nodes_and_what_to_do(links, told, nodes):
    (fault, *_) = [fault for fault in loops(**links).faults if fault.node_ids == nodes]
    assert re.search(told, fault.message)


def test_prompts_without_loops_and_damaged_ones_are_no_fault():
    assert loops(a={}, b={"x": "a"}) == find_loops({}, kind)
    damaged = {"S": {"class_type": "S", "inputs": None}, "E": {"class_type": "E", "inputs": {"output_value": ["S", 0], "x": ["lost", 0]}}}
    assert find_loops(damaged, kind).found == (Loop("S", "E", frozenset()),)


def test_nodes_on_a_circle_end_the_search():
    found = loops(S={"a": "b"}, a={"x": "S"}, b={"x": "a"}, E={"output_value": "b"})
    assert found.found == (Loop("S", "E", frozenset({"a", "b"})),)


def test_only_the_two_kinds_are_boundaries():
    assert [boundary_of(type("T", (), {"LOOP_BOUNDARY": kind})) for kind in ("start", "end", "middle")] == ["start", "end", None]
    assert boundary_of(object) is None
