"""The socket, and a prompt that is queued over a connection that breaks."""

import asyncio

import pytest
from scripted_server import ScriptedServer, hang, succeed
from workflow_shapes import node

from serverless.handler import make_handler
from serverless.job_run import JobRun
from serverless.node_facts import NodeFacts
from serverless.prompt_run import PromptRun
from serverless.server_api import ServerApi, ServerUnreachable
from serverless.server_events import BACK, LOST, ServerEvents
from serverless.server_link import ServerLink
from serverless.settings import WorkerSettings
from serverless.worker import Worker
from serverless.workflow_normalization import NormalizedWorkflow

WORKFLOW = {"1": node("EmptyImage", width=8)}


@pytest.fixture
async def linked():
    """(server, link), connected."""
    async with ScriptedServer() as server:
        api = ServerApi(f"http://{server.host}")
        settings = WorkerSettings(host=server.host, poll_interval_s=0.1, reconnect_delay_s=0.05)
        link = ServerLink(settings, api, ServerEvents(api, "me", 0.05), NodeFacts(api), None)
        await link.events.connect()
        yield server, link
        await link.close()


async def got(queue):
    return await asyncio.wait_for(queue.get(), 10)


async def test_messages_reach_those_who_listen_for_their_prompt(linked):
    server, link = linked
    with link.events.listen("a") as first, link.events.listen("a") as second, link.events.listen("b") as other:
        await server.send("progress", {"prompt_id": "a", "value": 1})
        assert (await got(first)).data["value"] == (await got(second)).data["value"] == 1
        await server.send("progress", {"prompt_id": "b"})
        await got(other)
        assert first.empty() and other.empty()


async def test_text_that_is_not_a_message_is_skipped(linked):
    server, link = linked
    with link.events.listen("a") as queue:
        for text in ("{", "[]", '"x"', '{"data": {}}', '{"type": "x"}', '{"type": "x", "data": [1]}'):
            await server.sockets[-1].send_str(text)
        await server.sockets[-1].send_bytes(b"\0\0\0\1picture")
        await server.send("progress", {"prompt_id": "a"})
        assert (await got(queue)).kind == "progress"


async def test_a_lost_socket_is_reported_and_opened_again(linked):
    server, link = linked
    with link.events.listen("a") as queue:
        await server.drop_sockets()
        assert [await got(queue), await got(queue)] == [LOST, BACK] and link.events.is_connected
        await server.send("progress", {"prompt_id": "a"})
        assert (await got(queue)).kind == "progress"


async def test_a_socket_lost_between_jobs_is_opened_by_the_next(linked):
    server, link = linked
    await server.drop_sockets()
    while link.events.is_connected:
        await asyncio.sleep(0.01)
    await link.events.connect()
    assert link.events.is_connected and server.connects == 2


async def test_a_server_that_is_down_is_reported_as_refusing_connections():
    async with ServerApi("http://127.0.0.1:9") as api:
        with pytest.raises(ServerUnreachable) as caught:
            await ServerEvents(api, "me").connect()
    assert caught.value.is_refused and not caught.value.is_busy


def prompt_run(link, key="key"):
    async def connect():
        await link.events.connect()

    return PromptRun(link, key, lambda event: None, NormalizedWorkflow(WORKFLOW, {"1": "1"}), connect)


async def test_a_prompt_whose_answer_was_lost_is_not_queued_twice(linked):
    server, link = linked
    real, tries = link.api.submit, []

    async def lose_the_answer(body):
        tries.append(body)
        await real(body)
        raise ServerUnreachable("POST /prompt", ConnectionResetError())

    link.api.submit = lose_the_answer
    assert (await prompt_run(link).run({})).entry["outputs"]
    assert len(tries) == len(server.bodies) == 1


async def test_a_prompt_that_never_arrived_is_queued_again(linked):
    server, link = linked
    real, tries = link.api.submit, []

    async def lose_the_request(body):
        tries.append(body)
        if len(tries) == 1:
            raise ServerUnreachable("POST /prompt", ConnectionResetError())
        return await real(body)

    link.api.submit = lose_the_request
    assert (await prompt_run(link).run({})).entry["outputs"]
    assert len(tries) == 2 and len(server.bodies) == 1


async def test_a_prompt_that_is_cancelled_on_its_way_into_the_queue_is_stopped(linked):
    server, link = linked
    server.script = hang
    real, sending, release = link.api.submit, asyncio.Event(), asyncio.Event()

    async def slow(body):
        sending.set()
        await release.wait()
        return await real(body)

    link.api.submit = slow
    run = prompt_run(link)
    task = asyncio.create_task(run.run({}))
    await sending.wait()
    task.cancel()
    stopping = asyncio.create_task(run.stop())
    await asyncio.sleep(0)
    release.set()
    await stopping
    assert server.interrupts == [run.prompt_id]
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_job_that_failed_too_often_is_given_up(linked):
    server, link = linked

    async def fail(server, prompt_id):
        await server.end(prompt_id, {}, "error", [])

    server.script = fail
    results = [await JobRun(link, "job", {"workflow": WORKFLOW}, lambda report: None, link.events.connect).run() for _ in range(21)]
    assert "the server does not say more" in results[0]["error"] and "tried 20 times" in results[-1]["error"]
    assert len(server.bodies) == 20


async def test_patience_follows_the_settings():
    link = ServerLink(WorkerSettings(reconnect_attempts=4, reconnect_delay_s=2.0), None, None, None, None)
    assert link.patience().unreachable_s == 8.0 and not link.tells_models


async def test_the_handler_passes_progress_on_with_its_job():
    async def step(server, prompt_id):
        await server.send("progress", {"prompt_id": prompt_id, "node": server.first_node(prompt_id), "value": 1, "max": 1})
        await succeed(server, prompt_id)

    told = []
    async with ScriptedServer(step) as server:
        worker = Worker(WorkerSettings(host=server.host))
        job = {"id": "j", "input": {"workflow": WORKFLOW}}
        assert (await make_handler(worker, lambda *given: told.append(given))(job))["images"]
        assert (await make_handler(worker, None)({**job, "id": "k"}))["images"]
        await worker.close()
    assert [given[0]["id"] for given in told] == ["j"] and told[0][1]["percent"] == 100.0
