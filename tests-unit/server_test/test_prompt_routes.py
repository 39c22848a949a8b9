"""/prompt: what is queued, and how every mistake is refused."""

import asyncio
import json
import threading
import time
import uuid

import pytest

import execution
from app.running.submission import MAX_DEPTH, Submission, SubmissionRefused, is_shallow, requested_number
from comfy_execution.prompts.queue import REPEATED_WITHIN_S

CHOSEN = "0b1e3f52-6d0e-4a57-9d2c-3c5a7f0e8b11"
PROMPT = {"9": {"class_type": "Save", "inputs": {}}}


async def submit(client, path="/prompt", headers=None, **body):
    answer = await client.post(path, data=json.dumps(body), headers=headers)
    return answer.status, await answer.json()


def queued(server):
    (row,) = server.prompt_queue.queue
    return row


@pytest.mark.parametrize("path", ["/prompt", "/api/prompt"])
async def test_waiting_and_running_prompts_are_counted(server, client, path):
    await submit(client, path, prompt=PROMPT)
    await submit(client, path, prompt=PROMPT)
    server.prompt_queue.get(0)
    assert await (await client.get(path)).json() == {"exec_info": {"queue_remaining": 2}}


async def test_a_good_prompt_is_queued_and_answered(server, client, engine):
    engine.verdict = (True, None, ["9"], {"8": {"errors": []}})
    status, answer = await submit(client, prompt=PROMPT, client_id="me")
    assert status == 200
    assert answer["number"] == 0 and answer["node_errors"] == {"8": {"errors": []}}
    assert str(uuid.UUID(answer["prompt_id"])) == answer["prompt_id"]
    number, prompt_id, prompt, extra_data, outputs, sensitive = queued(server)
    assert (number, prompt_id, prompt, outputs, sensitive) == (0, answer["prompt_id"], PROMPT, ["9"], {})
    assert extra_data["client_id"] == "me"
    assert abs(extra_data["create_time"] - time.time() * 1000) < 60_000


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"])
async def test_json_is_read_with_any_declared_type(client, kind):
    assert (await submit(client, headers={"Content-Type": kind}, prompt=PROMPT))[0] == 200


async def test_numbers_that_json_lacks_are_taken_and_answered_as_null(server, client, engine):
    """Pictures of older servers hold ``"is_changed": [NaN]``."""
    prompt = {"9": {"class_type": "Save", "inputs": {}, "is_changed": [float("nan"), float("inf")]}}
    status, answer = await submit(client, prompt=prompt, extra_data={"extra_pnginfo": {"x": float("-inf")}})
    assert status == 200
    for path in ("/queue", "/api/jobs", f"/api/jobs/{answer['prompt_id']}"):
        text = await (await client.get(path)).text()
        json.loads(text, parse_constant=pytest.fail)


WORKFLOW = {"nodes": [{"id": 1, "type": "Save", "inputs": [], "outputs": [], "widgets_values": []}], "links": [], "version": 0.4}


@pytest.mark.parametrize("body", [{"prompt": WORKFLOW}, WORKFLOW, {"prompt": WORKFLOW, "convert": "yes"}])
async def test_a_workflow_of_the_page_is_named_as_such(server, client, body):
    status, answer = await submit(client, **body)
    assert (status, answer["error"]["type"]) == (400, "workflow_not_prompt")
    assert "Export (API)" in answer["error"]["details"] and '"convert": true' in answer["error"]["details"]
    assert server.prompt_queue.queue == []


async def test_a_workflow_is_converted_on_demand(server, client, engine, node_classes):
    node_classes["Save"] = type("Save", (), {"INPUT_TYPES": classmethod(lambda cls: {"required": {}}), "RETURN_TYPES": ()})
    status, answer = await submit(client, prompt=WORKFLOW, convert=True)
    assert status == 200, answer
    row = queued(server)
    assert {node_id: one["class_type"] for node_id, one in row[2].items()} == {"1": "Save"} and engine.asked[0][1] is row[2]
    assert row[3]["extra_pnginfo"] == {"workflow": WORKFLOW}


async def test_a_workflow_that_cannot_be_converted_is_refused(client):
    status, answer = await submit(client, prompt={"nodes": [5], "links": [[]]}, convert=True)
    assert (status, answer["error"]["type"]) == (400, "workflow_not_converted") and answer["error"]["details"]


