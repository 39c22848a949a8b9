"""How many jobs clients are told that there are."""

import asyncio

from fleet.gateway.queue_count import QueueCount
from fleet.interface import FleetError
from fleet.values import JobState, JobView


class Fleet:
    """Says which jobs it has."""

    def __init__(self, *ids):
        self.ids, self.asked = list(ids), 0

    async def jobs(self):
        self.asked += 1
        if self.ids is None:
            raise FleetError("not now")
        return [JobView(one, JobState.WAITING) for one in self.ids]


async def settled(count):
    await asyncio.wait_for(count._asking, 5)


async def test_the_fleet_is_asked_once_for_many_signs_and_says_what_changed():
    fleet, told = Fleet("a", "b"), []
    count = QueueCount(fleet)
    count.changed = lambda: told.append(count.remaining)
    for _ in range(10):
        count.ask_soon()
    await settled(count)
    assert (fleet.asked, told, count.message()) == (1, [2], {"exec_info": {"queue_remaining": 2}})


async def test_an_end_that_was_heard_counts_before_the_fleet_knows():
    now = [0.0]
    fleet = Fleet("a", "b")
    count = QueueCount(fleet, clock=lambda: now[0])
    count.is_there("a")
    count.is_over("a")
    count.ask_soon()
    await settled(count)
    assert count.remaining == 1
    now[0] = 60.0
    count.ask_soon()
    await settled(count)
    assert count.remaining == 2, "by then the fleet would know, so it is another job of that id"


async def test_an_id_that_is_used_again_counts_again():
    count = QueueCount(Fleet())
    count.is_over("a")
    count.is_there("a")
    assert count.remaining == 1


async def test_a_fleet_that_cannot_be_asked_changes_nothing():
    fleet = Fleet("a")
    count = QueueCount(fleet)
    count.ask_soon()
    await settled(count)
    fleet.ids = None
    count.ask_soon()
    await settled(count)
    assert count.remaining == 1
    await count.close()
