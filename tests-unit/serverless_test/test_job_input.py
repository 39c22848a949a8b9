"""Every way to send a job, and every way to get it wrong."""

import json

import pytest
from workflow_shapes import text_to_image

from serverless.job_input import InvalidInput, JobInput


def test_a_workflow_is_enough_and_unknown_fields_are_ignored():
    job = JobInput.parse({"workflow": text_to_image(), "webhook": "x", "s3Config": {}})
    assert job.workflow == text_to_image() and job.images == () and job.timeout_s is None and not job.wants_report


def test_json_text():
    assert JobInput.parse(json.dumps({"workflow": text_to_image()})).workflow == text_to_image()


@pytest.mark.parametrize(
    "given, message",
    [
        (None, "Please provide input"),
        ("{not json", "Invalid JSON format in input"),
        ("[" * 100_000, "Invalid JSON format in input"),
        ({}, "Missing 'workflow' parameter"),
        ({"workflow": None}, "Missing 'workflow' parameter"),
        ({"workflow": {}, "images": "x"}, "'images' must be a list of objects with 'name' and 'image' keys"),
        ({"workflow": {}, "images": [{"name": "x"}]}, "'images' must be a list of objects with 'name' and 'image' keys"),
        ({"workflow": {}, "images": [1]}, "'images' must be a list of objects with 'name' and 'image' keys"),
    ],
)
def test_error_texts_are_those_that_clients_know(given, message):
    with pytest.raises(InvalidInput) as caught:
        JobInput.parse(given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "given, part",
    [
        ([], "not as list"),
        ({"workflow": []}, "must be an object of nodes by id, not list"),
        ({"workflow": {"nodes": [{"id": 1}], "links": []}}, "Export (API)"),
        ({"workflow": {"prompt": text_to_image(), "client_id": "x"}}, "send what is under its 'prompt'"),
        ({"workflow": {}, "images": [{"name": "x", "image": 1}]}, "both text"),
        ({"workflow": {}, "images": [{"name": "x", "image": ""}, {"name": "x", "image": ""}]}, "same name more than once"),
        ({"workflow": {}, "timeout_s": 0}, "above 0"),
        ({"workflow": {}, "timeout_s": True}, "above 0"),
        ({"workflow": {}, "timeout_s": float("nan")}, "above 0"),
    ],
)
def test_inputs_that_the_predecessor_let_pass_are_refused(given, part):
    with pytest.raises(InvalidInput, match=part.replace("(", r"\(").replace(")", r"\)")):
        JobInput.parse(given)
