"""What ``python -m fleet up`` is given."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UpSettings:
    """With *most_servers* above *servers* their number follows the jobs. *flags* go to every server. *address*: of a Ray cluster that runs
    already; None: one is started here, on loopback alone.

    *rays_own_router*: Ray Serve's default instead of the fleet's, with so many jobs per server, to compare them.
    """

    servers: int = 1
    most_servers: int = 0
    jobs_per_server: float = 2.0
    shrink_after_s: float = 300.0
    gateways: int = 1
    listen: str = "127.0.0.1"
    port: int = 8188
    address: str | None = None
    gpus_per_server: float | None = None
    most_per_server: int = 100
    folder: str = "user/fleet"
    shared_folders: bool = False
    allowed_host: tuple[str, ...] | list[str] = ()
    flags: tuple[str, ...] = ()
    rays_own_router: int = 0


@dataclass(frozen=True, slots=True)
class ScaleSettings:
    """What ``python -m fleet scale`` is given: *folder* of the fleet, with its token; *address* of the cluster, None for the one here."""

    servers: int
    address: str | None = None
    folder: str = "user/fleet"
