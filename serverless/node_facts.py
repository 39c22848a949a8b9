"""Finds out which node classes get their id, asking the server once per class."""

import asyncio
import logging
from collections.abc import Iterable

from serverless.server_api import ServerAnswer, ServerApi, ServerUnreachable
from serverless.workflow_normalization import classes_that_search_the_page_workflow, classes_told_their_id

log = logging.getLogger(__name__)

AT_ONCE = 8


class NodeFacts:
    """Remembers what ``/object_info`` says about classes. Call ``forget`` when the server may be another one."""

    def __init__(self, api: ServerApi) -> None:
        self._api = api
        self._known: set[str] = set()
        self._told: set[str] = set()
        self._searching: set[str] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)

    def forget(self) -> None:
        """Ask again from now on."""
        self._known.clear()
        self._told.clear()
        self._searching.clear()

    async def learn(self, class_types: Iterable[str]) -> None:
        """Make sure that *class_types* are known. A server that does not answer leaves them for the next time."""
        await asyncio.gather(*(self._learn_one(name) for name in sorted(set(class_types) - self._known)))

    @property
    def told(self) -> frozenset[str]:
        """The classes with a hidden ``UNIQUE_ID``."""
        return frozenset(self._told)

    @property
    def searching(self) -> frozenset[str]:
        """Those that are given the page's workflow as well."""
        return frozenset(self._searching)

    async def _learn_one(self, class_type: str) -> None:
        async with self._slots:
            try:
                info = await self._api.object_info(class_type)
            except (ServerUnreachable, ServerAnswer, ValueError) as error:
                log.warning("The server does not tell about node class %s: %s", class_type, error)
                return
        self._known.add(class_type)
        self._told |= classes_told_their_id(info)
        self._searching |= classes_that_search_the_page_workflow(info)
