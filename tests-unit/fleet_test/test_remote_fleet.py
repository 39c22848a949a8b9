"""A gateway's calls of the dispatcher: how they are made, and what their errors become."""

import pytest

pytest.importorskip("ray", reason="needs Ray Serve (requirements-fleet.txt)")
from ray.exceptions import ActorDiedError  # noqa: E402

from fleet.interface import FleetError  # noqa: E402
from fleet.on_ray.remote_fleet import RemoteFleet  # noqa: E402


class Handle:
    """A handle whose calls are answered by a function."""

    def __init__(self, answer):
        self.answer, self.given, self.ask = answer, {}, self

    def options(self, **given):
        self.given = given
        return self

    async def remote(self, method, *arguments):
        return self.answer(method, *arguments)


async def test_calls_do_not_go_through_rays_tasks():
    """As tasks they held up the dispatcher for seconds after a gateway was killed."""
    handle = Handle(lambda method, *arguments: (method, arguments))
    fleet = RemoteFleet(handle)
    assert handle.given == {"_by_reference": False}
    assert await fleet.find("a") == ("find", ("a",))
    assert await fleet.note_end("a", "s", {}) is None


async def test_a_dispatcher_that_is_gone_is_an_error_of_the_fleet():
    def die(*_):
        raise ActorDiedError()

    with pytest.raises(FleetError, match="cannot be reached"):
        await RemoteFleet(Handle(die)).jobs()
