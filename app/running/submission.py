"""The body of ``POST /prompt``: read strictly, every mistake named."""

import math
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.workflow_conversion import NodeInfo, WorkflowFormatError, is_saved_workflow, to_prompt
from comfy_execution.jobs import validate_job_id

MAX_DEPTH = 200


class SubmissionRefused(ValueError):
    """The body cannot be queued. ``kind`` is for programs, the message and ``details`` are for people."""

    def __init__(self, kind: str, message: str, details: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details or message

    def as_error(self) -> dict[str, Any]:
        """The ``error`` object of the answer."""
        return {"type": self.kind, "message": str(self), "details": self.details, "extra_info": {}}


@dataclass(frozen=True, slots=True)
class Submission:
    """A prompt as it was sent, checked in form but not yet for meaning. *targets* None runs every output.

    *is_workflow*: *prompt* is a workflow as the page saves it, to be converted.
    """

    prompt: dict[str, Any]
    prompt_id: str
    targets: list[str] | None
    extra_data: dict[str, Any]
    is_workflow: bool = False

    @classmethod
    def parse(cls, body: Mapping[str, Any], usage_source: str | None = None) -> "Submission":
        """Read *body*. *usage_source* is what a client said about itself in a header. Raises ``SubmissionRefused``."""
        if "prompt" not in body:
            if is_saved_workflow(body):
                raise _workflow_refused()
            raise SubmissionRefused("no_prompt", "The request has no prompt", "The body needs the key 'prompt' with the nodes by id")
        prompt = body["prompt"]
        if not isinstance(prompt, dict):
            raise SubmissionRefused("invalid_prompt", "The prompt is not an object of nodes by id", f"got {type(prompt).__name__}")
        if not is_shallow(body, MAX_DEPTH):
            raise SubmissionRefused("invalid_prompt", f"The request is nested deeper than {MAX_DEPTH} levels")
        is_workflow = is_saved_workflow(prompt)
        if is_workflow and body.get("convert") is not True:
            raise _workflow_refused()
        submission = cls(prompt, _prompt_id(body), _targets(body), _extra_data(body, usage_source), is_workflow)
        if is_workflow:
            submission.extra_data.setdefault("extra_pnginfo", {"workflow": prompt})
        return submission

    def as_prompt(self, node_info: NodeInfo) -> "Submission":
        """The same with the workflow converted, if it is one. *node_info*: see ``to_prompt``. Raises ``SubmissionRefused``."""
        if not self.is_workflow:
            return self
        try:
            prompt = to_prompt(self.prompt, node_info)
        except WorkflowFormatError as error:
            raise SubmissionRefused("workflow_not_converted", "The workflow cannot be converted to a prompt", str(error)) from None
        return replace(self, prompt=prompt, is_workflow=False)

    def take_sensitive(self, keys: Iterable[str]) -> dict[str, Any]:
        """Move what must not be shown to other clients out of ``extra_data`` and return it."""
        return {key: self.extra_data.pop(key) for key in keys if key in self.extra_data}

    def stamp(self) -> None:
        """Note when the prompt was queued, in ms."""
        self.extra_data["create_time"] = int(time.time() * 1000)


def requested_number(body: Mapping[str, Any]) -> float | None:
    """The priority that the client chose, None when it chose none. Raises ``SubmissionRefused``."""
    given = body.get("number")
    if given is None:
        return None
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise SubmissionRefused("invalid_number", "The number is not a finite number", f"got {given!r:.80}")
    return number


def wants_front(body: Mapping[str, Any]) -> bool:
    """Whether the client wants the prompt to run before those that wait. Raises ``SubmissionRefused``."""
    given = body.get("front")
    if given is None or isinstance(given, bool):
        return bool(given)
    raise SubmissionRefused("invalid_front", "front is neither true nor false", f"got {type(given).__name__}")


def is_shallow(value: Any, depth: int) -> bool:
    """Whether JSON-like containers are nested at most *depth* levels below *value*. Does not recurse."""
    level = [value]
    for _ in range(depth):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return True
    return False


def _workflow_refused() -> SubmissionRefused:
    return SubmissionRefused(
        "workflow_not_prompt",
        "This is a workflow as the page saves it, not a prompt",
        'Export it with "Export (API)", or send {"prompt": the workflow, "convert": true} and the server converts it',
    )


def _prompt_id(body: Mapping[str, Any]) -> str:
    given = body.get("prompt_id")
    if given is None:
        return str(uuid.uuid4())
    try:
        return validate_job_id(given)
    except ValueError as error:
        raise SubmissionRefused(
            "invalid_prompt_id", "The prompt_id is not a UUID in lower case with hyphens", f"{error}; leave it out to have one made"
        ) from None


def _targets(body: Mapping[str, Any]) -> list[str] | None:
    targets = body.get("partial_execution_targets")
    if targets is None or (isinstance(targets, list) and all(isinstance(target, str) for target in targets)):
        return targets
    raise SubmissionRefused("invalid_partial_execution_targets", "partial_execution_targets is not a list of node ids")


def _extra_data(body: Mapping[str, Any], usage_source: str | None) -> dict[str, Any]:
    extra_data = body.get("extra_data")
    if extra_data is None:
        extra_data = {}
    if not isinstance(extra_data, dict):
        raise SubmissionRefused("invalid_extra_data", "extra_data is not an object", f"got {type(extra_data).__name__}")
    extra_data = dict(extra_data)
    client_id = body["client_id"] if "client_id" in body else extra_data.get("client_id")
    if client_id is not None:
        extra_data["client_id"] = _client_id(client_id)
    if usage_source:
        extra_data.setdefault("comfy_usage_source", usage_source)
    return extra_data


def _client_id(given: Any) -> str:
    if isinstance(given, str | int | float):
        return str(given)
    raise SubmissionRefused("invalid_client_id", "The client_id is not text", f"got {type(given).__name__}")
