"""Holds what jobs need to reach their server, shared by all jobs of a worker."""

from dataclasses import dataclass

from serverless.model_caching import ModelCaching
from serverless.node_facts import NodeFacts
from serverless.prompt_end import Patience
from serverless.result_storage import ResultStorage
from serverless.server_api import ServerApi
from serverless.server_availability import Availability
from serverless.server_events import ServerEvents
from serverless.settings import WorkerSettings

LEAST_PATIENCE_S = 1.0


@dataclass(slots=True)
class ServerLink:
    """*storage* None: results go back as base64. *caching* None: the server was not asked yet. Lives on one loop."""

    settings: WorkerSettings
    api: ServerApi
    events: ServerEvents
    facts: NodeFacts
    storage: ResultStorage | None
    caching: ModelCaching | None = None

    @property
    def tells_models(self) -> bool:
        """Whether the server's history says where models came from."""
        return self.caching is not None and self.caching.keeps_models

    def availability(self) -> Availability:
        """How long the server may take to start."""
        return Availability(self.settings.available_interval_s, self.settings.available_retries, self.settings.pid_file)

    def patience(self) -> Patience:
        """How long it may be away during a job."""
        away_s = self.settings.reconnect_attempts * self.settings.reconnect_delay_s
        return Patience(self.settings.poll_interval_s, max(away_s, LEAST_PATIENCE_S))

    async def close(self) -> None:
        """End the connections."""
        await self.events.close()
        await self.api.close()
