"""A plain list of servers as a fleet: placing, retrying what did not run, and every end told once."""

import asyncio
import contextlib
import pathlib
import sys
import uuid

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "serverless_test"))
from scripted_server import ScriptedServer, hang, succeed  # noqa: E402

from fleet.interface import DuplicateJob, FleetError, NoServer, PromptRefused, QueueFull  # noqa: E402
from fleet.plain.static_fleet import StaticFleet  # noqa: E402
from fleet.values import Job, JobState  # noqa: E402
from serverless.server_api import ServerUnreachable  # noqa: E402


def job(prompt_id=None, client_id="me", **extra_data):
    prompt_id = prompt_id or str(uuid.uuid4())
    body = {"prompt": {"1": {"class_type": "Any", "inputs": {}}}, "prompt_id": prompt_id, "client_id": client_id, "extra_data": extra_data}
    return Job(prompt_id, body)


@contextlib.asynccontextmanager
async def fleet_of(*scripts, **settings):
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(ScriptedServer(script)) for script in scripts]
        fleet = StaticFleet({f"s{number}": f"http://{server.host}" for number, server in enumerate(servers, 1)}, **settings)
        await fleet.start()
        stack.push_async_callback(fleet.close)
        yield fleet, servers


async def ended(fleet, prompt_id, timeout_s=40.0):
    """The job once it has ended."""
    async with asyncio.timeout(timeout_s):
        while True:
            view = await fleet.find(prompt_id)
            if view is not None and view.state.is_end:
                return view
            await asyncio.sleep(0.02)


async def running(fleet, prompt_id):
    async with asyncio.timeout(40):
        while (await fleet.find(prompt_id)).state is not JobState.RUNNING:
            await asyncio.sleep(0.02)


async def test_jobs_go_where_the_fewest_are_and_their_entries_are_kept():
    async with fleet_of(hang, succeed) as (fleet, servers):
        first = await fleet.submit(job())
        accepted = [await fleet.submit(job()) for _ in range(1)]
        assert first.server_id == "s1" and [one.server_id for one in accepted] == ["s2"]
        view = await ended(fleet, accepted[0].prompt_id)
        assert view.state is JobState.SUCCEEDED and view.base_url == f"http://{servers[1].host}"
        assert (await fleet.history(view.prompt_id))["outputs"]["1"]["images"]
        assert list(await fleet.histories()) == [view.prompt_id] and [one.prompt_id for one in await fleet.jobs()] == [first.prompt_id]
        assert [one.server_id for one in await fleet.decisions()] == ["s2", "s1"]


async def test_one_id_is_one_job():
    async with fleet_of(hang) as (fleet, servers):
        one = job()
        await fleet.submit(one)
        with pytest.raises(DuplicateJob):
            await fleet.submit(one)
        assert len(servers[0].bodies) == 1


async def test_every_end_is_an_event_once():
    async with fleet_of(succeed) as (fleet, _):
        (newest,) = await fleet.events(-1)
        accepted = await fleet.submit(job())
        await ended(fleet, accepted.prompt_id)
        await asyncio.sleep(0.2)
        events = await fleet.events(newest.sequence)
        assert [(one.kind, one.client_id) for one in events] == [("placed", "me"), ("ended", "me")]
        assert events[-1].state is JobState.SUCCEEDED and await fleet.events(events[-1].sequence, timeout_s=0.01) == []


async def test_a_full_fleet_says_when_to_come_again():
    async with fleet_of(hang, hang, most_per_server=1) as (fleet, _):
        await fleet.submit(job())
        await fleet.submit(job())
        with pytest.raises(QueueFull) as full:
            await fleet.submit(job())
        assert full.value.retry_after_s >= 1 and len(await fleet.jobs()) == 2


async def test_a_refusal_is_the_servers_own_and_leaves_nothing_behind():
    async with fleet_of(succeed, succeed) as (fleet, servers):
        for server in servers:
            server.refusal = (400, {"error": {"type": "prompt_no_outputs"}, "node_errors": {}})
        with pytest.raises(PromptRefused) as refused:
            await fleet.submit(job())
        assert refused.value.status == 400 and b"prompt_no_outputs" in refused.value.body
        assert await fleet.jobs() == [] and len(servers[0].bodies) + len(servers[1].bodies) == 1


async def test_what_one_server_lacks_another_may_have():
    errors = {"1": {"errors": [{"type": "value_not_in_list"}]}}
    async with fleet_of(succeed, succeed) as (fleet, servers):
        servers[0].refusal = (400, {"error": {"type": "prompt_outputs_failed_validation"}, "node_errors": errors})
        assert (await fleet.submit(job())).server_id == "s2"


