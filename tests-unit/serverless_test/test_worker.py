"""The worker against a server with plain ComfyUI's behaviour."""

import asyncio
import base64
import contextlib
import logging
import re
import time

import pytest
from scripted_server import PICTURE, ScriptedServer, hang, succeed
from workflow_shapes import node

from serverless.settings import WorkerSettings
from serverless.worker import Worker

WORKFLOW = {"9": node("EmptyImage", width=8), "12": node("SaveImage", images=["9", 0])}


@contextlib.asynccontextmanager
async def running(script=succeed, takes_ids=True, **settings):
    """(server, worker) with short patience."""
    async with ScriptedServer(script, takes_ids) as server:
        values = {
            "host": server.host,
            "poll_interval_s": 0.2,
            "reconnect_delay_s": 0.1,
            "reconnect_attempts": 3,
            "available_retries": 3,
            "available_interval_s": 0.01,
        }
        worker = Worker(WorkerSettings(**{**values, **settings}))
        try:
            yield server, worker
        finally:
            await worker.close()


def job(job_id="job-1", **more):
    return {"id": job_id, "input": {"workflow": WORKFLOW, **more}}


async def test_a_job_gives_its_pictures():
    async with running() as (server, worker):
        result = await worker.handle(job())
    assert result == {"images": [{"filename": "x.png", "type": "base64", "data": base64.b64encode(PICTURE).decode()}]}
    assert server.bodies[0]["client_id"] == "keepwarm-worker"
    assert set(server.bodies[0]["prompt"]).isdisjoint(WORKFLOW), "canonical ids are sent"


async def test_a_server_that_chooses_prompt_ids_itself_works_too():
    async with running(takes_ids=False) as (server, worker):
        assert (await worker.handle(job()))["images"]
        assert (await worker.handle(job("job-2")))["images"]


async def test_one_socket_serves_many_jobs_and_its_client_id_stays():
    async with running(client_id="mine") as (server, worker):
        for number in range(3):
            await worker.handle(job(f"job-{number}"))
    assert server.connects == 1 and {body["client_id"] for body in server.bodies} == {"mine"}


async def test_the_end_is_found_when_the_socket_is_cut_just_before_its_message():
    async def cut(server, prompt_id):
        await server.send("execution_success", {"prompt_id": prompt_id})
        server.remember(prompt_id, {"x": {"images": [{"filename": "x.png", "type": "output"}]}})
        await server.drop_sockets()

    async with running(cut, poll_interval_s=60) as (server, worker):
        began_s = time.monotonic()
        assert (await worker.handle(job()))["images"]
    assert time.monotonic() - began_s < 5


async def test_the_end_is_found_when_no_message_comes_at_all():
    async def silent(server, prompt_id):
        server.remember(prompt_id, {"x": {"images": [{"filename": "x.png", "type": "output"}]}})

    async with running(silent) as (server, worker):
        assert (await worker.handle(job()))["images"]


async def test_success_alone_is_not_the_end():
    """It is told before the history is written."""
    told = asyncio.Event()

    async def slowly(server, prompt_id):
        await server.send("execution_success", {"prompt_id": prompt_id})
        await told.wait()
        await server.end(prompt_id, {"x": {"images": [{"filename": "x.png", "type": "output"}]}})

    async with running(slowly) as (server, worker):
        waiting = asyncio.create_task(worker.handle(job()))
        await asyncio.wait([waiting], timeout=0.5)
        assert not waiting.done()
        told.set()
        assert (await waiting)["images"]


async def test_an_execution_error_names_the_callers_node():
    async def fail(server, prompt_id):
        node_id = server.first_node(prompt_id)
        data = {"prompt_id": prompt_id, "node_id": node_id, "node_type": "EmptyImage", "exception_message": "too small\n"}
        await server.send("execution_error", data)
        await server.end(prompt_id, {}, "error", [["execution_error", data]])

    async with running(fail) as (server, worker):
        result = await worker.handle(job())
    line = "Workflow execution error: Node Type: EmptyImage, Node ID: 9, Message: too small"
    assert result == {"error": f"Job processing failed:\n• {line}", "details": [line]}


async def test_what_was_made_before_an_error_is_handed_over_with_it():
    async def half(server, prompt_id):
        data = {"prompt_id": prompt_id, "node_id": server.first_node(prompt_id), "node_type": "A", "exception_message": "no"}
        await server.end(prompt_id, {"x": {"images": [{"filename": "x.png", "type": "output"}]}}, "error", [["execution_error", data]])

    async with running(half) as (server, worker):
        result = await worker.handle(job())
    assert len(result["images"]) == 1 and "Node ID: 9" in result["errors"][0]


async def test_an_interrupt_by_somebody_else_ends_the_job():
    async with running(hang) as (server, worker):
        waiting = asyncio.create_task(worker.handle(job()))
        while not server.running:
            await asyncio.sleep(0.01)
        server.interrupted.set()
        assert "Workflow execution was interrupted: Node Type: Slow, Node ID: 9" in (await waiting)["error"]


