"""Workflow files for the client."""

import json
import random

import pytest
from workflow_shapes import node, text_to_image

from serverless.client_workflow import BadWorkflow, load_workflow, with_new_seeds, with_values

PAGE = {
    "nodes": [
        {"id": 1, "type": "EmptyImage", "widgets_values": [16, 12, 1, 255], "inputs": [], "outputs": [{"links": [5]}], "mode": 0},
        {"id": 2, "type": "SaveImage", "widgets_values": ["x"], "inputs": [{"name": "images", "type": "IMAGE", "link": 5}], "mode": 0},
    ],
    "links": [[5, 1, 0, 2, 0, "IMAGE"]],
}
INFO = {
    "EmptyImage": {"input": {"required": {"width": ["INT", {}], "height": ["INT", {}], "batch_size": ["INT", {}], "color": ["INT", {}]}}},
    "SaveImage": {"input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}}},
}


def written(folder, document):
    path = folder / "workflow.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda workflow: workflow,
        lambda workflow: {"prompt": workflow, "client_id": "x"},
        lambda workflow: {"input": {"workflow": workflow}},
    ],
)
def test_api_format_alone_or_within_a_request(tmp_path, wrap):
    assert load_workflow(written(tmp_path, wrap(text_to_image())), None) == text_to_image()


def test_the_pages_format_with_what_the_server_tells_of_its_nodes(tmp_path):
    workflow = load_workflow(written(tmp_path, PAGE), lambda: INFO)
    assert workflow["1"]["inputs"] == {"width": 16, "height": 12, "batch_size": 1, "color": 255}
    assert workflow["2"]["inputs"] == {"filename_prefix": "x", "images": ["1", 0]}


@pytest.mark.parametrize("document, part", [(PAGE, "--object-info"), ([1], "is not a workflow"), ({}, "is not a workflow")])
def test_workflows_that_cannot_be_sent_are_refused(tmp_path, document, part):
    with pytest.raises(BadWorkflow, match=part):
        load_workflow(written(tmp_path, document), None)
    with pytest.raises(BadWorkflow, match="missing.json"):
        load_workflow(tmp_path / "missing.json", None)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(BadWorkflow, match="deep.json"):
        load_workflow(tmp_path / "deep.json", None)


def test_values_are_set_by_id_and_by_class():
    changed = with_values(text_to_image(), ["3.steps=9", "CLIPTextEncode.text=a dog", '9.filename_prefix="7"'])
    assert changed["3"]["inputs"]["steps"] == 9 and changed["9"]["inputs"]["filename_prefix"] == "7"
    assert changed["6"]["inputs"]["text"] == changed["7"]["inputs"]["text"] == "a dog"
    assert text_to_image()["3"]["inputs"]["steps"] == 2
    assert with_values(text_to_image(), ["6.text=" + "[" * 100_000])["6"]["inputs"]["text"] == "[" * 100_000
    for wrong in ("steps=9", "3.steps", "99.steps=1"):
        with pytest.raises(BadWorkflow):
            with_values(text_to_image(), [wrong])


def test_new_seeds_only_where_there_are_seeds():
    workflow = {"1": node("A", seed=1, noise_seed=2, steps=3), "2": node("B", seed=["1", 0])}
    changed = with_new_seeds(workflow, random.Random(1))
    assert changed["1"]["inputs"]["seed"] != 1 and changed["1"]["inputs"]["noise_seed"] != 2 and changed["1"]["inputs"]["steps"] == 3
    assert changed["2"] == workflow["2"]
