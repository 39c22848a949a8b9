"""Saved workflows become prompts the way the page makes them."""

import pytest

from app.workflow_conversion import WorkflowFormatError, to_prompt

INFO = {
    "Load": {"input": {"required": {"image": [["a.png"], {"image_upload": True}], "size": ["INT", {}]}}},
    "Scale": {"input": {"required": {"image": ["IMAGE"], "factor": ["FLOAT", {}]}}},
    "Noise": {"input": {"required": {"seed": ["INT", {}], "steps": ["INT", {}]}, "optional": {"label": ["STRING", {"forceInput": True}]}}},
    "Pick": {
        "input": {
            "required": {
                "mode": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {"options": [{"key": "by size", "inputs": {"required": {"width": ["INT", {}]}}}, {"key": "off", "inputs": {}}]},
                ],
                "last": ["BOOLEAN", {}],
            }
        }
    },
    "Save": {"input": {"required": {"images": ["IMAGE"], "prefix": ["STRING", {}]}}},
}


def node(node_id, kind, values=(), inputs=(), mode=0, outputs=("IMAGE",), **more):
    sockets = [{"name": name, "type": kind_of, "link": link} for name, kind_of, link in inputs]
    return {
        "id": node_id,
        "type": kind,
        "widgets_values": list(values),
        "inputs": sockets,
        "mode": mode,
        "outputs": [{"type": output} for output in outputs],
        **more,
    }


def chain(middle):
    """Load → *middle* → Save."""
    return {
        "nodes": [node(1, "Load", ["a.png", "image", 5]), middle, node(3, "Save", ["out"], [("images", "IMAGE", 12)])],
        "links": [[11, 1, 0, 2, 0, "IMAGE"], [12, 2, 0, 3, 0, "IMAGE"]],
    }


def test_links_and_widgets_are_kept_and_upload_buttons_passed_over():
    prompt = to_prompt(chain(node(2, "Scale", [0.5], [("image", "IMAGE", 11)], title="Half")), INFO.get)
    assert prompt["1"]["inputs"] == {"image": "a.png", "size": 5}
    assert prompt["2"] == {"inputs": {"image": ["1", 0], "factor": 0.5}, "class_type": "Scale", "_meta": {"title": "Half"}}
    assert prompt["3"]["inputs"] == {"images": ["2", 0], "prefix": "out"}


@pytest.mark.parametrize("middle", [node(2, "Scale", [0.5], [("image", "IMAGE", 11)], mode=4), node(2, "Reroute", [], [("", "*", 11)])])
def test_bypassed_nodes_and_reroutes_hand_their_input_through(middle):
    prompt = to_prompt(chain(middle), INFO.get)
    assert set(prompt) == {"1", "3"}
    assert prompt["3"]["inputs"]["images"] == ["1", 0]


def test_muted_nodes_leave_nothing_behind():
    prompt = to_prompt(chain(node(2, "Scale", [0.5], [("image", "IMAGE", 11)], mode=2)), INFO.get)
    assert set(prompt) == {"1", "3"}
    assert "images" not in prompt["3"]["inputs"]


def test_seed_control_is_passed_over_and_forced_inputs_take_no_value():
    document = {"nodes": [node(7, "Noise", [42, "randomize", 20])], "links": []}
    assert to_prompt(document, INFO.get)["7"]["inputs"] == {"seed": 42, "steps": 20}


def test_dynamic_combo_takes_the_values_of_the_chosen_option():
    document = {"nodes": [node(1, "Pick", ["by size", 64, True]), node(2, "Pick", ["off", False])], "links": []}
    prompt = to_prompt(document, INFO.get)
    assert prompt["1"]["inputs"] == {"mode": "by size", "mode.width": 64, "last": True}
    assert prompt["2"]["inputs"] == {"mode": "off", "last": False}


def test_primitive_nodes_become_literals():
    scale = node(2, "Scale", [0.5], [("image", "IMAGE", 11), ("factor", "FLOAT", 13)])
    document = chain(scale)
    document["nodes"].append(node(9, "PrimitiveNode", [0.25, "fixed"]))
    document["links"].append([13, 9, 0, 2, 1, "FLOAT"])
    prompt = to_prompt(document, INFO.get)
    assert prompt["2"]["inputs"]["factor"] == 0.25
    assert "9" not in prompt


def test_subgraphs_become_their_inner_nodes():
    inner = {
        "id": "abc",
        "nodes": [node(1, "Scale", [2.0], [("image", "IMAGE", 1)])],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0},
            {"id": 2, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 0},
        ],
    }
    document = chain(node(2, "abc", [], [("image", "IMAGE", 11)])) | {"definitions": {"subgraphs": [inner]}}
    prompt = to_prompt(document, INFO.get)
    assert set(prompt) == {"1", "2:1", "3"}
    assert prompt["2:1"]["inputs"] == {"factor": 2.0, "image": ["1", 0]}
    assert prompt["3"]["inputs"]["images"] == ["2:1", 0]


def test_prompts_pass_unchanged_also_inside_a_request_body():
    prompt = {"1": {"class_type": "Load", "inputs": {}}}
    assert to_prompt(prompt, INFO.get) == prompt
    assert to_prompt({"prompt": prompt, "client_id": "x"}, INFO.get) == prompt


@pytest.mark.parametrize(
    "document", [None, [], {}, {"nodes": 3}, {"nodes": [{"id": 1}]}, {"nodes": [3]}, chain(node(2, "Reroute", [], [("", "*", 12)]))]
)
def test_damaged_files_are_refused_with_a_reason(document):
    with pytest.raises(WorkflowFormatError, match=r"workflow|circle"):
        to_prompt(document, INFO.get)