async def test_cancelling_stops_exactly_this_prompt_and_is_passed_on():
    async with running(hang) as (server, worker):
        waiting = asyncio.create_task(worker.handle(job()))
        while not server.running:
            await asyncio.sleep(0.01)
        ours = server.running[0]
        server.running.insert(0, "somebody-elses")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert server.interrupts == [ours]


async def test_cancelling_a_prompt_that_waits_takes_it_out_of_the_queue_and_interrupts_nobody():
    async def wait_in_queue(server, prompt_id):
        server.running.remove(prompt_id)
        server.waiting.append(prompt_id)

    async with running(wait_in_queue) as (server, worker):
        waiting = asyncio.create_task(worker.handle(job()))
        while not server.waiting:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not server.waiting and not server.interrupts


async def test_a_job_that_takes_too_long_is_stopped():
    async with running(hang) as (server, worker):
        result = await worker.handle(job(timeout_s=0.3))
        assert re.fullmatch(r"Job timed out after 0.3 s at node 9; its prompt \S+ was stopped", result["error"])
        assert len(server.interrupts) == 1


async def test_the_workers_own_limit_counts_too():
    async with running(hang, job_timeout_s=0.2) as (server, worker):
        assert "timed out after 0.2 s" in (await worker.handle(job()))["error"]


async def test_the_same_job_delivered_twice_at_once_runs_once():
    async with running() as (server, worker):
        results = await asyncio.gather(worker.handle(job()), worker.handle(job()))
    assert results[0] == results[1] and results[0] is not results[1] and len(server.bodies) == 1


async def test_the_same_job_delivered_again_later_even_to_a_new_worker_does_not_run_again():
    async with running() as (server, worker):
        first = await worker.handle(job())
        second = Worker(WorkerSettings(host=server.host))
        again = await second.handle(job())
        await second.close()
    assert again == first and len(server.bodies) == 1


async def test_a_job_that_failed_is_tried_when_it_is_delivered_again():
    async def fail(server, prompt_id):
        await server.end(prompt_id, {}, "error", [["execution_error", {"node_id": "1", "exception_message": "no"}]])

    async with running(fail) as (server, worker):
        assert "error" in await worker.handle(job())
        server.script = succeed
        assert (await worker.handle(job()))["images"]
        assert len({body["prompt_id"] for body in server.bodies}) == 2


async def test_the_same_id_with_another_input_is_another_job():
    async with running() as (server, worker):
        await worker.handle(job())
        await worker.handle(job(timeout_s=5))
    assert len(server.bodies) == 2


async def test_one_of_two_callers_of_a_job_may_leave():
    async with running(hang) as (server, worker):
        leaving, staying = (asyncio.create_task(worker.handle(job())) for _ in range(2))
        while not server.running:
            await asyncio.sleep(0.01)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert not server.interrupts and not staying.done()
        server.interrupted.set()
        assert "interrupted" in (await staying)["error"]


async def test_a_dead_server_is_reported_and_the_next_job_finds_its_successor():
    async with running(hang, poll_interval_s=60) as (server, worker):
        waiting = asyncio.create_task(worker.handle(job()))
        while not server.running:
            await asyncio.sleep(0.01)
        await server.vanish()
        assert "the ComfyUI server died while the prompt ran" in (await waiting)["error"]
        server.script = succeed
        await server.listen(server.port)
        assert (await worker.handle(job("job-2")))["images"]


async def test_a_server_restarted_in_the_meantime_has_lost_the_prompt():
    async with running(hang) as (server, worker):
        waiting = asyncio.create_task(worker.handle(job()))
        while not server.running:
            await asyncio.sleep(0.01)
        server.running.clear()
        assert "does not know prompt" in (await waiting)["error"]


async def test_a_server_that_never_answers_fails_the_job():
    worker = Worker(WorkerSettings(host="127.0.0.1:9", available_retries=2, available_interval_s=0.01))
    result = await worker.handle(job())
    await worker.close()
    assert result == {"error": "ComfyUI server (127.0.0.1:9) not reachable after multiple retries."}


async def test_a_prompt_that_ends_without_a_history_fails_the_job():
    async def forget(server, prompt_id):
        server.running.remove(prompt_id)
        await server.send("executing", {"node": None, "prompt_id": prompt_id})

    async with running(forget) as (server, worker):
        result = await worker.handle(job())
    assert re.fullmatch(r"Prompt ID \S+ not found in history after execution\.", result["error"])


