"""Queue rows and history entries of the whole fleet, with files named by their server."""

import asyncio
import contextlib
import logging
from typing import Any

from comfy_execution.jobs import validate_job_id
from fleet.gateway.file_marks import marked_outputs
from fleet.gateway.server_list import ServerList
from fleet.gateway.upstream import ASK_TIMEOUT_S, ServerSilent, Upstream
from fleet.interface import Fleet
from fleet.values import JobState, JobView

log = logging.getLogger(__name__)

NOTE_TIMEOUT_S = 5.0
Row = list[Any]
Entry = dict[str, Any]


class Histories:
    """Asked anew each time: the fleet keeps entries, servers keep queues. On the gateway's loop."""

    def __init__(self, fleet: Fleet, servers: ServerList, upstream: Upstream) -> None:
        self._fleet, self._servers, self._upstream = fleet, servers, upstream
        # Of ended jobs; it does not change any more.
        self._makers: dict[str, str | None] = {}

    async def rows(self) -> tuple[list[Row], list[Row]]:
        """What runs and what waits, on all servers and on the way to one; waiting rows in the order of their numbers."""
        told = await self._upstream.get_json_from_all(self._servers.reachable(), "/queue")
        running: list[Row] = []
        waiting: list[Row] = []
        for queue in told.values():
            if isinstance(queue, dict):
                running += [row for row in queue.get("queue_running") or () if isinstance(row, list) and len(row) > 3]
                waiting += [row for row in queue.get("queue_pending") or () if isinstance(row, list) and len(row) > 3]
        known = {str(row[1]) for row in (*running, *waiting)}
        waiting += [_row_of(job) for job in await self._fleet.jobs() if job.state is JobState.PLACING and job.prompt_id not in known]
        return running, sorted(waiting, key=lambda row: row[0] if isinstance(row[0], int | float) else 0)

    async def entry(self, prompt_id: str) -> Entry | None:
        """The entry of a job that has ended; None while it has not, and for unknown ids."""
        return (await self.entry_and_view(prompt_id))[0]

    async def entry_and_view(self, prompt_id: str) -> tuple[Entry | None, JobView | None]:
        """The same with what the fleet knows of the job.

        A client may ask before the fleet has heard of an end: then the server is asked, and the fleet notes what it says before anybody
        else hears it.
        """
        view, entry = await self._fleet.find(prompt_id), None
        if view is None:
            return await self._entry_of_strangers(prompt_id), None
        if view.state.is_end and view.state is not JobState.LOST:
            entry = await self._fleet.history(prompt_id)
        elif view.state is JobState.LOST:
            return await self._fleet.history(prompt_id), view
        else:
            with contextlib.suppress(ServerSilent):
                entry = await self._noted_entry(prompt_id, view.server_id, view.base_url)
        return self._marked(entry, view.server_id), view

    async def note(self, prompt_id: str, server_id: str) -> bool:
        """Have the fleet note the end of a job, of which its server has just told; false when that server can tell no more, and the
        fleet has heard nothing else: it will say how the job ended."""
        try:
            await self._noted_entry(prompt_id, server_id, self._servers.url_of(server_id), NOTE_TIMEOUT_S)
            return True
        except ServerSilent as error:
            log.warning("The end of job %s cannot be noted: %s", prompt_id, error)
        view = await self._fleet.find(prompt_id)
        return view is None or (view.state.is_end and view.state is not JobState.LOST)

    async def _noted_entry(
        self, prompt_id: str, server_id: str | None, base_url: str | None, timeout_s: float = ASK_TIMEOUT_S
    ) -> Entry | None:
        """What the job's server has in its history, which the fleet has then too. Raises ``ServerSilent``."""
        if server_id is None or base_url is None:
            return None
        told = await self._upstream.get_json(base_url, f"/history/{prompt_id}", timeout_s)
        entry = told.get(prompt_id) if isinstance(told, dict) else None
        if not isinstance(entry, dict):
            return None
        await self._fleet.note_end(prompt_id, server_id, entry)
        return entry

    async def _entry_of_strangers(self, prompt_id: str) -> Entry | None:
        """Of a job that the fleet does not know: it was given to a server directly, or the fleet has forgotten it."""
        try:
            validate_job_id(prompt_id)
        except ValueError:
            return None
        told = await self._upstream.get_json_from_all(self._servers.reachable(), f"/history/{prompt_id}")
        for server_id, entries in told.items():
            if isinstance(entries, dict) and isinstance(entries.get(prompt_id), dict):
                return self._marked(entries[prompt_id], server_id)
        return None

    async def entries(self, max_items: int | None = None, offset: int = -1) -> dict[str, Entry]:
        """Entries by id, oldest first, chosen as ``GET /history`` does."""
        entries = await self._fleet.histories(max_items, offset)
        self._makers = {prompt_id: maker for prompt_id, maker in self._makers.items() if prompt_id in entries or max_items is not None}
        makers = await asyncio.gather(*(self._maker_of(prompt_id) for prompt_id in entries))
        return {key: self._marked(entry, maker) or {} for (key, entry), maker in zip(entries.items(), makers, strict=True)}

    async def _maker_of(self, prompt_id: str) -> str | None:
        if prompt_id not in self._makers:
            view = await self._fleet.find(prompt_id)
            self._makers[prompt_id] = None if view is None or view.state is JobState.LOST else view.server_id
        return self._makers[prompt_id]

    @staticmethod
    def _marked(entry: Entry | None, server_id: str | None) -> Entry | None:
        if entry is None or server_id is None:
            return entry
        return {**entry, "outputs": marked_outputs(entry.get("outputs") or {}, server_id)}


def _row_of(job: JobView) -> Row:
    """The row of a job that no server has yet; its prompt is not told."""
    extra_data = {"create_time": int(job.submitted_s * 1000)}
    return [job.number, job.prompt_id, {}, extra_data if job.client_id is None else {**extra_data, "client_id": job.client_id}, []]
