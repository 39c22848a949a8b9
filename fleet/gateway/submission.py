"""Handing a prompt to the fleet, for ``/prompt`` and for Comfy API v2 alike."""

import uuid
from collections.abc import Mapping
from typing import Any

from app.running.submission import Submission, SubmissionRefused, requested_number, wants_front
from fleet.gateway.client_hub import ClientHub
from fleet.gateway.inputs import Inputs
from fleet.gateway.queue_count import QueueCount
from fleet.interface import DuplicateJob, Fleet
from fleet.values import Accepted, Job


class Submitting:
    """Checks the form of a prompt, names its files to the fleet, and submits it. On the gateway's loop."""

    def __init__(self, fleet: Fleet, hub: ClientHub, inputs: Inputs, count: QueueCount) -> None:
        self._fleet, self._hub, self._inputs, self._count = fleet, hub, inputs, count

    async def submit(self, body: dict[str, Any], usage_source: str | None = None) -> Accepted:
        """Queue the prompt of a body of ``POST /prompt``.

        What only servers can judge is left to them. Raises ``SubmissionRefused`` for a body that no server would take, and what
        ``Fleet.submit`` raises.
        """
        submission = Submission.parse(body, usage_source)
        requested_number(body)
        wants_front(body)
        client_id = submission.extra_data.get("client_id")
        job = Job(
            submission.prompt_id, {**body, "prompt_id": submission.prompt_id}, await self._inputs.named_in(submission.prompt), usage_source
        )
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


def new_id() -> str:
    """An id for a job."""
    return str(uuid.uuid4())


def refusal_body(error: SubmissionRefused) -> dict[str, Any]:
    """The answer to a prompt whose nodes were not looked at."""
    return error_body(error.as_error())


def error_body(error: Mapping[str, Any]) -> dict[str, Any]:
    """*error* as ``POST /prompt`` answers it."""
    return {"error": dict(error), "node_errors": {}}


def plain_error(kind: str, message: str) -> dict[str, Any]:
    """An error of the fleet, for programs and people."""
    return {"type": kind, "message": message, "details": message, "extra_info": {}}
