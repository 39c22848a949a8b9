"""Carries jobs to servers that this process supervises itself: a fleet without Ray, on one machine."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping

from fleet.messages import NotRun, Reply, SentJob
from fleet.replica import Replica

Place = Callable[[SentJob, Collection[str]], str | None]


class LocalSender:
    """Over *replicas* by server id, which may change; *place* is :meth:`Dispatcher.place`, set once there is a dispatcher."""

    def __init__(self, replicas: Mapping[str, Replica]) -> None:
        self._replicas = replicas
        self.place: Place = lambda sent, present: None

    async def send(self, sent: SentJob) -> AsyncIterator[Reply]:
        """The replies of the replica that is chosen."""
        server_id = self.place(sent, self._replicas.keys())
        if server_id is None:
            yield NotRun("no server has room")
            return
        async for reply in self._replicas[server_id].run(sent):
            yield reply