@pytest.mark.parametrize(("given", "kind"), [({}, "prompt_id"), ({"prompt_id": "x"}, "invalid_prompt_id")])
async def test_a_large_body_is_checked_off_the_loop(server, client, monkeypatch, given, kind):
    threads = []
    parse = Submission.parse
    monkeypatch.setattr(Submission, "parse", lambda *arguments: threads.append(threading.current_thread()) or parse(*arguments))
    status, answer = await submit(client, prompt=PROMPT, extra_data={"x": "y" * 100_000}, **given)
    assert (answer["error"]["type"] if status == 400 else "prompt_id") == kind
    assert threads[0] is not threading.current_thread()
    await submit(client, prompt=PROMPT)
    assert threads[1] is threading.current_thread()


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), RuntimeError("broken pack")])
async def test_a_replaced_check_that_raises_is_answered(server, client, monkeypatch, error):
    async def broken(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(execution, "validate_prompt", broken)
        status, answer = await submit(client, prompt=PROMPT)
    assert (status, answer["error"]["type"]) == (500, "prompt_check_failed")
    assert (await submit(client, prompt=PROMPT))[0] == 200


async def test_a_replaced_check_of_another_shape_is_answered(client, engine):
    engine.verdict = None
    status, answer = await submit(client, prompt=PROMPT)
    assert (status, answer["error"]["type"]) == (500, "prompt_check_failed")


async def test_a_handler_of_prompts_cannot_end_the_process(server, client):
    def leave(body):
        raise SystemExit(1)

    server.add_on_prompt_handler(leave)
    assert (await submit(client, prompt=PROMPT))[0] == 200


async def test_chosen_prompt_id_is_kept(client):
    chosen = str(uuid.uuid4())
    assert (await submit(client, prompt=PROMPT, prompt_id=chosen))[1]["prompt_id"] == chosen


async def test_null_prompt_id_is_made(client):
    assert uuid.UUID((await submit(client, prompt=PROMPT, prompt_id=None))[1]["prompt_id"])


@pytest.mark.parametrize("given", ["", "x", 5, [], {}, False, CHOSEN.upper(), CHOSEN.replace("-", ""), f"{{{CHOSEN}}}"])
async def test_other_prompt_ids_are_refused(server, client, given):
    status, answer = await submit(client, prompt=PROMPT, prompt_id=given)
    assert (status, answer["error"]["type"], answer["node_errors"]) == (400, "invalid_prompt_id", {})
    assert server.prompt_queue.queue == []


async def test_an_id_that_waits_or_runs_is_not_given_to_another_prompt(server, client):
    assert (await submit(client, prompt=PROMPT, prompt_id=CHOSEN))[0] == 200
    item_id = None
    for _ in ("waits", "runs"):
        status, answer = await submit(client, prompt=PROMPT, prompt_id=CHOSEN)
        assert (status, answer["error"]["type"], answer["node_errors"]) == (409, "duplicate_prompt_id", {})
        assert CHOSEN in answer["error"]["message"]
        item_id = server.prompt_queue.get(0)[1] if item_id is None else item_id
    server.prompt_queue.task_done(item_id, {}, None)
    assert (await submit(client, prompt=PROMPT, prompt_id=CHOSEN))[0] == 409
    await asyncio.sleep(REPEATED_WITHIN_S)
    assert (await submit(client, prompt=PROMPT, prompt_id=CHOSEN))[0] == 200


@pytest.mark.parametrize("front", ["false", "true", 0, 1, [], {}])
async def test_only_true_puts_a_prompt_to_the_front(server, client, front):
    status, answer = await submit(client, prompt=PROMPT, front=front)
    assert (status, answer["error"]["type"]) == (400, "invalid_front") and server.prompt_queue.queue == []


async def test_numbers_count_up_and_front_negates(client):
    numbers = [(await submit(client, prompt=PROMPT, **more))[1]["number"] for more in ({}, {"front": True}, {"front": False}, {})]
    assert numbers == [0, -1, 2, 3]


async def test_refused_prompts_count_too(client, engine):
    engine.verdict = (False, {"type": "x", "message": "m", "details": "", "extra_info": {}}, [], {})
    await submit(client, prompt=PROMPT)
    await submit(client)
    engine.verdict = (True, None, ["9"], {})
    assert (await submit(client, prompt=PROMPT))[1]["number"] == 2


@pytest.mark.parametrize(("given", "number"), [(5, 5), (-1.5, -1.5), ("7", 7)])
async def test_a_given_number_is_used_and_leaves_the_counter_alone(server, client, given, number):
    assert (await submit(client, prompt=PROMPT, number=given))[1]["number"] == number
    assert server.number == 0


@pytest.mark.parametrize("given", ["x", [], {}, "NaN", "inf", 10**400])
async def test_malformed_numbers_are_refused(client, given):
    status, answer = await submit(client, prompt=PROMPT, number=given)
    assert (status, answer["error"]["type"]) == (400, "invalid_number")


def test_a_null_number_counts_as_not_given():
    assert requested_number({"number": None}) is None
    with pytest.raises(SubmissionRefused):
        requested_number({"number": "x"})


async def test_targets_reach_validation(client, engine):
    await submit(client, prompt=PROMPT, partial_execution_targets=["9"])
    await submit(client, prompt=PROMPT, partial_execution_targets=[])
    await submit(client, prompt=PROMPT)
    assert [targets for _, _, targets in engine.asked] == [["9"], [], None]


@pytest.mark.parametrize("given", ["9", {"9": 1}, [9], [None], False, 0])
async def test_targets_that_are_not_a_list_of_ids_are_refused(client, given):
    status, answer = await submit(client, prompt=PROMPT, partial_execution_targets=given)
    assert (status, answer["error"]["type"]) == (400, "invalid_partial_execution_targets")


async def test_sensitive_extra_data_is_moved_out_of_sight(server, client):
    extra = {"auth_token_comfy_org": "token", "api_key_comfy_org": "key", "kept": 1}
    await submit(client, prompt=PROMPT, extra_data=extra)
    row = queued(server)
    assert row[5] == {"auth_token_comfy_org": "token", "api_key_comfy_org": "key"}
    assert row[3]["kept"] == 1 and not {"auth_token_comfy_org", "api_key_comfy_org"} & row[3].keys()
    for path in ("/queue", "/api/jobs", f"/api/jobs/{row[1]}"):
        assert "token" not in await (await client.get(path)).text()


async def test_null_extra_data_is_empty(server, client):
    await submit(client, prompt=PROMPT, extra_data=None)
    assert queued(server)[3].keys() == {"create_time"}


@pytest.mark.parametrize("given", [1, "x", [], True])
async def test_other_extra_data_is_refused(client, given):
    status, answer = await submit(client, prompt=PROMPT, extra_data=given)
    assert (status, answer["error"]["type"]) == (400, "invalid_extra_data")


async def test_client_id_is_text_in_the_queue(server, client):
    await submit(client, prompt=PROMPT, client_id=12)
    assert queued(server)[3]["client_id"] == "12"


@pytest.mark.parametrize("body", [{"client_id": []}, {"extra_data": {"client_id": {}}}])
async def test_client_id_of_another_kind_is_refused(client, body):
    status, answer = await submit(client, prompt=PROMPT, **body)
    assert (status, answer["error"]["type"]) == (400, "invalid_client_id")


async def test_usage_source_of_the_header_is_noted_unless_given(server, client):
    await submit(client, prompt=PROMPT, headers={"Comfy-Usage-Source": "cli"})
    assert queued(server)[3]["comfy_usage_source"] == "cli"
    server.prompt_queue.wipe_queue()
    await submit(client, prompt=PROMPT, extra_data={"comfy_usage_source": "page"}, headers={"Comfy-Usage-Source": "cli"})
    assert queued(server)[3]["comfy_usage_source"] == "page"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 20_000, b"null", b"3", b"[]", b'"text"'])
