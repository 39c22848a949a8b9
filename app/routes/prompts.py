"""``/prompt``: how many prompts wait, and queueing one."""

import logging
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web

from app.files.json_body import read_json_object
from app.files.strict_json import json_answer
from app.node_replace_manager import NodeReplaceManager
from app.running.submission import Submission, SubmissionRefused, requested_number, wants_front
from comfy_execution.prompts.queue import DuplicatePromptId, PromptQueue

log = logging.getLogger(__name__)

MOST_SHOWN = 10_000


class PromptTaker(Protocol):
    """What the route needs of ``PromptServer``; packs read and replace these."""

    number: int
    node_replace_manager: NodeReplaceManager

    @property
    def prompt_queue(self) -> PromptQueue:
        """The queue of prompts; packs may put another in its place."""

    def get_queue_info(self) -> dict[str, Any]:
        """The counts that ``GET /prompt`` answers."""

    def trigger_on_prompt(self, json_data: dict[str, Any]) -> dict[str, Any]:
        """Let packs rewrite the body."""


class PromptRoutes:
    """Takes prompts. *engine* is called at each request, so that a replaced ``execution.validate_prompt`` is heard."""

    def __init__(self, server: PromptTaker, engine: Callable[[], Any]) -> None:
        self._server = server
        self._engine = engine

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/prompt")(self._count)
        routes.post("/prompt")(self._submit)

    async def _count(self, request: web.Request) -> web.Response:
        return json_answer(self._server.get_queue_info())

    async def _submit(self, request: web.Request) -> web.Response:
        try:
            body = self._server.trigger_on_prompt(await read_json_object(request))
            number = self._number(body)
            submission = Submission.parse(body, request.headers.get("Comfy-Usage-Source"))
        except web.HTTPBadRequest as error:
            return _refuse({"type": "invalid_json", "message": error.text, "details": "", "extra_info": {}}, {})
        except SubmissionRefused as error:
            return _refuse(error.as_error(), {})
        return await self._queue(submission, number)

    def _number(self, body: dict[str, Any]) -> float:
        """The prompt's place in the queue. The counter also advances for prompts that are refused later."""
        number = requested_number(body)
        if number is not None:
            return number
        counted = self._server.number
        self._server.number += 1
        return -counted if wants_front(body) else counted

    async def _queue(self, submission: Submission, number: float) -> web.Response:
        engine = self._engine()
        self._server.node_replace_manager.apply_replacements(submission.prompt)
        valid, error, outputs, node_errors = await engine.validate_prompt(submission.prompt_id, submission.prompt, submission.targets)
        if not valid:
            return _refuse(error, node_errors)
        sensitive = submission.take_sensitive(engine.SENSITIVE_EXTRA_DATA_KEYS)
        submission.stamp()
        try:
            self._server.prompt_queue.put((number, submission.prompt_id, submission.prompt, submission.extra_data, outputs, sensitive))
        except DuplicatePromptId as error:
            return _refuse({"type": "duplicate_prompt_id", "message": str(error), "details": str(error), "extra_info": {}}, {}, status=409)
        log.info("Queued prompt %s with %d nodes", submission.prompt_id, len(submission.prompt))
        return json_answer({"prompt_id": submission.prompt_id, "number": number, "node_errors": node_errors})


def _refuse(error: Any, node_errors: dict[str, Any], status: int = 400) -> web.Response:
    if not isinstance(error, dict):
        error = {"type": "invalid_prompt", "message": str(error), "details": str(error), "extra_info": {}}
    # The texts repeat what the client sent; it knows the rest.
    error = {key: value[:MOST_SHOWN] if isinstance(value, str) else value for key, value in error.items()}
    log.warning("Refused a prompt: %.1000s %.1000s", error.get("message"), error.get("details"))
    return json_answer({"error": error, "node_errors": node_errors}, status=status)
