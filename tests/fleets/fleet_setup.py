"""Fleets for tests: real servers over copies of a starter checkpoint, in this process or on Ray."""

import asyncio
import pathlib
import shutil
import sys
import uuid
from collections.abc import Callable

import waiting_node
from live_server import ROOT
from picture_prompts import text_to_picture

from app.running.started_prompts import read_started
from fleet.dispatcher import Dispatcher
from fleet.local_sender import LocalSender
from fleet.on_ray.installed import is_installed
from fleet.replica import Replica
from fleet.supervisor import ServerPlan
from fleet.values import Job

FLAGS = ("--cpu", *waiting_node.FLAGS)


def make_base(folder: pathlib.Path, models: int = 2) -> pathlib.Path:
    """A base directory with *models* checkpoints of different contents, ``m0.safetensors`` and so on."""
    checkpoints = folder / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for number in range(models):
        source = ("starter-digits.safetensors", "starter-outlines.safetensors")[number % 2]
        shutil.copy(ROOT / "models" / "checkpoints" / source, checkpoints / f"m{number}.safetensors")
    waiting_node.install(folder)
    return folder


def picture(model: int, seed: int) -> dict:
    """Text to picture by checkpoint *model*."""
    return text_to_picture(f"m{model}.safetensors", seed, f"a handwritten seven, number {seed}")


def job(prompt: dict, prompt_id: str | None = None) -> Job:
    """*prompt* as a job of a client."""
    prompt_id = prompt_id or str(uuid.uuid4())
    return Job(prompt_id, {"prompt": prompt, "prompt_id": prompt_id, "client_id": "test"})


async def until(holds: Callable[[], bool]) -> None:
    """Return as soon as *holds* does; the test's own timeout says when to give up."""
    while not holds():
        await asyncio.sleep(0.01)


async def end_of(fleet, prompt_id: str):
    """The view of a job once it has ended."""
    after = -1
    while True:
        events = await fleet.events(after)
        view = await fleet.find(prompt_id)
        if view is not None and view.state.is_end:
            return view
        after = events[-1].sequence if events else after


class LocalFleet:
    """A dispatcher and supervised servers, without Ray. ``async with``."""

    def __init__(self, folder: pathlib.Path, base: pathlib.Path, servers: int, *flags: str) -> None:
        self.replicas: dict[str, Replica] = {}
        sender = LocalSender(self.replicas)
        self.dispatcher = Dispatcher(sender, self._begun)
        sender.place = self.dispatcher.place
        for number in range(servers):
            own = folder / f"s{number}"
            folders = []
            for name in ("output", "input", "user"):
                (own / name).mkdir(parents=True)
                folders += [f"--{name}-directory", str(own / name)]
            plan = ServerPlan((*FLAGS, "--base-directory", str(base), "--temp-directory", str(own), *folders, *flags), own)
            self.replicas[f"s{number}"] = Replica(f"s{number}", "node", plan, self.dispatcher.servers_known.take)

    async def _begun(self, node_id: str, path: str) -> frozenset[str] | None:
        return await asyncio.to_thread(read_started, path, 5.0)

    async def __aenter__(self) -> Dispatcher:
        try:
            await asyncio.gather(*(replica.start() for replica in self.replicas.values()))
            await until(lambda: len(self.dispatcher.servers_known.ready()) == len(self.replicas))
        except BaseException:
            await self.__aexit__()
            raise
        return self.dispatcher

    async def __aexit__(self, *_: object) -> None:
        # The dispatcher last: the servers report to it that they go.
        await asyncio.gather(*(replica.stop() for replica in self.replicas.values()))
        await self.dispatcher.close()


def has_ray() -> bool:
    """Whether Ray Serve is installed, on a system where the fleet works."""
    return is_installed() and sys.platform == "linux"
