"""What ``fleet.py`` does to a fleet while it works: kills and scaling; and what must hold afterwards."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import psutil

from fleet.interface import DuplicateJob, FleetError, NoServer, QueueFull
from fleet.values import FleetEvent, Job, JobState, JobView, ServerState

LOOK_EVERY_S = 0.1
RECOVERY_LIMIT_S = 240.0
# Seconds after a kill in which another job must have ended.
RECOVERY_S = 5.0
REPLICAS = {"replica": "ray::ServeReplica:fleet:Servers", "gateway": "ray::ServeReplica:fleet:Gateways"}
TARGETS = ("server", "gateway", "replica")
Load = Callable[[Any, int, int], AbstractAsyncContextManager[Any]]


async def to_the_end(fleet: Any, job: Job) -> tuple[JobState, dict[str, Any] | None]:
    """How *job* ended, and its history entry; LOST for one whose submission failed with a reason. Comes again while there is no room."""
    while True:
        try:
            await fleet.submit(job)
            break
        except (NoServer, QueueFull):
            await asyncio.sleep(0.5)
        except DuplicateJob:
            break
        except FleetError as error:
            print(f"  {job.prompt_id} was not confirmed: {error}")
            return JobState.LOST, None
    while True:
        with contextlib.suppress(FleetError):
            view = await fleet.find(job.prompt_id)
            if view is not None and view.state.is_end:
                return view.state, await fleet.history(job.prompt_id)
        await asyncio.sleep(LOOK_EVERY_S)


class ThroughGateways:
    """What :func:`to_the_end` needs of ``Fleet``, for a client of the gateways at *url* that asks again when one dies. ``async with``."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._entries: dict[str, dict[str, Any]] = {}

    async def __aenter__(self) -> "ThroughGateways":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def submit(self, job: Job) -> None:
        """Raises ``QueueFull``, ``NoServer`` and ``FleetError``. A job that an earlier try has left there is there."""
        status, told = await self._ask("POST", "/prompt", json=dict(job.body))
        reason = told.get("error", {}).get("message", "")
        if status == 429:
            raise QueueFull(1)
        if status == 503:
            raise NoServer(reason)
        if status not in (200, 409):
            raise FleetError(f"status {status}: {reason}")

    async def find(self, prompt_id: str) -> JobView | None:
        """The job once it has ended."""
        status, told = await self._ask("GET", f"/history/{prompt_id}")
        if status != 200:
            raise FleetError(f"status {status}")
        if prompt_id not in told:
            return None
        self._entries[prompt_id] = entry = told[prompt_id]
        kinds = [message[1].get("exception_type") for message in entry["status"]["messages"]]
        failed = JobState.LOST if "ServerLost" in kinds else JobState.FAILED
        return JobView(prompt_id, JobState.SUCCEEDED if entry["status"]["status_str"] == "success" else failed)

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The entry that came with the end."""
        return self._entries.pop(prompt_id, None)

    async def _ask(self, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any]]:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.request(method, self._url + path, **more) as answer:
                    is_json = answer.content_type == "application/json"
                    return answer.status, await answer.json() if is_json else {"error": {"message": await answer.text()}}
            await asyncio.sleep(LOOK_EVERY_S)


class Ends:
    """Counts the ends that the fleet tells of, by job."""

    def __init__(self, fleet: Any) -> None:
        self._fleet = fleet
        self.counts: Counter[str] = Counter()

    async def listen(self) -> None:
        """Until cancelled."""
        (now,) = await self._fleet.events(-1)
        after = now.sequence
        while True:
            events: list[FleetEvent] = await self._fleet.events(after, 5.0)
            self.counts.update(event.prompt_id for event in events if event.kind == "ended" and event.prompt_id)
            after = events[-1].sequence if events else after


def victims(kind: str) -> list[psutil.Process]:
    """Processes of this fleet that can be killed: servers, the replicas that supervise them, or gateways."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, IndexError):
            command = process.cmdline()
            # Ray adds what a replica is doing.
            is_one = any(part.endswith("/main.py") for part in command) if kind == "server" else command[0].startswith(REPLICAS[kind])
            if is_one and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


