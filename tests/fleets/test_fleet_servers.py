"""A dispatcher over real servers that are killed, without Ray."""

import asyncio
import json
import os
import signal
import sys

import psutil
import pytest
import pytest_asyncio
from fleet_setup import LocalFleet, end_of, job, make_base, until
from live_server import ROOT
from waiting_node import waiting

from fleet.interface import DuplicateJob, PromptRefused
from fleet.values import JobState, ServerState

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the fleet needs Linux"),
    # Nothing here takes long; a machine that is busy with other things may need minutes to start three servers.
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local(tmp_path_factory):
    """Two servers that both tests of jobs share."""
    folder = tmp_path_factory.mktemp("fleet")
    fleet = LocalFleet(folder / "fleet", make_base(folder / "base"), 2)
    async with fleet as dispatcher:
        yield fleet, dispatcher


async def test_jobs_run_and_refusals_pass_through(local):
    _, dispatcher = local
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


async def test_a_killed_server_loses_what_it_ran_and_comes_back(local, tmp_path):
    """What it ran is lost; what waited there certainly did not run, and ends on the other server."""
    fleet, dispatcher = local
    gate = tmp_path / "gate"
    first = [job(waiting(number, 0.0, str(gate))) for number in (50, 51)]
    placed = {(await dispatcher.submit(one)).server_id: one for one in first}
    assert placed.keys() == {"s0", "s1"}
    records = dispatcher.table.unfinished
    await until(lambda: all(records[one.prompt_id].state is JobState.RUNNING for one in first))
    behind = [job(waiting(100 + number, 0.05)) for number in range(4)]
    where = [(await dispatcher.submit(one)).server_id for one in behind]
    assert "s0" in where
    os.kill(fleet.replicas["s0"].supervisor.pid, signal.SIGKILL)
    lost = await end_of(dispatcher, placed["s0"].prompt_id)
    assert lost.state is JobState.LOST and "killed by signal 9" in lost.failure and lost.attempts == 1
    # Those that moved wait there now, as the other server still runs its first.
    await until(lambda: all(records[one.prompt_id].server_id == "s1" for one in behind))
    gate.touch()
    assert (await end_of(dispatcher, placed["s1"].prompt_id)).state is JobState.SUCCEEDED
    for one, server_id in zip(behind, where):
        view = await end_of(dispatcher, one.prompt_id)
        assert (view.state, view.attempts, view.server_id) == (JobState.SUCCEEDED, 2 if server_id == "s0" else 1, "s1")
    reports = dispatcher.servers_known.reports
    await until(lambda: reports["s0"].state is ServerState.READY and reports["s0"].restarts > 0)
    views = {view.server_id: (view.state, view.restarts) for view in await dispatcher.servers()}
    assert views == {"s0": (ServerState.READY, 1), "s1": (ServerState.READY, 0)}


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
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path), stdout=asyncio.subprocess.PIPE)
    server = psutil.Process(int(await process.stdout.readline()))
    assert str(ROOT / "main.py") in server.cmdline()
    process.kill()
    await process.wait()
    async with asyncio.timeout(10):
        await until(lambda: not is_alive(server))


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended may stay a zombie for as long as nobody waits for it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
