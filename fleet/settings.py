"""What ``python -m fleet up`` is given."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UpSettings:
    """*flags* go to every server. *address*: of a Ray cluster that runs already; None: one is started here, on loopback alone.

    *rays_own_router*: Ray Serve's default instead of the fleet's, with so many jobs per server, to compare them.
    """

    servers: int = 1
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
