"""Parts of Comfy API v2 that need no server: ids, progress, previews, requests."""

import json
import struct
import uuid

import pytest

from fleet.gateway.v2.errors import V2Error, v2_error
from fleet.gateway.v2.job_view import Known
from fleet.gateway.v2.outputs import OutputFile, output_files, output_of
from fleet.gateway.v2.stories import Stories, Story, preview_in
from fleet.gateway.v2.submission import JobRequest
from fleet.interface import DuplicateJob, FleetError, NoServer, PromptRefused, QueueFull
from fleet.values import JobState, JobView

PROMPT = {"1": {"class_type": "A", "inputs": {}}}


def test_an_outputs_id_holds_where_it_is():
    file = OutputFile("job", "9", "ä b.png", "@s1/deep", "output", "image")
    found = output_of(file.asset_id)
    assert (found.prompt_id, found.filename, found.subfolder, found.kind) == ("job", "ä b.png", "@s1/deep", "output")
    assert found.as_input == "@s1/deep/ä b.png [output]"
    for odd in ("", "out-", "out-!!", "out-W10", str(uuid.uuid4())):
        assert output_of(odd) is None


def test_every_file_of_a_job_has_a_kind():
    outputs = {
        "1": {"images": [{"filename": "a.png", "type": "output"}, {"filename": "b.mp4", "type": "output"}], "animated": [True]},
        "2": {"audio": [{"filename": "c.flac", "type": "output"}], "latents": [{"filename": "d.latent", "type": "output"}], "text": ["x"]},
        "3": None,
    }
    assert [(one.filename, one.media) for one in output_files("job", outputs)] == [
        ("a.png", "image"),
        ("b.mp4", "video"),
        ("c.flac", "audio"),
        ("d.latent", "latent"),
    ]


def say(stories, kind, **data):
    stories.heard_text("s1", "", {"type": kind, "data": {"prompt_id": "job", **data}})


def test_progress_grows_with_nodes_and_steps_and_never_goes_back():
    stories, story = Stories(), Story(4, {"2": "KSampler"})
    stories.begin("job", story)
    values = [story.progress()["value"]]
    say(stories, "execution_start")
    say(stories, "execution_cached", nodes=["1"])
    values.append(story.progress()["value"])
    say(stories, "executing", node="2")
    say(stories, "progress_state", nodes={"2": {"state": "running", "value": 5, "max": 10}})
    halfway = story.progress()
    assert halfway["current_node_class"] == "KSampler" and (halfway["step"], halfway["steps"]) == (5, 10)
    values.append(halfway["value"])
    say(stories, "executing", node="3")
    values.append(story.progress()["value"])
    say(stories, "progress_state", nodes={"2": {"state": "finished"}, "3": {"state": "finished"}})
    values.append(story.progress()["value"])
    assert values == [0.0, 0.25, 0.375, 0.375, 0.75]
    say(stories, "executed", node="3", output={"images": [{"filename": "x.png", "subfolder": "", "type": "output"}]})
    say(stories, "executing", node=None)
    assert story.has_ended and story.outputs["3"]["images"][0]["subfolder"] == "@s1"


def test_a_preview_belongs_to_its_prompt_or_to_what_runs_there():
    stories, story = Stories(), Story()
    stories.begin("job", story)
    metadata = json.dumps({"node_id": "2", "prompt_id": "job", "image_type": "image/png"}).encode()
    stories.heard_bytes("s1", struct.pack(">II", 4, len(metadata)) + metadata + b"PNG")
    assert (story.preview.node_id, story.preview.content_type, story.preview.content) == ("2", "image/png", b"PNG")
    say(stories, "executing", node="2")
    stories.heard_bytes("s1", struct.pack(">II", 1, 1) + b"JPEG")
    assert story.preview.content == b"JPEG"
    for odd in (b"", b"\0" * 7, struct.pack(">II", 4, 5) + b"x", struct.pack(">II", 4, 2) + b"[]", struct.pack(">II", 9, 0)):
        assert preview_in(odd) == (None, None)


def test_one_key_gives_one_id():
    ids = {JobRequest.parse({"workflow": PROMPT}, "key").prompt_id for _ in range(3)}
    assert len(ids) == 1 and str(uuid.UUID(next(iter(ids)))) in ids
    assert JobRequest.parse({"workflow": PROMPT}, None).prompt_id != JobRequest.parse({"workflow": PROMPT}, None).prompt_id


@pytest.mark.parametrize(
    "body",
    [
        {"workflow": PROMPT, "metadata": {"a": 1}},
        {"workflow": PROMPT, "metadata": {str(number): "x" for number in range(17)}},
        {"workflow": PROMPT, "metadata": "x" * 2000},
        {"workflow": PROMPT, "priority": True},
        {"workflow": PROMPT, "extra_data": {"api_key_comfy_org": None}},
        {"workflow": []},
    ],
)
def test_bodies_that_are_refused(body):
    with pytest.raises(V2Error):
        JobRequest.parse(body, None)


def test_errors_of_the_fleet_have_codes():
    refused = PromptRefused(400, json.dumps({"error": {"message": "no", "details": "x"}, "node_errors": {"1": {}}}).encode())
    found = [
        v2_error(error)
        for error in (QueueFull(3), NoServer("none"), DuplicateJob(JobView("a", JobState.WAITING)), refused, FleetError("x"))
    ]
    assert [(one.status, one.code) for one in found] == [
        (429, "queue_full"),
        (503, "upstream_unreachable"),
        (422, "idempotency_key_reuse"),
        (422, "invalid_workflow"),
        (502, "upstream_error"),
    ]
    assert found[0].answer().headers["Retry-After"] == "3" and found[3].details == {"node_errors": {"1": {}}}
    assert v2_error(ValueError()) is None


def test_what_a_job_is_said_to_be():
    def status(state=None, entry=None, **story):
        view = JobView("a", state) if state is not None else None
        return Known("a", view, entry, Story(**story)).status

    assert status(JobState.WAITING) == "queued" and status(JobState.RUNNING) == "running" and status() == "expired"
    assert status(JobState.RUNNING, is_canceling=True) == "canceling" and status(JobState.LOST, {"status": {}}) == "failed"
    assert status(JobState.RUNNING, {"status": {"status_str": "success"}}) == "succeeded", "the history knows before the fleet"
    interrupted = {"status": {"status_str": "error", "messages": [["execution_interrupted", {}]]}}
    assert status(JobState.RUNNING, interrupted) == "canceled"
    lost = Known("a", JobView("a", JobState.LOST, failure="it died"), None, None).body("http://here")
    assert lost["error"]["code"] == "server_lost" and lost["error"]["message"] == "it died" and lost["outputs"] == []
