"""How many servers a fleet should have, by the jobs that it has. Pure; standard library only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """Between *least* and *most* servers, about *jobs_per_server* jobs (waiting and running) on each.

    More servers are started when they have been too few for *grow_after_s*, one is taken away when they have been too many for
    *shrink_after_s*.
    """

    least: int = 1
    most: int = 1
    jobs_per_server: float = 2.0
    grow_after_s: float = 10.0
    shrink_after_s: float = 300.0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"a fleet has 1 server or more: it cannot have {self.least} to {self.most}")
        if self.jobs_per_server <= 0 or self.grow_after_s < 0 or self.shrink_after_s < 0:
            raise ValueError("jobs per server must be above 0, and times 0 s or more")


class FleetSize:
    """Remembers since when a fleet has been too small or too large. Ask :meth:`wanted` every second or so."""

    def __init__(self, limits: SizeLimits) -> None:
        self.limits = limits
        self._since_s: dict[bool, float] = {}

    def wanted(self, servers: int, jobs: int, now_s: float) -> int:
        """How many servers there should be now, when there are *servers* with *jobs* in all: all that are missing, or one fewer."""
        limits = self.limits
        fitting = min(limits.most, max(limits.least, -int(-jobs // limits.jobs_per_server)))
        if servers < limits.least:
            return limits.least
        if fitting == servers:
            self._since_s = {}
            return servers
        grows = fitting > servers
        since_s = self._since_s.setdefault(grows, now_s)
        self._since_s = {grows: since_s}
        if now_s - since_s < (limits.grow_after_s if grows else limits.shrink_after_s):
            return servers
        self._since_s = {}
        return fitting if grows else servers - 1
