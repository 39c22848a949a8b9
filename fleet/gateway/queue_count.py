"""How many jobs wait or run in the whole fleet, as clients are told."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fleet.interface import Fleet, FleetError

log = logging.getLogger(__name__)

PAUSE_S = 0.05
MOST_REMEMBERED = 10_000
# So long the fleet may still list a job whose end was heard here.
OVER_S = 5.0


class QueueCount:
    """Known at once from what this gateway hears; the fleet is asked soon after each sign of a change, and *changed* called if it says
    otherwise. On the gateway's loop."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float] = time.monotonic) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._fleet = fleet
        self._unfinished: set[str] = set()
        # The fleet may hear of an end later than the client's socket here.
        self._over: OrderedDict[str, float] = OrderedDict()
        self._clock = clock
        self._asking: asyncio.Task[None] | None = None
        self._is_due = False

    @property
    def remaining(self) -> int:
        """How many jobs wait or run."""
        return len(self._unfinished)

    def message(self) -> dict[str, Any]:
        """The data that ``GET /prompt`` and ``status`` messages tell."""
        return {"exec_info": {"queue_remaining": self.remaining}}

    def is_there(self, prompt_id: str) -> None:
        """A job was taken, perhaps under the id of an earlier one."""
        self._over.pop(prompt_id, None)
        self._unfinished.add(prompt_id)

    def is_over(self, prompt_id: str) -> None:
        """A job has ended."""
        self._unfinished.discard(prompt_id)
        self._over[prompt_id] = self._clock()
        if len(self._over) > MOST_REMEMBERED:
            self._over.popitem(last=False)

    def ask_soon(self) -> None:
        """Something changed somewhere."""
        self._is_due = True
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask(), name="queue-count")

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> None:
        while self._is_due:
            await asyncio.sleep(PAUSE_S)
            self._is_due = False
            try:
                told = {job.prompt_id for job in await self._fleet.jobs()}
            except FleetError as error:
                log.warning("The fleet cannot be asked for its jobs: %s", error)
                return
            before = self._unfinished
            since_s = self._clock() - OVER_S
            self._unfinished = {prompt_id for prompt_id in told if self._over.get(prompt_id, since_s) <= since_s}
            if self._unfinished != before:
                self.changed()
