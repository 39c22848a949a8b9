"""What callers read when something is wrong."""

import json

import pytest

from serverless.job_errors import JobFailed, execution_error, interruption, names_a_checkpoint, not_reachable, refusal
from serverless.workflow_normalization import NormalizedWorkflow

NAMES = NormalizedWorkflow({}, {"123456789": "9"})


def refused(answer, checkpoints=None):
    return str(refusal(answer if isinstance(answer, str) else json.dumps(answer), NAMES, checkpoints))


def test_details_are_in_the_text():
    assert JobFailed("a", ("b", "c")).as_result() == {"error": "a:\n• b\n• c", "details": ["b", "c"]}
    assert JobFailed("a").as_result() == {"error": "a"}
    assert str(not_reachable("h:1")) == "ComfyUI server (h:1) not reachable after multiple retries."


def test_reported_places_are_the_callers():
    data = {"node_type": "T", "node_id": "123456789", "exception_message": "at 123456789: no\n"}
    assert execution_error(data, NAMES) == "Workflow execution error: Node Type: T, Node ID: 9, Message: at 9: no"
    assert interruption(data, NAMES) == "Workflow execution was interrupted: Node Type: T, Node ID: 9"


@pytest.mark.parametrize(
    "answer, text",
    [
        ("<html>", "ComfyUI validation failed (could not parse error response): <html>"),
        ('"text"', 'ComfyUI validation failed (could not parse error response): "text"'),
        ({"error": "plain"}, 'plain. Raw response: {"error": "plain"}'),
        ({"error": {"message": "No.", "details": "123456789"}, "node_errors": {"123456789": "odd"}}, "No: 9:\n• Node 9: odd"),
        (
            {
                "error": {"type": "prompt_outputs_failed_validation", "message": "x"},
                "node_errors": {"7": {"errors": ["a", {"message": "b"}]}},
            },
            "Workflow validation failed:\n• Node 7 (errors): a\n• Node 7 (errors): b",
        ),
    ],
)
def test_refusals_of_every_form(answer, text):
    assert refused(answer) == text


def test_checkpoints_are_listed_when_one_is_missing():
    answer = {"node_errors": {"1": {"errors": [{"message": "Value not in list", "details": "ckpt_name: 'x' not in []"}]}}}
    assert names_a_checkpoint(json.dumps(answer).lower())
    assert refused(answer, ["a", "b"]).endswith("\n\nAvailable checkpoint models: a, b")
    assert refused(answer, []).endswith("No checkpoint models appear to be available. Please check your model installation.")
    assert "checkpoint models" not in refused(answer, None)
