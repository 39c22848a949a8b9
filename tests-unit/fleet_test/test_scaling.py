"""Scaling a fleet in front of a controller that, like Ray Serve's, replaces what was killed until it hears of the new number."""

import asyncio

import pytest

pytest.importorskip("ray", reason="needs Ray Serve (requirements-fleet.txt)")

from fleet.fleet_size import FleetSize, SizeLimits  # noqa: E402
from fleet.on_ray import scaling  # noqa: E402


class Serve:
    """Servers by id, and how many there should be. *busy* ones have jobs."""

    def __init__(self, *servers):
        self.servers, self.starting, self.target = list(servers), 0, len(servers)
        self.busy, self.drained, self.lost_ones, self.jobs = set(), [], [], 0

    async def cheapest_to_lose(self):
        left = [one for one in self.servers if one not in self.drained]
        return min(left, default=None)

    async def drain(self, server_id):
        self.drained.append(server_id)
        if server_id in self.busy:
            self.busy.discard(server_id)  # its job ends meanwhile
            return False
        return True

    async def lost(self, server_id):
        self.lost_ones.append(server_id)

    async def unfinished(self):
        return self.jobs

    def kill(self, server_id):
        assert server_id in self.drained and server_id not in self.busy
        self.servers.remove(server_id)
        self.starting = self.target - len(self.servers)

    async def set_target(self, servers):
        self.target = servers
        self.starting = 0
        self.servers += [f"new{number}" for number in range(servers - len(self.servers))]


@pytest.fixture
def serve(monkeypatch):
    made = Serve("a", "b", "c")
    monkeypatch.setattr(scaling, "_kill", made.kill)
    monkeypatch.setattr(scaling, "_target", made.set_target)
    monkeypatch.setattr(scaling, "_running", lambda: len(made.servers))
    monkeypatch.setattr(scaling, "_placed", lambda: len(made.servers) + made.starting)
    monkeypatch.setattr(scaling, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(scaling, "DECIDE_EVERY_S", 0.0)
    return made


async def test_those_that_cost_least_go_once_their_jobs_have_ended_and_no_more_than_asked_for(serve):
    serve.busy = {"a"}
    assert await scaling.Scaling(serve, None).to(1) == ["a", "b"]
    assert (serve.servers, serve.lost_ones, serve.target) == (["c"], ["a", "b"], 1)
    assert await scaling.Scaling(serve, None).to(3) == [] and len(serve.servers) == 3


async def test_without_a_server_that_is_up_the_fleet_stays_as_it_is(serve, caplog):
    serve.drained = ["a", "b", "c"]
    assert await scaling.Scaling(serve, None).to(1) == [] and "No server is up" in caplog.text and len(serve.servers) == 3


async def test_the_size_follows_the_jobs_and_an_error_does_not_end_that(serve, monkeypatch, caplog):
    limits = SizeLimits(least=1, most=5, jobs_per_server=2.0, grow_after_s=0.0, shrink_after_s=0.0)
    size = scaling.Scaling(serve, FleetSize(limits))
    assert size.is_automatic and not scaling.Scaling(serve, None).is_automatic
    failures = [RuntimeError("the controller is away")]

    async def unfinished():
        if failures:
            raise failures.pop()
        return serve.jobs

    serve.unfinished, serve.jobs = unfinished, 9
    size.start()
    async with asyncio.timeout(30):
        while len(serve.servers) != 5:
            await asyncio.sleep(0)
        serve.jobs = 0
        while len(serve.servers) != 1:
            await asyncio.sleep(0)
    await size.close()
    assert "could not be changed" in caplog.text