async def kills(dispatcher: Any, url: str, load: Load, jobs: int, clients: int, count: int) -> int:
    """Kill at *count* random moments while clients use the gateways at *url*; the exit status says whether all was as promised."""
    from fleet.on_ray.remote_fleet import RemoteFleet

    fleet, random_ = RemoteFleet(dispatcher), random.Random(4)
    ends = Ends(fleet)
    listening = asyncio.create_task(ends.listen())
    servers, recovering = len(await fleet.servers()), []
    async with ThroughGateways(url) as client, load(client, jobs, clients) as outcome:
        for number in range(count):
            await reach(outcome, (number + random_.random()) * jobs / (count + 1))
            kind = TARGETS[number % len(TARGETS)]
            while not (alive := victims(kind)):
                await asyncio.sleep(LOOK_EVERY_S)
            os.kill(random_.choice(alive).pid, signal.SIGKILL)
            recovering.append(asyncio.create_task(recovery(fleet, outcome, servers, jobs, f"kill {number + 1}, of a {kind}")))
    print(f"all {jobs} jobs have ended", flush=True)
    slowest_s = max(await asyncio.gather(*recovering))
    await asyncio.sleep(1.0)
    listening.cancel()
    repeated = {prompt_id: times for prompt_id, times in ends.counts.items() if times != 1}
    print(f"{len(outcome.took_s)} jobs: {outcome.ends}; told ends: {sum(ends.counts.values())}, told more than once: {repeated}")
    print(f"the longest until the next job ended: {slowest_s:.1f} s, at most {RECOVERY_S} s is allowed")
    return int(len(outcome.took_s) != jobs or bool(repeated) or slowest_s > RECOVERY_S)


async def recovery(fleet: Any, outcome: Any, servers: int, jobs: int, what: str) -> float:
    """The seconds until another job has ended, printed with those until all servers are up again."""
    began_s, done, next_s = time.perf_counter(), len(outcome.took_s), None
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        passed_s = time.perf_counter() - began_s
        if next_s is None and (len(outcome.took_s) > done or len(outcome.took_s) == jobs):
            next_s = passed_s
        ready = sum(view.state is ServerState.READY for view in await fleet.servers())
        if next_s is not None and (ready >= servers or passed_s > RECOVERY_LIMIT_S) and passed_s > 0.5:
            print(f"{what}: the next job ended after {next_s:.1f} s, all servers up after {passed_s:.1f} s", flush=True)
            return next_s


async def scaling(dispatcher: Any, load: Load, jobs: int, clients: int) -> int:
    """1 → 3 → 1 servers under load; the exit status says whether a job was lost."""
    from fleet.on_ray.remote_fleet import RemoteFleet

    fleet = RemoteFleet(dispatcher)
    async with load(fleet, jobs, clients) as outcome:
        await reach(outcome, jobs * 0.15)
        began_s = time.perf_counter()
        await dispatcher.scale.remote(3)
        print(f"1 → 3 servers in {time.perf_counter() - began_s:.1f} s, {len(outcome.took_s)} of {jobs} jobs done")
        await reach(outcome, jobs * 0.6)
        for view in await fleet.servers():
            print(f"  {view.server_id}: {[one.file.name for one in view.summary.warm]}, {view.backlog_s:.1f} s of work")
        began_s = time.perf_counter()
        taken = await dispatcher.scale.remote(1)
        print(f"3 → 1 servers in {time.perf_counter() - began_s:.1f} s, taken away {taken}, {len(outcome.took_s)} of {jobs} jobs done")
    left = [view.server_id for view in await fleet.servers() if view.state is ServerState.READY]
    print(f"{len(outcome.took_s)} jobs: {outcome.ends}; left: {left}")
    return int(outcome.ends != {JobState.SUCCEEDED: jobs} or len(left) != 1 or len(taken) != 2)


async def reach(outcome: Any, count: float) -> None:
    """Wait until so many jobs have ended."""
    while len(outcome.took_s) < count:
        await asyncio.sleep(0.05)
