"""``/prompt``: how many prompts wait, and queueing one."""

import functools
import logging
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web

from app.files.json_body import read_json_object
from app.files.off_loop import off_loop
from app.files.strict_json import dumps, dumps_by_members, json_answer
from app.node_replace_manager import NodeReplaceManager
from app.packs.node_info import registered_node_info
from app.running.prompt_checking import CheckFailed, PromptChecking
from app.running.refusals import RefusalLog
from app.running.submission import Submission, SubmissionRefused, requested_number, wants_front
from comfy_execution.prompts.queue import DuplicatePromptId, PromptQueue

log = logging.getLogger(__name__)

Verdict = tuple[Any, Any, Any, Any]

MOST_SHOWN = 10_000
# Bodies from here on are looked through on the thread that checks them.
LARGE_BYTES = 64 * 1024


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
        self._checking = PromptChecking()
        self._refusals = RefusalLog()

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/prompt")(self._count)
        routes.post("/prompt")(self._submit)

    async def _count(self, request: web.Request) -> web.Response:
        return json_answer(self._server.get_queue_info())

    async def _submit(self, request: web.Request) -> web.Response:
        try:
            body = self._server.trigger_on_prompt(await read_json_object(request, strict=False))
            number = self._number(body)
            parse: Callable[[], Submission] = functools.partial(Submission.parse, body, request.headers.get("Comfy-Usage-Source"))
            if (request.content_length or LARGE_BYTES) < LARGE_BYTES:
                parse = functools.partial(_same, parse())
            return await self._queue(parse, number)
        except web.HTTPBadRequest as error:
            return self._refuse({"type": "invalid_json", "message": error.text, "details": "", "extra_info": {}})
        except SubmissionRefused as error:
            return self._refuse(error.as_error())
        except CheckFailed as error:
            return self._refuse(error.as_error(), error.status)

    def _number(self, body: dict[str, Any]) -> float:
        """The prompt's place in the queue. The counter also advances for prompts that are refused later."""
        number = requested_number(body)
        if number is not None:
            return number
        counted = self._server.number
        self._server.number += 1
        return -counted if wants_front(body) else counted

    async def _queue(self, parse: Callable[[], Submission], number: float) -> web.Response:
        engine = self._engine()
        checked = await self._checking.run(functools.partial(self._check, engine, parse))
        if isinstance(checked, SubmissionRefused):
            raise checked
        submission, (valid, error, outputs, node_errors) = checked
        if not valid:
            error = _shown(error)
            self._refusals.tell(error, node_errors)
            return await off_loop(_refusal, error, node_errors)
        self._refusals.tell(None, node_errors)
        sensitive = submission.take_sensitive(engine.SENSITIVE_EXTRA_DATA_KEYS)
        submission.stamp()
        try:
            self._server.prompt_queue.put((number, submission.prompt_id, submission.prompt, submission.extra_data, outputs, sensitive))
        except DuplicatePromptId as twice:
            return self._refuse({"type": "duplicate_prompt_id", "message": str(twice), "details": str(twice), "extra_info": {}}, status=409)
        log.info("Queued prompt %s with %d nodes", submission.prompt_id, len(submission.prompt))
        return json_answer({"prompt_id": submission.prompt_id, "number": number, "node_errors": node_errors})

    def _refuse(self, error: dict[str, Any], status: int = 400) -> web.Response:
        """Refuse a prompt whose nodes were not looked at."""
        error = _shown(error)
        self._refusals.tell(error, {})
        return _refusal(error, {}, status)

    async def _check(self, engine: Any, parse: Callable[[], Submission]) -> tuple[Submission, Verdict] | SubmissionRefused:
        """The prompt and the verdict on it. Runs on a thread of its own, as does what packs put in the place of ``validate_prompt``."""
        try:
            submission = parse().as_prompt(registered_node_info)
        except SubmissionRefused as refused:
            return refused
        self._server.node_replace_manager.apply_replacements(submission.prompt)
        valid, error, outputs, node_errors = await engine.validate_prompt(submission.prompt_id, submission.prompt, submission.targets)
        return submission, (valid, error, outputs, node_errors)


def _same(submission: Submission) -> Submission:
    return submission


def _shown(error: Any) -> dict[str, Any]:
    """*error*, also that of a pack's ``validate_prompt``, in the form and length that a client gets."""
    if not isinstance(error, dict):
        error = {"type": "invalid_prompt", "message": str(error), "details": str(error), "extra_info": {}}
    # The texts repeat what the client sent; it knows the rest.
    return {key: value[:MOST_SHOWN] if isinstance(value, str) else value for key, value in error.items()}


def _refusal(error: dict[str, Any], node_errors: dict[str, Any], status: int = 400) -> web.Response:
    text = f'{{"error":{dumps(error)},"node_errors":{dumps_by_members(node_errors)}}}'
    return web.json_response(text=text, status=status)
