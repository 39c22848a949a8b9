"""The part of the server that running prompts see."""

from typing import Any, Protocol


class ExecutionServer(Protocol):
    """Sends messages to clients, and shows packs whose prompt runs. Changed only while no prompt runs or by the one that does."""

    client_id: str | None
    last_node_id: str | None
    last_prompt_id: str | None

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        """Queue a message to client *sid*, or to all. Any thread; never blocks."""

    def queue_updated(self) -> None:
        """Tell all clients how many prompts wait or run. Any thread."""
