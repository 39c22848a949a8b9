"""Handing a prompt to the fleet, for ``/prompt`` and for Comfy API v2 alike."""

from collections.abc import Mapping
from typing import Any

from app.files.off_loop import off_loop
from app.running.submission import Submission, SubmissionRefused, requested_number, wants_front
from fleet.gateway.client_hub import ClientHub
from fleet.gateway.inputs import Inputs, NamedFiles, named_files
from fleet.gateway.queue_count import QueueCount
from fleet.interface import DuplicateJob, Fleet
from fleet.values import Accepted, Job


class Submitting:
    """Checks the form of a prompt, names its files to the fleet, and submits it. On the gateway's loop."""

    def __init__(self, fleet: Fleet, hub: ClientHub, inputs: Inputs, count: QueueCount) -> None:
        self._fleet, self._hub, self._inputs, self._count = fleet, hub, inputs, count

    async def submit(self, body: dict[str, Any], usage_source: str | None = None, is_large: bool = False) -> Accepted:
        """Queue the prompt of a body of ``POST /prompt``; one that *is_large* is looked through on a worker thread.

        What only servers can judge is left to them. Raises ``SubmissionRefused`` for a body that no server would take, and what
        ``Fleet.submit`` raises.
        """
        submission, named = await off_loop(_read, body, usage_source) if is_large else _read(body, usage_source)
        requested_number(body)
        wants_front(body)
        client_id = submission.extra_data.get("client_id")
        job = Job(submission.prompt_id, {**body, "prompt_id": submission.prompt_id}, await self._inputs.found(named), usage_source)
        await self._hub.ready(client_id)
        self._hub.expects(job.prompt_id)
        self._count.is_there(job.prompt_id)
        try:
            accepted = await self._fleet.submit(job)
        except DuplicateJob:
            raise
        except BaseException:
            self._count.is_over(job.prompt_id)
            raise
        finally:
            self._count.ask_soon()
        return accepted


def _read(body: dict[str, Any], usage_source: str | None) -> tuple[Submission, NamedFiles]:
    submission = Submission.parse(body, usage_source)
    return submission, named_files(submission.prompt)


def refusal_body(error: SubmissionRefused) -> dict[str, Any]:
    """The answer to a prompt whose nodes were not looked at."""
    return error_body(error.as_error())


def error_body(error: Mapping[str, Any]) -> dict[str, Any]:
    """*error* as ``POST /prompt`` answers it."""
    return {"error": dict(error), "node_errors": {}}


def plain_error(kind: str, message: str) -> dict[str, Any]:
    """An error of the fleet, for programs and people."""
    return {"type": kind, "message": message, "details": message, "extra_info": {}}
