"""A dispatcher over real servers that are killed, without Ray."""

import asyncio
import json
import os
import signal
import sys

import psutil
import pytest
from fleet_setup import LocalFleet, end_of, job, make_base
from waiting_node import waiting

from fleet.interface import DuplicateJob, PromptRefused
from fleet.values import JobState, ServerState

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fleet needs Linux")


@pytest.fixture
async def local(tmp_path):
    fleet = LocalFleet(tmp_path / "fleet", make_base(tmp_path / "base"), 2)
    async with fleet as dispatcher:
        yield fleet, dispatcher


async def test_jobs_run_refusals_pass_through_and_killed_servers_come_back(local):
    fleet, dispatcher = local
    jobs = [job(waiting(number, 0.05)) for number in range(6)]
    accepted = await asyncio.gather(*(dispatcher.submit(one) for one in jobs))
    assert {one.server_id for one in accepted} == {"s0", "s1"}
    for one in jobs:
        assert (await end_of(dispatcher, one.prompt_id)).state is JobState.SUCCEEDED
        entry = await dispatcher.history(one.prompt_id)
        assert entry["prompt"][1] == one.prompt_id and entry["outputs"]
    with pytest.raises(DuplicateJob):
        await dispatcher.submit(jobs[0])
    with pytest.raises(PromptRefused) as refused:
        await dispatcher.submit(job({"1": {"class_type": "NoSuchNode", "inputs": {}}}))
    assert refused.value.status == 400 and json.loads(refused.value.body)["error"]["type"]
    await kill_while_jobs_run_and_wait(fleet, dispatcher)


async def kill_while_jobs_run_and_wait(fleet, dispatcher):
    """One runs and is lost; those behind it certainly did not run, and end on the other server; the dead one is there again."""
    first = [job(waiting(number, 5.0)) for number in (50, 51)]
    placed = {(await dispatcher.submit(one)).server_id: one for one in first}
    assert placed.keys() == {"s0", "s1"}
    async with asyncio.timeout(20):
        while (await dispatcher.find(placed["s0"].prompt_id)).state is not JobState.RUNNING:
            await asyncio.sleep(0.01)
    behind = [job(waiting(100 + number, 0.05)) for number in range(4)]
    where = [(await dispatcher.submit(one)).server_id for one in behind]
    assert "s0" in where
    os.kill(fleet.replicas["s0"].supervisor.pid, signal.SIGKILL)
    lost = await end_of(dispatcher, placed["s0"].prompt_id)
    assert lost.state is JobState.LOST and "killed by signal 9" in lost.failure and lost.attempts == 1
    for one, server_id in zip(behind, where):
        view = await end_of(dispatcher, one.prompt_id)
        assert (view.state, view.attempts) == (JobState.SUCCEEDED, 2 if server_id == "s0" else 1)
        assert view.server_id == "s1" or server_id == "s1"
    async with asyncio.timeout(30):
        while (view := await view_of(dispatcher, "s0")).state is not ServerState.READY or not view.restarts:
            await asyncio.sleep(0.05)
    assert view.restarts == 1


async def view_of(dispatcher, server_id):
    return next(view for view in await dispatcher.servers() if view.server_id == server_id)


async def test_a_server_dies_with_its_supervisor(tmp_path):
    """``kill -9`` of the process that supervises leaves no server behind."""
    code = (
        "import asyncio, pathlib, sys\n"
        "from fleet.supervisor import ServerPlan, Supervisor\n"
        "async def nothing(*_): pass\n"
        "async def main():\n"
        "    plan = ServerPlan(('--cpu', '--disable-all-custom-nodes', '--base-directory', sys.argv[1]), pathlib.Path(sys.argv[1]))\n"
        "    supervisor = Supervisor(plan, nothing, nothing)\n"
        "    await supervisor.start()\n"
        "    print(supervisor.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path), stdout=asyncio.subprocess.PIPE)
    pid = int(await asyncio.wait_for(process.stdout.readline(), 60))
    os.kill(pid, 0)
    process.kill()
    await process.wait()
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)
