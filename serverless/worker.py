"""The worker: takes jobs, keeps its connection to the server, and answers each job once."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from serverless.job_errors import JobFailed, not_reachable
from serverless.job_progress import ProgressReport
from serverless.job_registry import JobRegistry, job_key
from serverless.job_run import JobRun
from serverless.model_caching import ModelCaching, configure_model_caching
from serverless.network_volume import diagnosis
from serverless.node_facts import NodeFacts
from serverless.result_storage import ResultStorage, StorageError
from serverless.server_api import ServerApi, ServerUnreachable
from serverless.server_events import ServerEvents
from serverless.server_link import ServerLink
from serverless.settings import WorkerSettings

log = logging.getLogger(__name__)

StorageFactory = Callable[[WorkerSettings], ResultStorage | None]


def storage_from(settings: WorkerSettings) -> ResultStorage | None:
    """The bucket of the settings, None when results go back as base64. Raises ``StorageError``."""
    return None if settings.bucket is None else ResultStorage(settings.bucket)


class Worker:
    """Owns the connection. All jobs run on the loop of the first one; on another loop everything is made again."""

    def __init__(self, settings: WorkerSettings, make_storage: StorageFactory = storage_from) -> None:
        self._settings = settings
        self._make_storage = make_storage
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: ServerLink | None = None
        self._registry = JobRegistry()
        self._connecting = asyncio.Lock()

    async def handle(self, job: Mapping[str, Any], report_progress: ProgressReport = lambda progress: None) -> dict[str, Any]:
        """The result of ``job["input"]``: see docs/reference/worker.md. Two calls with the same id and input run once."""
        job_id = str(job.get("id") or uuid.uuid4())
        job_input = job.get("input")
        try:
            link = self._open_link()
        except StorageError as error:
            return self._finished({"error": str(error)})
        if self._settings.network_volume_debug:
            for line in await asyncio.to_thread(lambda: list(diagnosis())):
                log.info("%s", line)
        result = await self._registry.run(
            job_key(job_id, job_input), lambda: JobRun(link, job_id, job_input, report_progress, self._connect).run()
        )
        return self._finished(result)

    async def configure(self) -> ModelCaching | None:
        """Wait for the server and log what it keeps warm; None when it did not answer. Called again by itself after a reconnect."""
        try:
            await self._connect()
        except (JobFailed, StorageError) as error:
            log.warning("%s", error)
            return None
        assert self._link is not None
        return self._link.caching

    @property
    def is_connected(self) -> bool:
        """Whether the socket to the server is open."""
        return self._link is not None and self._link.events.is_connected

    async def close(self) -> None:
        """End the connections."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _finished(self, result: dict[str, Any]) -> dict[str, Any]:
        if self._settings.refresh_worker:
            result["refresh_worker"] = True
        return result

    def _open_link(self) -> ServerLink:
        loop = asyncio.get_running_loop()
        if self._link is None or self._loop is not loop:
            api = ServerApi(self._settings.base_url)
            events = ServerEvents(api, self._settings.client_id, self._settings.reconnect_delay_s, self._settings.websocket_trace)
            self._link = ServerLink(self._settings, api, events, NodeFacts(api), self._make_storage(self._settings))
            self._loop, self._registry, self._connecting = loop, JobRegistry(), asyncio.Lock()
        return self._link

    async def _connect(self) -> None:
        """Open the socket, waiting for the server if necessary. Raises ``JobFailed``."""
        link = self._open_link()
        async with self._connecting:
            if link.events.is_connected and link.caching is not None:
                return
            try:
                await link.events.connect()
            except ServerUnreachable as error:
                log.info("waiting for the server: %s", error)
                if not await link.availability().wait(link.api):
                    raise not_reachable(self._settings.host) from None
                await self._connect_now(link)
            link.facts.forget()
            link.caching = await configure_model_caching(link.api)

    async def _connect_now(self, link: ServerLink) -> None:
        try:
            await link.events.connect()
        except ServerUnreachable as error:
            raise JobFailed(f"WebSocket communication error: {error}") from None
