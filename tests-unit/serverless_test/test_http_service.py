"""The worker behind plain HTTP."""

import asyncio
import base64
import contextlib

from aiohttp.test_utils import TestClient, TestServer
from scripted_server import PICTURE, ScriptedServer, hang, succeed
from workflow_shapes import node

from serverless.http_service import HttpService
from serverless.settings import WorkerSettings
from serverless.worker import Worker

INPUT = {"workflow": {"9": node("EmptyImage", width=8)}}


@contextlib.asynccontextmanager
async def service(script=succeed, settings=None, **more):
    async with ScriptedServer(script) as server:
        worker = Worker(WorkerSettings(host=server.host, poll_interval_s=0.2, **(settings or {})))
        async with TestClient(TestServer(HttpService(worker, **more).make_app())) as client:
            yield server, client


async def post(client, path, body, **more):
    async with client.post(path, json=body, **more) as answer:
        return answer.status, await answer.json()


async def status_of(client, job_id):
    async with client.get(f"/status/{job_id}") as answer:
        return await answer.json()


async def until(client, job_id, status):
    while (told := await status_of(client, job_id))["status"] != status:
        await asyncio.sleep(0.01)
    return told


async def test_runsync_waits_for_the_result():
    async with service() as (server, client):
        status, answer = await post(client, "/runsync", {"input": INPUT})
    assert status == 200 and answer["status"] == "COMPLETED" and answer["executionTime"] >= 0
    assert base64.b64decode(answer["output"]["images"][0]["data"]) == PICTURE


async def test_run_answers_at_once_and_status_tells_the_end():
    async with service() as (server, client):
        status, answer = await post(client, "/run", {"input": INPUT, "id": "mine"})
        assert status == 200 and answer["id"] == "mine"
        assert (await until(client, "mine", "COMPLETED"))["output"]["images"]


async def test_a_failed_job_carries_error_and_details():
    async with service() as (server, client):
        _, answer = await post(client, "/runsync", {"input": {**INPUT, "images": [{"name": "x", "image": "A"}]}})
    assert answer["status"] == "FAILED" and "base64" in answer["error"] and answer["details"]


async def test_progress_shows_while_it_runs_and_cancelling_stops_it():
    async def step(server, prompt_id):
        await server.send("progress", {"prompt_id": prompt_id, "node": server.first_node(prompt_id), "value": 1, "max": 4})
        await hang(server, prompt_id)

    async with service(step) as (server, client):
        await post(client, "/run", {"input": INPUT, "id": "mine"})
        while not (told := await status_of(client, "mine")).get("output"):
            await asyncio.sleep(0.01)
        assert told["status"] == "IN_PROGRESS" and told["output"]["percent"] == 25.0 and told["output"]["node"] == "9"
        assert (await post(client, "/cancel/mine", {}))[1] == {"id": "mine", "status": "CANCELLED"}
        assert len(server.interrupts) == 1


async def test_jobs_run_one_after_the_other_and_one_that_waits_can_be_cancelled():
    async with service(hang) as (server, client):
        await post(client, "/run", {"input": INPUT, "id": "first"})
        await until(client, "first", "IN_PROGRESS")
        await post(client, "/run", {"input": INPUT, "id": "second"})
        assert (await status_of(client, "second"))["status"] == "IN_QUEUE"
        async with client.get("/health") as answer:
            assert (await answer.json())["jobs"] == {"inQueue": 1, "inProgress": 1}
        assert (await post(client, "/cancel/second", {}))[1]["status"] == "CANCELLED"
        assert (await status_of(client, "first"))["status"] == "IN_PROGRESS" and len(server.bodies) <= 1


async def test_too_many_are_refused_with_a_time_to_come_back():
    async with service(hang, max_waiting=1) as (server, client):
        await post(client, "/run", {"input": INPUT, "id": "1"})
        await until(client, "1", "IN_PROGRESS")
        await post(client, "/run", {"input": INPUT, "id": "2"})
        async with client.post("/run", json={"input": INPUT, "id": "3"}) as answer:
            assert answer.status == 429 and int(answer.headers["Retry-After"]) > 0


async def test_an_id_may_come_twice_but_not_with_another_input():
    async with service() as (server, client):
        first = await post(client, "/runsync", {"input": INPUT, "id": "mine"})
        assert await post(client, "/runsync", {"input": INPUT, "id": "mine"}) == first and len(server.bodies) == 1
        status, answer = await post(client, "/run", {"input": {}, "id": "mine"})
        assert status == 409 and "another input" in answer["error"]


async def test_bodies_that_are_not_jobs_are_refused():
    async with service() as (server, client):
        assert (await post(client, "/run", {"no": "input"}))[0] == 422
        assert (await post(client, "/run", {"input": INPUT, "id": 1}))[0] == 422
        async with client.post("/run", data=b"{") as answer:
            assert answer.status == 400
        async with client.get("/status/unknown") as answer:
            assert answer.status == 404


async def test_a_token_keeps_strangers_out():
    async with service(token="secret") as (server, client):
        assert (await post(client, "/runsync", {"input": INPUT}))[0] == 401
        assert (await post(client, "/runsync", {"input": INPUT}, headers={"Authorization": "Bearer secret"}))[0] == 200
        async with client.get("/health") as answer:
            assert answer.status == 200


async def test_a_refresh_comes_after_the_answer_was_fetched():
    refreshed = []
    async with service(settings={"refresh_worker": True}, on_refresh=lambda: refreshed.append(True)) as (server, client):
        await post(client, "/run", {"input": INPUT, "id": "mine"})
        while server.running or not server.history:
            await asyncio.sleep(0.01)
        assert not refreshed
        assert "refresh_worker" not in (await until(client, "mine", "COMPLETED"))["output"]
        assert refreshed
