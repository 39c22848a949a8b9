"""Starts a fleet, says how that goes, and ends it."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.on_ray.environment import LOOPBACK, prepare
from fleet.settings import ScaleSettings, UpSettings
from fleet.values import ServerState, ServerView

LOOK_EVERY_S = 0.3
OBJECT_STORE_BYTES = 200 * 1024**2
ROOT = Path(__file__).resolve().parents[2]


def say(text: str) -> None:
    """A line for whoever started the fleet."""
    print(text, flush=True)


@contextmanager
def cluster(settings: UpSettings) -> Iterator[None]:
    """A connection to the Ray cluster: the one at the settings' address, or one of this process's own, on loopback only."""
    prepare(Path(settings.folder), loopback=settings.address is None)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
    import ray
    from ray import serve

    quiet = {"log_to_driver": False, "logging_level": logging.WARNING}
    if settings.address is not None:
        ray.init(settings.address, **quiet)
    else:
        # Logical CPUs: they only count replicas.
        ray.init(
            "local",
            num_cpus=max(settings.servers, settings.most_servers) * 4 + 8,
            include_dashboard=False,
            _node_ip_address=LOOPBACK,
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
    try:
        serve.start(proxy_location="Disabled")
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


def scale(settings: ScaleSettings) -> int:
    """Bring a fleet that runs to another number of servers; returns the exit status."""
    prepare(Path(settings.folder), loopback=settings.address is None)
    import ray
    from ray import serve

    from fleet.interface import FleetError
    from fleet.on_ray.deployments import DISPATCHER
    from fleet.on_ray.scaling import APPLICATION

    ray.init(settings.address or "auto", log_to_driver=False, logging_level=logging.WARNING)
    try:
        taken = serve.get_deployment_handle(DISPATCHER, APPLICATION).scale.remote(settings.servers).result()
    except FleetError as error:
        say(f"The fleet cannot be scaled: {error}")
        return 1
    finally:
        ray.shutdown()
    say(f"The fleet has {settings.servers} server{'s' * (settings.servers > 1)}." + f" Taken away: {', '.join(taken)}" * bool(taken))
    return 0


def up(settings: UpSettings) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    say("Starting Ray …")
    with cluster(settings):
        deploying = Deploying(settings)
        deploying.start()
        say(f"Starting {settings.servers} server{'s' * (settings.servers > 1)}; logs are in {Path(settings.folder).resolve()} …")
        if watch(settings, stopping, deploying):
            say(f"The page of the whole fleet: http://{settings.listen}:{settings.port}" if settings.gateways else "All servers are up.")
            stopping.wait()
        elif deploying.failure:
            say(f"The fleet cannot be started: {deploying.failure}")
        say("Ending the servers …")
    return 1 if deploying.failure else 0


class Deploying(threading.Thread):
    """Brings the application up, on a thread of its own; *failure* says why that did not work."""

    def __init__(self, settings: UpSettings) -> None:
        super().__init__(name="fleet-deploy", daemon=True)
        self._settings, self.failure = settings, ""

    def run(self) -> None:
        """Deploy, once."""
        try:
            deploy(self._settings)
        except Exception as error:
            self.failure = f"{error}\n{messages()}"


def deploy(settings: UpSettings) -> None:
    """Have Serve bring the application to what *settings* say; blocks until it is."""
    import ray
    from ray import serve

    from fleet.on_ray.app import FleetArguments, build
    from fleet.on_ray.scaling import APPLICATION

    gpus = settings.gpus_per_server
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= settings.servers else 0.0
    arguments = FleetArguments(
        servers=settings.servers,
        most_servers=settings.most_servers,
        jobs_per_server=settings.jobs_per_server,
        shrink_after_s=settings.shrink_after_s,
        gateways=settings.gateways,
        flags=list(settings.flags),
        folder=settings.folder,
        listen=settings.listen,
        port=settings.port,
        gpus_per_server=gpus,
        most_per_server=settings.most_per_server,
        own_folders=not settings.shared_folders,
        allowed_hosts=list(settings.allowed_host),
        rays_own_router=settings.rays_own_router,
    )
    serve.run(build(arguments), name=APPLICATION, route_prefix=None, external_scaler_enabled=True)


def watch(settings: UpSettings, stopping: threading.Event, deploying: Deploying) -> bool:
    """Print a line for each server that comes up, until all are; False when told to stop before, or when *deploying* has failed."""
    began_s, seen = time.monotonic(), set[str]()
    while not stopping.wait(LOOK_EVERY_S) and not deploying.failure:
        for view in servers_now():
            if view.state is ServerState.READY and view.server_id not in seen:
                seen.add(view.server_id)
                took_s = time.monotonic() - began_s
                say(f"  server {len(seen)} of {settings.servers}: {view.base_url} ({view.accelerator}) is up after {took_s:.1f} s")
        if len(seen) >= settings.servers and is_running():
            return True
    return False


def servers_now() -> list[ServerView]:
    """The servers that the dispatcher knows; none while it is starting."""
    from ray import serve

    from fleet.on_ray.deployments import DISPATCHER
    from fleet.on_ray.scaling import APPLICATION

    status = serve.status().applications.get(APPLICATION)
    deployment = None if status is None else status.deployments.get(DISPATCHER)
    if deployment is None or deployment.status != "HEALTHY":
        return []
    found: list[ServerView] = serve.get_deployment_handle(DISPATCHER, APPLICATION).ask.remote("servers").result(timeout_s=10)
    return found


def messages() -> str:
    """What Serve says of the deployments that are not well."""
    from ray import serve

    from fleet.on_ray.scaling import APPLICATION

    status = serve.status().applications.get(APPLICATION)
    deployments = {} if status is None else status.deployments
    return "\n".join(f"{name}: {one.message}" for name, one in deployments.items() if one.message)


def is_running() -> bool:
    """Whether everything is up, the gateways included."""
    from ray import serve

    from fleet.on_ray.scaling import APPLICATION

    status = serve.status().applications.get(APPLICATION)
    return status is not None and status.status == "RUNNING"
