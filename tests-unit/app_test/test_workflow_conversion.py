"""Saved workflows become prompts; prompts stay what they are; anything else is refused with a reason.

Each rule of the page has its own sample in ``workflow_pages``.
"""

import enum

import pytest

from app.workflow_conversion import WorkflowFormatError, is_prompt, is_saved_workflow, to_prompt

INFO = {
    "Load": {"input": {"required": {"image": [["a.png"], {"image_upload": True}], "size": ["INT", {}]}}, "output": ["IMAGE"]},
    "Scale": {"input": {"required": {"image": ["IMAGE"], "factor": ["FLOAT", {}]}}, "output": ["IMAGE"]},
    "Frames": {"input": {"required": {"rate": ["INT", {"default": 8}], "loop": ["BOOLEAN", {}], "format": [["gif", "webp"]]}}},
    "Save": {"input": {"required": {"images": ["IMAGE"], "prefix": ["STRING", {}]}}},
}


def node(node_id, kind, values=(), inputs=(), mode=0, outputs=("IMAGE",), **more):
    sockets = [{"name": name, "type": kind_of, "link": link} for name, kind_of, link in inputs]
    return {
        "id": node_id,
        "type": kind,
        "widgets_values": values if isinstance(values, dict) else list(values),
        "inputs": sockets,
        "mode": mode,
        "outputs": [{"type": output} for output in outputs],
        **more,
    }


def chain(middle):
    """Load → *middle* → Save."""
    return {
        "nodes": [node(1, "Load", ["a.png", 5, "image"]), middle, node(3, "Save", ["out"], [("images", "IMAGE", 12)])],
        "links": [[11, 1, 0, 2, 0, "IMAGE"], [12, 2, 0, 3, 0, "IMAGE"]],
    }


def test_links_widgets_and_titles_are_kept():
    prompt = to_prompt(chain(node(2, "Scale", [0.5], [("image", "IMAGE", 11)], title="Half")), INFO.get)
    assert prompt["1"]["inputs"] == {"image": "a.png", "size": 5}
    assert prompt["2"] == {"inputs": {"image": ["1", 0], "factor": 0.5}, "class_type": "Scale", "_meta": {"title": "Half"}}
    assert prompt["3"]["inputs"] == {"images": ["2", 0], "prefix": "out"}


def test_an_unknown_class_keeps_its_links_so_that_validation_can_name_it():
    prompt = to_prompt(chain(node(2, "Unheard", [0.5, "x"], [("image", "IMAGE", 11)])), INFO.get)
    assert prompt["2"] == {"inputs": {"image": ["1", 0]}, "class_type": "Unheard", "_meta": {"title": "Unheard"}}
    assert prompt["3"]["inputs"]["images"] == ["2", 0]


def test_values_that_a_pack_saves_by_name_are_taken_by_name():
    document = {"nodes": [node(1, "Frames", {"format": "webp", "rate": 24, "videopreview": {"hidden": False}})], "links": []}
    assert to_prompt(document, INFO.get)["1"]["inputs"] == {"rate": 24, "loop": False, "format": "webp"}


def test_types_may_be_members_of_an_enumeration_or_texts_that_equal_everything():
    class Kind(str, enum.Enum):  # noqa: UP042 (packs do)
        WHOLE = "INT"

    class Anything(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            return True

        def __ne__(self, other):
            return False

    info = {"Odd": {"input": {"required": {"any": (Anything("*"),), "count": (Kind.WHOLE, {"default": 3})}}, "output": (Anything("*"),)}}
    document = {"nodes": [node(1, "Odd", [7]), node(2, "Odd", [], [("any", "*", 5)])], "links": [[5, 1, 0, 2, 0, "*"]]}
    prompt = to_prompt(document, info.get)
    assert prompt["1"]["inputs"] == {"count": 7}
    assert prompt["2"]["inputs"] == {"count": 3, "any": ["1", 0]}


def test_a_circle_of_reroutes_is_refused_by_the_name_of_the_input():
    document = chain(node(2, "Reroute", [], [("", "*", 21)]))
    document["nodes"].append(node(4, "Reroute", [], [("", "*", 22)]))
    document["links"] = [[12, 2, 0, 3, 0, "*"], [21, 4, 0, 2, 0, "*"], [22, 2, 0, 4, 0, "*"]]
    with pytest.raises(WorkflowFormatError, match=r"'3\.images' leads in a circle"):
        to_prompt(document, INFO.get)


def test_a_link_from_a_node_that_is_not_there_is_refused_by_name():
    document = chain(node(2, "Scale", [0.5], [("image", "IMAGE", 11)]))
    document["nodes"].pop(0)
    with pytest.raises(WorkflowFormatError, match=r"'2\.image' comes from node 1, which is not in the file"):
        to_prompt(document, INFO.get)


def test_a_group_node_of_older_pages_is_refused_with_what_to_do():
    with pytest.raises(WorkflowFormatError, match=r"node 2 \(workflow>Twice\) is a group node .* save it again"):
        to_prompt(chain(node(2, "workflow>Twice", [0.5], [("image", "IMAGE", 11)])), INFO.get)


def test_prompts_pass_unchanged_also_inside_a_request_body():
    prompt = {"1": {"class_type": "Load", "inputs": {}}}
    assert to_prompt(prompt, INFO.get) == prompt
    assert to_prompt({"prompt": prompt, "client_id": "x"}, INFO.get) == prompt


def test_a_saved_workflow_is_distinguished_from_a_prompt():
    workflow, prompt = chain(node(2, "Scale")), {"1": {"class_type": "Load", "inputs": {}}}
    assert is_saved_workflow(workflow) and not is_prompt(workflow)
    assert is_prompt(prompt) and not is_saved_workflow(prompt)
    assert is_saved_workflow({"nodes": []}) and not is_saved_workflow({"nodes": {}}) and not is_saved_workflow([workflow])
    named_nodes = {"nodes": {"class_type": "Load", "inputs": {}}}
    assert is_prompt(named_nodes) and not is_saved_workflow(named_nodes)


@pytest.mark.parametrize("document", [None, [], {}, 7, "nodes", {"nodes": 3}, {"prompt": {"nodes": []}}])
def test_what_is_neither_is_refused_with_advice(document):
    with pytest.raises(WorkflowFormatError, match="neither a saved workflow .* nor a prompt"):
        to_prompt(document, INFO.get)
