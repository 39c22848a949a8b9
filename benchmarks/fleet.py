"""The fleet on Ray Serve with real servers: its own router against Ray's default, and kills and scaling under load.

    python benchmarks/fleet.py                      three servers that fit 2 of 5 models, 80 jobs, Zipf, 6 clients; each router in turn
    python benchmarks/fleet.py --check              the same, with an exit status
    python benchmarks/fleet.py --kills 10           kill -9 of servers, gateways and replicas at ten random moments in 200 jobs
    python benchmarks/fleet.py --scale              1 → 3 → 1 servers under load

Needs Ray Serve (requirements-fleet.txt). The models are copies of a starter checkpoint under other names and with other contents; a job is
a picture of two steps. They are read at 10 MB/s, so that a load takes about as long beside a job as those of large models do; each server
has drawn one picture and dropped its model before the trace begins. A job is cold when a receipt of it says that a model was read from
disk. With kills and scaling a job waits for a second in a node of a pack made for this, so that what is seen is the fleet and not the
processor.
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "fleets")]
import fleet_chaos  # noqa: E402
import waiting_node  # noqa: E402
from live_server import free_port  # noqa: E402
from picture_prompts import text_to_picture  # noqa: E402

from fleet.settings import UpSettings  # noqa: E402
from fleet.values import Job, JobState  # noqa: E402

MODELS, FITTING_MB, WAIT_S, READ_MB_S = 5, 50, 1.0, 10
ROUTERS = {"the fleet's": 0, "Ray's default, 1 per server": 1, "Ray's default, 2 per server": 2}


@dataclass
class Outcome:
    """What came of a trace: cold jobs, seconds of each job from submission to end, all seconds."""

    cold: int = 0
    took_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    ends: dict[str, int] = field(default_factory=dict)

    def percentile(self, share: float) -> float:
        """The time that *share* of the jobs stayed below."""
        ordered = sorted(self.took_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def make_base(folder: pathlib.Path) -> pathlib.Path:
    """A base directory with the models: one starter checkpoint, each time with other metadata."""
    import safetensors.torch

    checkpoints = folder / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    waiting_node.install(folder)
    shutil.copy(ROOT / "benchmarks" / "limited_reads.py", folder / "custom_nodes")
    weights = safetensors.torch.load_file(ROOT / "models" / "checkpoints" / "starter-digits.safetensors")
    with safetensors.safe_open(ROOT / "models" / "checkpoints" / "starter-digits.safetensors", "pt") as file:
        metadata = file.metadata() or {}
    for number in range(MODELS):
        safetensors.torch.save_file(weights, checkpoints / f"m{number}.safetensors", {**metadata, "copy": str(number)})
    return folder


@contextmanager
def running(settings: UpSettings) -> Iterator[Any]:
    """A fleet as *settings* say; gives the dispatcher's handle once all servers are up."""
    from ray import serve

    from fleet.on_ray import up
    from fleet.on_ray.deployments import DISPATCHER
    from fleet.on_ray.scaling import APPLICATION

    deploying = up.Deploying(settings)
    deploying.start()
    if not up.watch(settings, threading.Event(), deploying):
        raise SystemExit(f"the fleet cannot be started: {deploying.failure}")
    yield serve.get_deployment_handle(DISPATCHER, APPLICATION)
    serve.delete(APPLICATION)


async def run_job(fleet: Any, prompt: dict[str, Any], outcome: Outcome, number: int) -> None:
    """One job, from its submission to its end."""
    prompt_id = f"{number:08x}-0000-4000-8000-{random.getrandbits(48):012x}"
    began_s = time.perf_counter()
    state, entry = await fleet_chaos.to_the_end(fleet, Job(prompt_id, {"prompt": prompt, "prompt_id": prompt_id, "client_id": "bench"}))
    outcome.took_s.append(time.perf_counter() - began_s)
    outcome.ends[state] = outcome.ends.get(state, 0) + 1
    if state is JobState.SUCCEEDED:
        outcome.cold += any(receipt["tier"] == "disk" for receipt in (entry or {}).get("models") or ())


def trace(jobs: int) -> list[dict[str, Any]]:
    """Pictures by models whose popularity follows Zipf's law."""
    random_ = random.Random(1)
    weights = [1 / (rank + 1) for rank in range(MODELS)]
    models = random_.choices(range(MODELS), weights, k=jobs)
    return [text_to_picture(f"m{model}.safetensors", seed, f"a handwritten seven, number {seed}") for seed, model in enumerate(models)]


