"""The error envelope of Comfy API v2, and which errors become which."""

import json
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from app.files.strict_json import json_answer
from app.running.submission import SubmissionRefused
from fleet.gateway.upstream import ServerSilent
from fleet.interface import DuplicateJob, FleetError, NoServer, PromptRefused, QueueFull

PREFIX = "/api/v2/"
_CODES = {400: "invalid_request", 403: "forbidden", 404: "not_found", 405: "invalid_request", 413: "payload_too_large"}


class V2Error(Exception):
    """An answer with an error: *code* is for programs, *message* for people."""

    def __init__(
        self, status: int, code: str, message: str, details: dict[str, Any] | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.details, self.retry_after_s = status, code, details, retry_after_s

    def answer(self) -> web.Response:
        """``{"error": {code, message, details}}``."""
        answer = json_answer({"error": {"code": self.code, "message": str(self), "details": self.details}}, self.status)
        if self.retry_after_s is not None:
            answer.headers["Retry-After"] = str(max(1, self.retry_after_s))
        return answer


def v2_error(error: BaseException) -> V2Error | None:
    """*error* as v2 tells it; None for what nobody expected."""
    if isinstance(error, V2Error):
        return error
    if isinstance(error, QueueFull):
        return V2Error(429, "queue_full", str(error), retry_after_s=error.retry_after_s)
    if isinstance(error, NoServer):
        return V2Error(503, "upstream_unreachable", str(error), retry_after_s=5)
    if isinstance(error, DuplicateJob):
        return V2Error(422, "idempotency_key_reuse", "This Idempotency-Key was used already; ask for the job that it made.")
    if isinstance(error, PromptRefused):
        return _refused(error)
    if isinstance(error, SubmissionRefused):
        code = "workflow_format_ui" if error.kind == "workflow_not_prompt" else "invalid_workflow"
        return V2Error(422, code, f"{error}: {error.details}")
    if isinstance(error, FleetError | ServerSilent):
        return V2Error(502, "upstream_error", str(error))
    if isinstance(error, web.HTTPException) and error.status >= 400:
        retry_after = error.headers.get("Retry-After", "")
        return V2Error(
            error.status,
            _CODES.get(error.status, "error"),
            error.text or error.reason,
            None,
            int(retry_after) if retry_after.isdigit() else None,
        )
    return None


def _refused(error: PromptRefused) -> V2Error:
    try:
        told = json.loads(error.body)
        reason = told.get("error") or {}
        message = reason.get("message") if isinstance(reason, dict) else str(reason)
        details = {"node_errors": told.get("node_errors") or {}}
        if isinstance(reason, dict) and reason.get("details"):
            message = f"{message}: {reason['details']}"
    except (ValueError, AttributeError):
        message, details = error.body.decode("utf-8", "replace")[:1000], {"node_errors": {}}
    if error.status >= 500:
        return V2Error(503, "upstream_error", str(message), retry_after_s=5)
    return V2Error(422, "invalid_workflow", str(message or "The workflow was refused."), details)


@web.middleware
async def v2_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors below ``/api/v2/`` in v2's form; ComfyUI's own route there, ``/api/v2/userdata``, is left alone."""
    if not request.path.startswith(PREFIX) or request.path.startswith(PREFIX + "userdata"):
        return await handler(request)
    try:
        return await handler(request)
    except Exception as error:
        known = v2_error(error)
        if known is None:
            raise
        return known.answer()
