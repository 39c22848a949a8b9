"""The routers that ``routing.py`` compares: the product's, and what else people use."""

import bisect
import hashlib
import random
from collections.abc import Callable

from routing_simulation import Policy, SimJob, Trace

from fleet.books import FleetBooks, Work
from fleet.routing import DEFAULT_WEIGHTS, Weights, choose
from fleet.values import EndedPrompt, ModelFile

FOLDER = "checkpoints"


class Ours:
    """The product's router over books that receipts correct; what a load takes is known from the second time on."""

    def __init__(self, trace: Trace, weights: Weights | None = None) -> None:
        self._books = FleetBooks()
        self._models = trace.models
        self._sizes = {name: ModelFile(FOLDER, name, name, size) for name, (size, _) in trace.models.items()}
        for index in range(trace.servers):
            self._books.add(str(index), self._sizes.values(), trace.cap_bytes)
        self._weights = weights or DEFAULT_WEIGHTS

    def place(self, job: SimJob, now_s: float) -> tuple[int, float]:
        work = Work(str(job.number), tuple((FOLDER, name) for name in job.models), job.models[0])
        choice = choose(work, self._books.candidates(work.needs, now_s), now_s, self._weights, self._books.copies)
        assert choice is not None
        order = now_s + choice.delay_s
        self._books.send(choice.server_id, work, now_s)
        return int(choice.server_id), order

    def ended(self, job: SimJob, server: int, now_s: float) -> None:
        if job.load_s:
            for name in job.models:
                size, seconds = self._models[name]
                self._books.durations.learn_load(name, seconds, size)
        ended = EndedPrompt(str(job.number), "success", job.load_s + job.compute_s, job.load_s)
        self._books.end(str(server), ended, now_s)


class Counting:
    """The base of routers that count the jobs at each server."""

    def __init__(self, trace: Trace) -> None:
        self.random, self.jobs = random.Random(0), [0] * trace.servers

    def pick(self, job: SimJob, now_s: float) -> int:
        raise NotImplementedError

    def place(self, job: SimJob, now_s: float) -> tuple[int, float]:
        server = self.pick(job, now_s)
        self.jobs[server] += 1
        return server, now_s

    def ended(self, job: SimJob, server: int, now_s: float) -> None:
        self.jobs[server] -= 1


class Random(Counting):
    """Anywhere."""

    def pick(self, job: SimJob, now_s: float) -> int:
        return self.random.randrange(len(self.jobs))


class LeastQueue(Counting):
    """Where the fewest jobs are."""

    def pick(self, job: SimJob, now_s: float) -> int:
        return min(range(len(self.jobs)), key=lambda server: (self.jobs[server], self.random.random()))


class TwoChoices(Counting):
    """Ray Serve's default: the less busy one of two."""

    def pick(self, job: SimJob, now_s: float) -> int:
        one, other = (self.random.randrange(len(self.jobs)) for _ in range(2))
        return one if self.jobs[one] <= self.jobs[other] else other


class BoundedHashing(Counting):
    """Consistent hashing by the first model; a server with over 1.25 times the mean of jobs is passed over."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._ring = sorted((_hash(f"{server}/{copy}"), server) for server in range(trace.servers) for copy in range(64))

    def pick(self, job: SimJob, now_s: float) -> int:
        bound = 1.25 * (sum(self.jobs) + 1) / len(self.jobs)
        start = bisect.bisect(self._ring, (_hash(job.models[0]), -1))
        for step in range(len(self._ring)):
            server = self._ring[(start + step) % len(self._ring)][1]
            if self.jobs[server] + 1 <= max(1.0, bound):
                return server
        return self._ring[start % len(self._ring)][1]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


POLICIES: dict[str, Callable[[Trace], Policy]] = {
    "random": Random,
    "least queue": LeastQueue,
    "two choices (Ray)": TwoChoices,
    "bounded hashing": BoundedHashing,
    "ours": Ours,
}
