"""The fleet as a gateway in another process has it: calls to the dispatcher's deployment."""

from collections.abc import Sequence
from typing import Any

import grpc
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from fleet.interface import FleetError
from fleet.values import Accepted, Decision, FleetEvent, Job, JobView, ServerView


def directly(handle: DeploymentHandle) -> DeploymentHandle:
    """*handle* with calls that go straight to the replica's own port, not as Ray tasks.

    Serve makes a generator of every call of the other kind, and Ray (2.60) holds up the whole loop of an actor while the answer of one
    cannot be handed to a caller that was killed: for up to three seconds nobody else was answered.
    """
    return handle.options(_by_reference=False)


class RemoteFleet:
    """``Fleet`` over *dispatcher*. What the dispatcher raises is raised here; what Ray raises, as ``FleetError``."""

    def __init__(self, dispatcher: DeploymentHandle) -> None:
        self._dispatcher = directly(dispatcher)

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await self._dispatcher.ask.remote(method, *arguments)
        except RayTaskError as error:
            if isinstance(error.cause, FleetError):
                raise error.cause from None
            raise FleetError(f"the fleet's dispatcher failed: {error.cause}") from error
        except (RayError, RayServeException, grpc.RpcError) as error:
            raise FleetError(f"the fleet's dispatcher cannot be reached: {error}") from error

    async def submit(self, job: Job) -> Accepted:
        accepted: Accepted = await self._call("submit", job)
        return accepted

    async def find(self, prompt_id: str) -> JobView | None:
        found: JobView | None = await self._call("find", prompt_id)
        return found

    async def jobs(self) -> list[JobView]:
        found: list[JobView] = await self._call("jobs")
        return found

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        entry: dict[str, Any] | None = await self._call("history", prompt_id)
        return entry

    async def note_end(self, prompt_id: str, server_id: str, entry: dict[str, Any]) -> None:
        await self._call("note_end", prompt_id, server_id, entry)

    async def histories(self, max_items: int | None = None, offset: int = -1) -> dict[str, dict[str, Any]]:
        entries: dict[str, dict[str, Any]] = await self._call("histories", max_items, offset)
        return entries

    async def forget(self, prompt_ids: Sequence[str] | None) -> None:
        await self._call("forget", None if prompt_ids is None else list(prompt_ids))

    async def cancel(self, prompt_id: str) -> bool:
        return bool(await self._call("cancel", prompt_id))

    async def interrupt_all(self) -> None:
        await self._call("interrupt_all")

    async def servers(self) -> list[ServerView]:
        found: list[ServerView] = await self._call("servers")
        return found

    async def decisions(self, limit: int = 100) -> list[Decision]:
        found: list[Decision] = await self._call("decisions", limit)
        return found

    async def events(self, after: int, timeout_s: float = 20.0) -> list[FleetEvent]:
        found: list[FleetEvent] = await self._call("events", after, timeout_s)
        return found