async def test_refusals_name_the_callers_nodes_and_the_checkpoints_there_are():
    async with running() as (server, worker):
        await worker.handle(job())
        canonical = next(iter(server.bodies[0]["prompt"]))
        server.refusal = (
            400,
            {
                "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
                "node_errors": {
                    canonical: {
                        "class_type": "EmptyImage",
                        "errors": [{"message": "Value not in list", "details": "ckpt_name: 'x' not in list"}],
                    }
                },
            },
        )
        server.object_info["CheckpointLoaderSimple"] = {"input": {"required": {"ckpt_name": [["a.ckpt", "b.ckpt"]]}}}
        result = await worker.handle(job("job-2"))
    assert result["error"] == (
        "Workflow validation failed:\n• Node 9 (errors, EmptyImage): Value not in list: ckpt_name: 'x' not in list"
        "\n\nAvailable checkpoint models: a.ckpt, b.ckpt"
    )


async def test_input_files_are_uploaded_before_the_prompt_is_queued():
    async with running() as (server, worker):
        images = [
            {"name": "in.png", "image": base64.b64encode(b"one").decode(), "extra": 1},
            {"name": "uri.png", "image": "data:image/png;base64," + base64.b64encode(b"two").decode()},
        ]
        assert (await worker.handle(job(images=images)))["images"]
    assert server.uploads == {"in.png": b"one", "uri.png": b"two"}


async def test_all_uploads_that_fail_are_reported():
    async with running() as (server, worker):
        result = await worker.handle(job(images=[{"name": "refused.png", "image": "AAAA"}]))
        assert result["error"].startswith("Failed to upload one or more input images:\n• Error uploading refused.png")
        result = await worker.handle(job(images=[{"name": "bad.png", "image": "A"}]))
        assert "Error decoding base64 for bad.png" in result["error"] and result["details"] and not server.bodies


@pytest.mark.parametrize("name", ["comfy_org_api_key", "api_key_comfy_org"])
async def test_both_names_of_the_api_key(name):
    async with running(comfy_org_api_key="from the environment") as (server, worker):
        await worker.handle(job(**{name: "from the request"}))
        await worker.handle(job("job-2"))
    assert [body["extra_data"]["api_key_comfy_org"] for body in server.bodies] == ["from the request", "from the environment"]


async def test_refresh_is_asked_for_with_the_result_and_with_an_error():
    async with running(refresh_worker=True) as (server, worker):
        assert (await worker.handle(job()))["refresh_worker"] is True
        assert (await worker.handle({"id": "x", "input": None})) == {"error": "Please provide input", "refresh_worker": True}


async def test_progress_is_passed_on_with_the_callers_ids():
    async def step(server, prompt_id):
        node_id = server.first_node(prompt_id)
        for value in (1, 2):
            await server.send("progress", {"prompt_id": prompt_id, "node": node_id, "value": value, "max": 2})
        await succeed(server, prompt_id)

    reports = []
    async with running(step) as (server, worker):
        await worker.handle(job(), reports.append)
    assert reports == [
        {"type": "progress", "value": 1, "max": 2, "percent": 50.0, "node": "9"},
        {"type": "progress", "value": 2, "max": 2, "percent": 100.0, "node": "9"},
    ]


async def test_the_summary_says_unknown_where_the_server_has_no_receipts(caplog):
    caplog.set_level(logging.INFO)
    async with running() as (server, worker):
        result = await worker.handle(job(report=True))
    assert result["report"]["temperature"] == "unknown" and result["report"]["models"]["read_bytes"] is None
    line = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("job job-1"))
    assert "done, unknown: models unknown" in line and "prompt " in line
    assert any("model caching: unknown" in record.getMessage() for record in caplog.records)


async def test_nodes_that_are_told_their_id_are_asked_for_once_per_class():
    async with running() as (server, worker):
        for number in range(2):
            await worker.handle(job(f"job-{number}"))
    assert sorted(server.info_requests) == ["EmptyImage", "SaveImage"]


async def test_a_node_that_searches_the_pages_workflow_keeps_its_id():
    async with running() as (server, worker):
        server.object_info["SaveImage"] = {"input": {"hidden": {"me": "UNIQUE_ID", "page": "EXTRA_PNGINFO"}}}
        await worker.handle(job(extra_pnginfo={"workflow": {"nodes": [{"id": 12}], "links": []}}))
    assert "12" in server.bodies[0]["prompt"] and "9" not in server.bodies[0]["prompt"]
    assert server.bodies[0]["extra_data"]["extra_pnginfo"]["workflow"]["nodes"] == [{"id": 12}]


async def test_without_normalization_ids_are_sent_as_they_are():
    async with running(normalize=False) as (server, worker):
        await worker.handle(job())
    assert server.bodies[0]["prompt"] == WORKFLOW


async def test_an_unexpected_error_is_reported_and_logged(monkeypatch, caplog):
    async with running() as (server, worker):
        monkeypatch.setattr("serverless.job_run.normalize_workflow_for_caching", lambda *_: 1 / 0)
        result = await worker.handle(job())
    assert result == {"error": "An unexpected error occurred: ZeroDivisionError: division by zero"}
    assert "Traceback" in caplog.text