async def test_bodies_that_are_not_a_json_object_are_refused(client, body):
    answer = await client.post("/prompt", data=body)
    document = await answer.json()
    assert answer.status == 400
    assert document["error"]["type"] == "invalid_json" and document["error"]["message"] and document["node_errors"] == {}


async def test_a_number_is_not_a_prompt(client):
    status, answer = await submit(client, prompt=float("nan"))
    assert (status, answer["error"]["type"]) == (400, "invalid_prompt")


async def test_missing_prompt_is_refused(client):
    status, answer = await submit(client, client_id="me")
    assert (status, answer["error"]["type"], answer["node_errors"]) == (400, "no_prompt", {})
    assert answer["error"]["extra_info"] == {}


@pytest.mark.parametrize("given", [None, [], "x", 3])
async def test_a_prompt_that_is_not_an_object_is_refused(client, given):
    status, answer = await submit(client, prompt=given)
    assert (status, answer["error"]["type"]) == (400, "invalid_prompt")


async def test_a_prompt_nested_too_deeply_is_refused(client):
    value = "x"
    for _ in range(MAX_DEPTH):
        value = [value]
    status, answer = await submit(client, prompt={"9": {"class_type": "Save", "inputs": {"a": value}}})
    assert (status, answer["error"]["type"]) == (400, "invalid_prompt")


