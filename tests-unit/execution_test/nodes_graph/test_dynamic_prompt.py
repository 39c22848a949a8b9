"""Nodes that were sent and nodes that expansion adds, and who is shown for them."""

import pytest

from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt, NodeNotFoundError

NODE = {"class_type": "Step", "inputs": {}}


def test_nodes_of_both_kinds_are_found_and_others_are_not():
    prompt = DynamicPrompt({"1": NODE})
    child = {"class_type": "Child", "inputs": {}}
    prompt.add_ephemeral_node("1.0.1", child, "1", "1")
    assert prompt.get_node("1") is NODE and prompt.get_node("1.0.1") is child
    assert prompt.has_node("1.0.1") and not prompt.has_node("2")
    assert prompt.all_node_ids() == {"1", "1.0.1"}
    assert prompt.get_original_prompt() == {"1": NODE}
    with pytest.raises(NodeNotFoundError, match="2"):
        prompt.get_node("2")


def test_ten_thousand_levels_of_expansion_lead_back_to_the_first_node():
    prompt = DynamicPrompt({"0": NODE})
    for level in range(1, 10_000):
        prompt.add_ephemeral_node(str(level), NODE, str(level - 1), str(level - 1))
    assert prompt.get_real_node_id("9999") == "0" == prompt.get_display_node_id("9999")
    assert prompt.get_parent_node_id("9999") == "9998"
    assert prompt.get_parent_node_id("0") is None and prompt.get_real_node_id("unknown") == "unknown"


def test_display_ids_lead_through_nodes_that_are_shown_as_others():
    prompt = DynamicPrompt({"1": NODE, "2": NODE})
    prompt.add_ephemeral_node("a", NODE, "1", "b")
    assert prompt.get_display_node_id("a") == "b"
    prompt.add_ephemeral_node("b", NODE, "1", "2")
    assert prompt.get_display_node_id("a") == "2", "b became known later"
    prompt.add_ephemeral_node("own", NODE, "1", "own")
    assert prompt.get_display_node_id("own") == "own"


def test_nodes_shown_as_one_another_do_not_hang():
    prompt = DynamicPrompt({"1": NODE})
    prompt.add_ephemeral_node("a", NODE, "1", "b")
    prompt.add_ephemeral_node("b", NODE, "1", "a")
    assert prompt.get_display_node_id("a") == prompt.get_display_node_id("b") in {"a", "b"}
