"""The simulated fleet of ``routing.py``: traces, servers with a cache of models each, and what came of it."""

import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

GB = 10**9


@dataclass(slots=True)
class SimJob:
    """One job: the models it needs, seconds it computes, when it comes (None: when a client is free)."""

    number: int
    models: tuple[str, ...]
    compute_s: float
    arrival_s: float | None
    started_s: float = 0.0
    load_s: float = 0.0


@dataclass(frozen=True)
class Trace:
    """Traffic: *models* are (bytes, seconds to load) by name; *clients* None: jobs come at times of their own."""

    name: str
    description: str
    servers: int
    cap_bytes: int
    models: dict[str, tuple[int, float]]
    jobs: list[SimJob]
    clients: int | None = None

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Trace":
        """Make the traffic that *document* describes."""
        random_ = random.Random(document["seed"])
        models = {f"m{index}": (int(gb * GB), load_s) for index, (gb, load_s) in enumerate(document["models"])}
        jobs = list(_jobs(document, random_, list(models)))
        cap_bytes = int(document["cap_gb"] * GB)
        return cls(document["name"], document["description"], document["servers"], cap_bytes, models, jobs, document.get("clients"))

    @classmethod
    def large(cls, servers: int, jobs: int) -> "Trace":
        """400 models of 2 to 24 GB on many servers at about 80 % load."""
        random_ = random.Random(7)
        models = [[size, size / 2] for size in (random_.choice((2, 4, 7, 12, 24)) for _ in range(400))]
        mean_s = 6.0
        made = {
            "name": f"large-{servers}x{jobs}",
            "description": "400 models, Zipf, 80 % load",
            "seed": 8,
            "servers": servers,
            "cap_gb": 48,
            "models": models,
            "jobs": jobs,
            "zipf": 0.9,
            "compute_s": [2.0, 10.0],
            "every_s": mean_s / servers / 0.8,
        }
        return cls.from_document(made)

    def bounds(self) -> tuple[float, float]:
        """(seconds of all servers together, when the last job ends) that no router can beat."""
        used = {model for job in self.jobs for model in job.models}
        busy_s = sum(job.compute_s for job in self.jobs) + sum(self.models[model][1] for model in used)
        last_s = max((job.arrival_s or 0.0) + job.compute_s for job in self.jobs)
        return busy_s, max(busy_s / self.servers, last_s)


def _jobs(document: dict[str, Any], random_: random.Random, names: list[str]) -> Iterator[SimJob]:
    """The jobs of a trace: popularity by Zipf's law, shuffled anew every *drift* jobs, *flood* of the hottest between, *extras* on top."""
    order = list(names[: document.get("bases", len(names))])
    extras = names[len(order) :]
    # Added up once: that is most of the work of drawing a million models.
    weights = list(itertools.accumulate(1 / (rank + 1) ** document["zipf"] for rank in range(len(order))))
    now_s, low, high = 0.0, *document["compute_s"]
    factors = {name: random_.uniform(low, high) for name in names}
    flood_every, flood = document.get("flood", (0, 0))
    for number in range(document["jobs"]):
        if document.get("drift") and number and number % document["drift"] == 0:
            random_.shuffle(order)
        in_flood = flood_every and number % flood_every < flood
        base = order[0] if in_flood else random_.choices(order, cum_weights=weights)[0]
        more = (random_.choice(extras),) if extras and random_.random() < document.get("extra_share", 0.5) else ()
        if document.get("every_s"):
            now_s += random_.expovariate(1 / document["every_s"]) / (document.get("flood_speed", 1.0) if in_flood else 1.0)
        arrival_s = None if document.get("clients") else now_s
        yield SimJob(number, (base, *more), factors[base] * random_.uniform(0.8, 1.2), arrival_s)


class Policy(Protocol):
    """A router under test. It sees what a router can see: arrivals, and ends with what they took."""

    def place(self, job: SimJob, now_s: float) -> tuple[int, float]:
        """(server, what its queue is ordered by: the least first)."""

    def ended(self, job: SimJob, server: int, now_s: float) -> None:
        """*job* has ended there; ``load_s`` and ``compute_s`` say what it took."""


@dataclass(slots=True)
class SimServer:
    """Runs one job at a time; models in memory, least recently used first."""

    cap_bytes: int
    queue: list[tuple[float, int, SimJob]] = field(default_factory=list)
    warm: dict[str, int] = field(default_factory=dict)
    warm_bytes: int = 0
    is_busy: bool = False

    def start(self, models: dict[str, tuple[int, float]], now_s: float) -> tuple[float, SimJob]:
        """Take the first job; returns when it ends, and the job."""
        _, _, job = heapq.heappop(self.queue)
        self.is_busy = True
        job.started_s, job.load_s = now_s, 0.0
        for name in job.models:
            size, seconds = models[name]
            if name in self.warm:
                self.warm[name] = self.warm.pop(name)
                continue
            job.load_s += seconds
            while self.warm and self.warm_bytes + size > self.cap_bytes:
                oldest = next(iter(self.warm))
                if oldest in job.models:
                    break
                self.warm_bytes -= self.warm.pop(oldest)
            self.warm[name] = size
            self.warm_bytes += size
        return now_s + job.load_s + job.compute_s, job


@dataclass
class Outcome:
    """What came of a trace: seconds all servers spent, jobs that loaded something, when the last ended, how long each took."""

    busy_s: float = 0.0
    cold_jobs: int = 0
    end_s: float = 0.0
    took_s: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """The time that *share* of the jobs stayed below, from arrival to end."""
        ordered = sorted(self.took_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def longest_s(self) -> float:
        """The longest from arrival to end."""
        return max(self.took_s)


ARRIVAL, END = 0, 1


def simulate(trace: Trace, policy: Policy) -> Outcome:
    """Run *trace* under *policy*."""
    servers = [SimServer(trace.cap_bytes) for _ in range(trace.servers)]
    outcome, came_s = Outcome(), [0.0] * len(trace.jobs)
    events: list[tuple[float, int, int, int, SimJob | None]] = []
    waiting = iter(trace.jobs)
    count = trace.clients if trace.clients is not None else 1
    for _ in range(count):
        _announce(events, next(waiting, None), 0.0)
    while events:
        now_s, kind, _, index, job = heapq.heappop(events)
        assert job is not None
        if kind == ARRIVAL:
            came_s[job.number] = now_s
            index, order = policy.place(job, now_s)
            heapq.heappush(servers[index].queue, (order, job.number, job))
            if trace.clients is None:
                _announce(events, next(waiting, None), now_s)
        else:
            servers[index].is_busy = False
            outcome.busy_s += job.load_s + job.compute_s
            outcome.cold_jobs += job.load_s > 0
            outcome.end_s = now_s
            outcome.took_s.append(now_s - came_s[job.number])
            policy.ended(job, index, now_s)
            if trace.clients is not None:
                _announce(events, next(waiting, None), now_s)
        server = servers[index]
        if not server.is_busy and server.queue:
            end_s, started = server.start(trace.models, now_s)
            heapq.heappush(events, (end_s, END, started.number, index, started))
    return outcome


def _announce(events: list[tuple[float, int, int, int, SimJob | None]], job: SimJob | None, now_s: float) -> None:
    if job is not None:
        heapq.heappush(events, (now_s if job.arrival_s is None else job.arrival_s, ARRIVAL, job.number, -1, job))