async def test_a_server_that_is_gone_is_passed_over_and_with_none_left_it_is_said():
    async with fleet_of(succeed, succeed) as (fleet, servers):
        await servers[0].vanish()
        await asyncio.sleep(0.05)
        assert (await fleet.submit(job())).server_id == "s2"
        await servers[1].vanish()
        with pytest.raises(FleetError):
            await fleet.submit(job())
        await asyncio.sleep(0.5)
        with pytest.raises(NoServer):
            await fleet.submit(job())


async def test_when_a_server_dies_its_running_job_is_lost_and_what_waited_behind_it_moves():
    async with fleet_of(hang, succeed, most_per_server=2) as (fleet, servers):
        servers[1].refusal = (503, {})
        first, second = job(), job(api_key_comfy_org="secret")
        await fleet.submit(first)
        await running(fleet, first.prompt_id)
        servers[0].script = lambda server, prompt_id: server.interrupted.wait()
        await fleet.submit(second)
        servers[0].running.remove(second.prompt_id)
        servers[0].waiting.append(second.prompt_id)
        servers[1].refusal = None
        await asyncio.sleep(0.1)
        await servers[0].vanish()
        lost, moved = await ended(fleet, first.prompt_id), await ended(fleet, second.prompt_id)
        assert lost.state is JobState.LOST and "died while it ran it" in lost.failure
        entry = await fleet.history(first.prompt_id)
        assert entry["status"]["status_str"] == "error" and entry["status"]["messages"][0][1]["exception_message"] == lost.failure
        assert (moved.state, moved.server_id, moved.attempts) == (JobState.SUCCEEDED, "s2", 3)
        assert len(servers[1].prompts) == 1


async def test_a_job_that_may_have_begun_is_not_sent_again():
    async def wait(server, prompt_id):
        await server.interrupted.wait()

    async with fleet_of(wait, succeed) as (fleet, servers):
        one = job(api_key_comfy_org="secret")
        await fleet.submit(one)
        servers[0].running.remove(one.prompt_id)
        servers[0].waiting.append(one.prompt_id)
        await asyncio.sleep(0.1)
        await servers[0].vanish()
        view = await ended(fleet, one.prompt_id)
        assert view.state is JobState.LOST and servers[1].bodies == []
        assert "secret" not in str(await fleet.history(one.prompt_id))


async def test_a_server_that_was_started_anew_has_lost_what_it_ran():
    async with fleet_of(hang) as (fleet, servers):
        one = job()
        await fleet.submit(one)
        await running(fleet, one.prompt_id)
        servers[0].running.clear()
        view = await ended(fleet, one.prompt_id)
        assert view.state is JobState.LOST and "started anew" in view.failure
        with pytest.raises(DuplicateJob):
            await fleet.submit(job(one.prompt_id))
        await fleet.forget([one.prompt_id])
        assert (await fleet.submit(job(one.prompt_id))).server_id == "s1", "what is forgotten can be sent again"


async def test_cancelling_ends_what_waits_and_what_runs():
    async with fleet_of(hang) as (fleet, servers):
        one, two = job(), job()
        await fleet.submit(one)
        await running(fleet, one.prompt_id)
        servers[0].script = lambda server, prompt_id: server.interrupted.wait()
        await fleet.submit(two)
        servers[0].running.remove(two.prompt_id)
        servers[0].waiting.append(two.prompt_id)
        assert await fleet.cancel(two.prompt_id) and (await ended(fleet, two.prompt_id)).state is JobState.CANCELLED
        assert await fleet.cancel(one.prompt_id) and (await ended(fleet, one.prompt_id)).state is JobState.CANCELLED
        assert not await fleet.cancel(one.prompt_id) and not await fleet.cancel("unknown")


async def test_an_answer_that_is_lost_is_asked_for():
    async with fleet_of(succeed) as (fleet, servers):
        calls = fleet._calls["s1"]
        submit = calls.submit

        async def cut(body, source):
            await submit(body, source)
            raise ServerUnreachable("POST /prompt", ConnectionResetError("cut"))

        calls.submit = cut
        accepted = await fleet.submit(job())
        assert len(servers[0].bodies) == 1, "it is there, so it is not sent twice"
        assert (await ended(fleet, accepted.prompt_id)).state is JobState.SUCCEEDED


async def test_whether_a_server_that_was_lost_has_the_job_is_not_guessed():
    async with fleet_of(succeed, succeed) as (fleet, servers):

        async def cut(body, source):
            await servers[0].vanish()
            raise ServerUnreachable("POST /prompt", ConnectionResetError("cut"))

        fleet._calls["s1"].submit = cut
        with pytest.raises(FleetError, match="not known"):
            await fleet.submit(job())
        assert servers[1].bodies == [] and await fleet.jobs() == []
