"""What node authors build subgraphs with."""

import contextvars

import pytest

from comfy_execution.graph import ExecutionBlocker as SameBlocker
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder, add_graph_prefix, is_link


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["1", 0], True),
        (["a.b.", 2], True),
        (["1", 1.0], True),
        (["1", True], True),
        (("1", 0), False),
        (["1"], False),
        (["1", 0, 0], False),
        ([1, 0], False),
        (["1", "0"], False),
        (["1", None], False),
        ("10", False),
        ({"1": 0, "2": 1}, False),
        (None, False),
        ([], False),
    ],
)
def test_links_are_lists_of_an_id_and_a_number(value, expected):
    assert is_link(value) is expected


def test_nodes_get_ids_with_the_prefix_and_link_to_one_another():
    builder = GraphBuilder(prefix="p.")
    first = builder.node("Load", name="x")
    second = builder.node("Blur", "named", image=first.out(0))
    assert builder.finalize() == {
        "p.1": {"class_type": "Load", "inputs": {"name": "x"}},
        "p.named": {"class_type": "Blur", "inputs": {"image": ["p.1", 0]}},
    }
    assert builder.lookup_node("named") is second is builder.node("Other", "named")
    assert builder.lookup_node("nobody") is None


def test_inputs_are_set_read_and_removed_and_a_node_may_be_shown_as_another():
    node = GraphBuilder(prefix="").node("Load", a=1)
    node.set_input("b", 2)
    node.set_input("a", None)
    node.set_input("never there", None)
    node.set_override_display_id("7")
    assert (node.get_input("b"), node.get_input("a")) == (2, None)
    assert node.serialize() == {"class_type": "Load", "inputs": {"b": 2}, "override_display_id": "7"}


def test_every_use_of_an_output_is_replaced_or_removed():
    builder = GraphBuilder(prefix="p.")
    old = builder.node("Load", "old")
    users = [builder.node("Use", a=old.out(0), b=old.out(1), c="p.old") for _ in range(2)]
    builder.replace_node_output("old", 0, ["p.new", 3])
    builder.replace_node_output("old", 1, None)
    assert [user.inputs for user in users] == [{"a": ["p.new", 3], "c": "p.old"}] * 2
    builder.remove_node("old")
    assert builder.lookup_node("old") is None


def test_default_prefixes_name_the_call_and_are_never_used_twice():
    def scenario():
        GraphBuilder.set_default_prefix("12", 3)
        return [GraphBuilder().prefix, GraphBuilder().prefix, GraphBuilder.alloc_prefix("x", 0, 0), GraphBuilder().prefix]

    assert contextvars.copy_context().run(scenario) == ["12.3.0.", "12.3.1.", "x.0.0.", "12.3.3."]
    assert GraphBuilder().prefix != "12.3.4.", "another call's prefix is its own"


def test_prefixing_a_graph_changes_ids_and_links_but_not_the_original():
    graph = {
        "1": {"class_type": "Load", "inputs": {"x": 5}},
        "2": {"class_type": "Blur", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "No"},
    }
    changed, outputs = add_graph_prefix(graph, [["2", 0], 7], "p.")
    assert changed == {
        "p.1": {"class_type": "Load", "inputs": {"x": 5}},
        "p.2": {"class_type": "Blur", "inputs": {"image": ["p.1", 0]}},
        "p.3": {"class_type": "No", "inputs": {}},
    }
    assert outputs == (["p.2", 0], 7)
    assert graph["2"]["inputs"] == {"image": ["1", 0]}


def test_the_blocker_is_one_class_wherever_it_is_imported_from():
    assert SameBlocker is ExecutionBlocker and ExecutionBlocker("why").message == "why"
