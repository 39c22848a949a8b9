"""Who decides, in this process, which server a job goes to."""

import asyncio
from collections.abc import Callable, Collection

from fleet.messages import SentJob

Place = Callable[[SentJob, Collection[str]], str | None]


class Placement:
    """Lets routers, which Ray runs on a thread of its own, ask the dispatcher on its loop."""

    def __init__(self) -> None:
        self._place: Place | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def use(self, place: Place, loop: asyncio.AbstractEventLoop) -> None:
        """Have *place* decide, called on *loop*."""
        self._place, self._loop = place, loop

    async def decide(self, sent: SentJob, present: Collection[str]) -> str | None:
        """The server for *sent* among those *present*; None when none can take it now, or nobody decides here. Any loop."""
        if self._place is None or self._loop is None:
            return None
        decided = asyncio.run_coroutine_threadsafe(self._decide(self._place, sent, present), self._loop)
        return await asyncio.wrap_future(decided)

    async def _decide(self, place: Place, sent: SentJob, present: Collection[str]) -> str | None:
        return place(sent, present)


placement = Placement()