@pytest.mark.parametrize(
    ("value", "depth", "expected"),
    [({}, 1, True), ([[]], 1, False), ([[]], 2, True), ({"a": [{"b": 1}]}, 3, True), ({"a": [{"b": 1}]}, 2, False), (5, 1, True)],
)
def test_depth_counts_containers(value, depth, expected):
    assert is_shallow([value] if not isinstance(value, (dict, list)) else value, depth) is expected


async def test_verdicts_of_validation_are_answered(server, client, engine):
    error = {"type": "prompt_no_outputs", "message": "m", "details": "d", "extra_info": {}}
    engine.verdict = (False, error, [], {"9": {"errors": [], "dependent_outputs": [], "class_type": "Save"}})
    status, answer = await submit(client, prompt={})
    assert (status, answer) == (400, {"error": error, "node_errors": {"9": {"errors": [], "dependent_outputs": [], "class_type": "Save"}}})
    assert server.prompt_queue.queue == []


async def test_an_error_that_is_text_is_wrapped(client, engine):
    engine.verdict = (False, "plain", [], {})
    assert (await submit(client, prompt=PROMPT))[1]["error"]["message"] == "plain"


async def test_handlers_rewrite_the_body_in_turn(client, server, engine):
    server.add_on_prompt_handler(lambda body: {**body, "prompt": {"1": {}}})
    server.on_prompt_handlers.append(lambda body: {**body, "prompt": {**body["prompt"], "2": {}}})
    await submit(client, prompt=PROMPT)
    assert engine.asked[0][1].keys() == {"1", "2"}


async def test_failing_handlers_are_passed_over(client, server, engine, caplog):
    server.add_on_prompt_handler(lambda body: 1 / 0)
    server.add_on_prompt_handler(lambda body: None)
    assert (await submit(client, prompt=PROMPT))[0] == 200
    assert "ZeroDivisionError" in caplog.text and "NoneType" in caplog.text


async def test_queueing_tells_all_clients(connect, client):
    socket = await connect("someone")
    await submit(client, prompt=PROMPT)
    assert (await socket.next()) == {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}}}


async def test_a_validator_that_breaks_is_answered_without_details(client, monkeypatch, caplog):
    import execution

    async def broken(*_):
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(execution, "validate_prompt", broken)
    answer = await client.post("/prompt", json={"prompt": PROMPT})
    assert answer.status == 500
    assert "secret" not in await answer.text()
    assert "the secret reason" in caplog.text


async def test_a_client_that_repeats_a_bad_prompt_gets_the_whole_answer_each_time_and_the_log_once(client, engine, caplog):
    error = {"type": "value_not_in_list", "message": "Value not in list", "details": "name: 'a'"}
    node_errors = {"9": {"class_type": "Save", "errors": [error], "dependent_outputs": ["9"]}}
    engine.verdict = (False, {"type": "failed", "message": "failed", "details": "all", "extra_info": {}}, [], node_errors)
    answers = [await submit(client, prompt=PROMPT) for _ in range(20)]
    assert all(answer == answers[0] for answer in answers) and answers[0][1]["node_errors"] == node_errors
    assert caplog.text.count("cannot run") == caplog.text.count("Refused a prompt") == 1
    for _ in range(20):
        assert (await submit(client, prompt=5))[0] == 400
    assert caplog.text.count("Refused a prompt") == 2


async def test_the_refusal_of_a_huge_text_is_short(client, engine, caplog):
    engine.verdict = (False, {"type": "t", "message": "m" * 1_000_000, "details": "d" * 1_000_000, "extra_info": {}}, [], {})
    answer = await client.post("/prompt", json={"prompt": {"1": {"class_type": "X", "inputs": {}}}})
    assert answer.status == 400 and len(await answer.read()) < 50_000
    assert len(caplog.text) < 10_000
