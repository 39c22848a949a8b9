"""Replacing old nodes in prompts, and telling the page about it."""

import copy

import pytest

from app.node_replace_manager import NodeReplaceManager
from comfy_api.latest import ComfyAPI, io


@pytest.fixture
def manager(node_classes):
    node_classes.update(New=object, Other=object, Known=object)
    return NodeReplaceManager()


def register(manager, old="Old", new="New", inputs=None, outputs=None):
    manager.register(io.NodeReplace(new, old, input_mapping=inputs, output_mapping=outputs))


def applied(manager, prompt):
    result = copy.deepcopy(prompt)
    manager.apply_replacements(result)
    return result


def test_inputs_are_mapped_and_set(manager):
    register(
        manager, inputs=[{"new_id": "size", "old_id": "edge"}, {"new_id": "how", "set_value": "fast"}, {"new_id": "x", "old_id": "none"}]
    )
    assert applied(manager, {"1": {"class_type": "Old", "inputs": {"edge": 5, "gone": 1}, "_meta": {"title": "t"}}}) == {
        "1": {"class_type": "New", "inputs": {"size": 5, "how": "fast"}, "_meta": {"title": "t"}}
    }


def test_without_a_mapping_inputs_and_links_stay(manager):
    register(manager)
    assert applied(manager, {"1": {"class_type": "Old", "inputs": {"a": 1}}, "2": {"class_type": "Known", "inputs": {"b": ["1", 1]}}}) == {
        "1": {"class_type": "New", "inputs": {"a": 1}},
        "2": {"class_type": "Known", "inputs": {"b": ["1", 1]}},
    }


def test_links_follow_the_outputs_also_between_replaced_nodes(manager):
    register(manager, inputs=[{"new_id": "in", "old_id": "in"}], outputs=[{"old_idx": 0, "new_idx": 1}, {"old_idx": 1, "new_idx": 0}])
    prompt = {
        "1": {"class_type": "Old", "inputs": {}},
        "2": {"class_type": "Old", "inputs": {"in": ["1", 0]}},
        "3": {"class_type": "Known", "inputs": {"a": ["2", 1], "b": ["2", 7], "c": ["nowhere", 0], "d": [1, 2, 3]}},
    }
    result = applied(manager, prompt)
    assert result["2"]["inputs"] == {"in": ["1", 1]}
    assert result["3"]["inputs"] == {"a": ["2", 0], "b": ["2", 7], "c": ["nowhere", 0], "d": [1, 2, 3]}


def test_known_nodes_are_never_replaced(manager):
    register(manager, old="Known")
    prompt = {"1": {"class_type": "Known", "inputs": {}}}
    assert applied(manager, prompt) == prompt


def test_the_first_replacement_that_exists_wins(manager):
    for new in ("Missing", "Other", "New"):
        register(manager, new=new)
    assert applied(manager, {"1": {"class_type": "Old", "inputs": {}}})["1"]["class_type"] == "Other"


def test_a_replacement_that_does_not_exist_changes_nothing(manager):
    register(manager, new="Missing")
    prompt = {"1": {"class_type": "Old", "inputs": {}}}
    assert applied(manager, prompt) == prompt


@pytest.mark.parametrize(
    "node",
    [None, 5, [], {}, {"class_type": "Old"}, {"class_type": ["Old"], "inputs": {}}, {"class_type": "Old", "inputs": 3}, {"inputs": {}}],
)
def test_what_is_not_a_node_is_left_to_validation(manager, node):
    register(manager, outputs=[{"old_idx": 0, "new_idx": 1}])
    prompt = {"1": node, "2": {"class_type": "Old", "inputs": {}}}
    assert applied(manager, prompt)["1"] == node


def test_registering_a_pair_twice_keeps_the_first(manager):
    register(manager, inputs=[{"new_id": "a", "old_id": "b"}])
    register(manager)
    register(manager, new="Other")
    assert [entry.new_node_id for entry in manager.get_replacement("Old")] == ["New", "Other"]
    assert manager.get_replacement("Old")[0].input_mapping
    assert manager.has_replacement("Old") and not manager.has_replacement("New") and manager.get_replacement("New") is None


async def test_prompts_are_rewritten_before_validation(server, client, engine, node_classes):
    node_classes["New"] = object
    register(server.node_replace_manager)
    await client.post("/prompt", json={"prompt": {"1": {"class_type": "Old", "inputs": {}}}})
    assert engine.asked[0][1]["1"]["class_type"] == "New"


async def test_what_packs_register_through_the_api_reaches_the_server(server):
    await ComfyAPI().node_replacement.register(io.NodeReplace("New", "Old"))
    assert [entry.new_node_id for entry in server.node_replace_manager.get_replacement("Old")] == ["New"]


async def test_the_page_reads_all_replacements(server, client):
    assert await (await client.get("/api/node_replacements")).json() == {}
    register(server.node_replace_manager, outputs=[{"old_idx": 0, "new_idx": 1}])
    assert await (await client.get("/node_replacements")).json() == {
        "Old": [
            {
                "new_node_id": "New",
                "old_node_id": "Old",
                "old_widget_ids": None,
                "input_mapping": None,
                "output_mapping": [{"old_idx": 0, "new_idx": 1}],
            }
        ]
    }
