"""A replica without its server: what it answers then, and that it ends."""

import asyncio

from fleet.messages import MayHaveRun, NotRun, SentJob
from fleet.replica import Replica
from fleet.supervisor import ServerPlan
from fleet.values import ServerState


def make(tmp_path):
    reports = []

    async def report(told):
        reports.append(told)

    return Replica("s", "node", ServerPlan(("--cpu",), tmp_path), report), reports


async def replies(replica, sent):
    return [reply async for reply in replica.run(sent)]


async def test_while_its_server_starts_nothing_runs(tmp_path):
    replica, _ = make(tmp_path)
    (reply,) = await replies(replica, SentJob("a", {}))
    assert isinstance(reply, NotRun) and "starting" in reply.reason and replica.jobs == 0
    (reply,) = await replies(replica, SentJob("a", {}, tried=("other",)))
    assert isinstance(reply, MayHaveRun)


async def test_stopping_ends_the_reports_at_once_and_tells_of_it(tmp_path):
    replica, reports = make(tmp_path)
    replica._reporter = asyncio.create_task(replica._keep_reporting())
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await replica.stop()
    assert reports[-1].state is ServerState.GONE and reports[-1].started_path.startswith(str(tmp_path))


async def test_a_dispatcher_that_fails_or_hangs_stops_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("fleet.replica.REPORT_LIMIT_S", 0.01)

    async def hang(told):
        await asyncio.Event().wait()

    replica = Replica("s", "node", ServerPlan((), tmp_path), hang)
    async with asyncio.timeout(2):
        await replica.stop()
    assert "does not hear of server s: TimeoutError" in caplog.text


def test_a_plan_says_how_a_server_is_started(tmp_path):
    command = ServerPlan(("--cpu",), tmp_path, "127.0.0.5").command(9000, tmp_path / "started")
    assert command[1].endswith("main.py") and command[2:] == [
        *("--listen", "127.0.0.5", "--port", "9000", "--started-prompts", str(tmp_path / "started")),
        "--cpu",
    ]