async def warm_up(fleet: Any) -> None:
    """Have every server import what pictures need, and forget the model."""
    async with aiohttp.ClientSession() as session:
        for view in await fleet.servers():
            body = {"prompt": text_to_picture("m0.safetensors", 0, "warm up"), "prompt_id": str(uuid.uuid4())}
            async with session.post(view.base_url + "/prompt", json=body) as answer:
                answer.raise_for_status()
            told: dict[str, Any] = {}
            while not told:
                await asyncio.sleep(fleet_chaos.LOOK_EVERY_S)
                async with session.get(f"{view.base_url}/history/{body['prompt_id']}") as answer:
                    told = await answer.json()
            async with session.post(view.base_url + "/free", json={"unload_models": True, "free_memory": True}) as answer:
                answer.raise_for_status()


async def run_trace(fleet: Any, prompts: list[dict[str, Any]], clients: int) -> Outcome:
    """*clients* that each have one job at a time."""
    await warm_up(fleet)
    outcome, numbered, began_s = Outcome(), iter(enumerate(prompts)), time.perf_counter()

    async def client() -> None:
        for number, prompt in numbered:
            await run_job(fleet, prompt, outcome, number)

    await asyncio.gather(*(client() for _ in range(clients)))
    outcome.seconds = time.perf_counter() - began_s
    return outcome


def line(name: str, one: Outcome) -> str:
    """A row of the table."""
    times = f"median {one.percentile(0.5):6.2f} s  p95 {one.percentile(0.95):6.2f} s  all {one.seconds:6.1f} s"
    return f"{name:<28} cold {one.cold:>3}  {times}  ends {json.dumps(one.ends)}"


def compare(settings: UpSettings, jobs: int, clients: int, check: bool) -> int:
    """Run the trace with each router; the exit status of ``--check``."""
    from fleet.on_ray.remote_fleet import RemoteFleet

    found: dict[str, Outcome] = {}
    for name, own in ROUTERS.items():
        with running(replace(settings, rays_own_router=own)) as dispatcher:
            found[name] = asyncio.run(run_trace(RemoteFleet(dispatcher), trace(jobs), clients))
        print(line(name, found[name]), flush=True)
    ours, *others = found.values()
    is_cold_enough = ours.cold * 3 <= others[0].cold
    is_fast_enough = ours.percentile(0.95) <= min(one.percentile(0.95) for one in others)
    print(f"cold jobs at most a third of Ray's default at one per server: {is_cold_enough}; p95 no worse than its best: {is_fast_enough}")
    return 0 if not check or (is_cold_enough and is_fast_enough) else 1


@asynccontextmanager
async def load(fleet: Any, jobs: int, clients: int) -> AsyncIterator[Outcome]:
    """Jobs that wait under way while the block runs; all done at its end."""
    outcome, numbers = Outcome(), iter(range(jobs))

    async def client() -> None:
        for number in numbers:
            await run_job(fleet, waiting_node.waiting(number, WAIT_S), outcome, number)

    running_clients = [asyncio.create_task(client()) for _ in range(clients)]
    yield outcome
    await asyncio.gather(*running_clients)


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="an exit status that says whether the fleet's router is as good as promised")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill -9 at so many random moments")
    parser.add_argument("--scale", action="store_true", help="1 → 3 → 1 servers under load")
    parser.add_argument("--jobs", type=int, default=0, help="default: 80; with --kills 200")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--servers", type=int, default=3)
    given = parser.parse_args(argv)
    from fleet.on_ray.up import cluster

    with tempfile.TemporaryDirectory() as folder:
        flags = ("--base-directory", str(make_base(pathlib.Path(folder) / "base")), "--cpu", *waiting_node.FLAGS)
        flags += ("limited_reads.py", "--ram-model-cache-mb", str(FITTING_MB))
        settings = UpSettings(
            given.servers, 0, folder=str(pathlib.Path(folder) / "fleet"), flags=flags, gpus_per_server=0.0, most_per_server=50
        )
        with cluster(settings):
            status = run(settings, given)
    left = [" ".join(process.cmdline()) for kind in ("server", *fleet_chaos.REPLICAS) for process in fleet_chaos.victims(kind)]
    print(f"processes left: {left}")
    return status or int(bool(left))


def run(settings: UpSettings, given: argparse.Namespace) -> int:
    """Do what the command line has *given*, on the cluster that runs; the exit status."""
    if given.kills:
        settings = replace(settings, gateways=2, port=free_port())
        url = f"http://127.0.0.1:{settings.port}"
        with running(settings) as dispatcher:
            return asyncio.run(fleet_chaos.kills(dispatcher, url, load, given.jobs or 200, given.clients, given.kills))
    if given.scale:
        with running(replace(settings, servers=1)) as dispatcher:
            return asyncio.run(fleet_chaos.scaling(dispatcher, load, given.jobs or 80, given.clients))
    return compare(settings, given.jobs or 80, given.clients, given.check)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ |= {"READ_LIMIT_MB_S": str(READ_MB_S), "READ_LIMIT_OF": "file"}
    sys.exit(main())
