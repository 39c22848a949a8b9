"""``/prompt``: how many jobs the fleet has, and giving it one."""

from aiohttp import web

from app.files.json_body import read_json_object
from app.files.strict_json import json_answer
from app.running.submission import SubmissionRefused
from fleet.gateway.queue_count import QueueCount
from fleet.gateway.submission import Submitting, error_body, plain_error, refusal_body
from fleet.interface import DuplicateJob, FleetError, NoServer, PromptRefused, QueueFull

RETRY_AFTER_S = 5
# Bodies from here on are looked through on a worker thread.
LARGE_BYTES = 64 * 1024


class PromptRoutes:
    """Answers as one server does, and 429 when the fleet is full, 503 when no server is up."""

    def __init__(self, submitting: Submitting, count: QueueCount) -> None:
        self._submitting, self._count = submitting, count

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/prompt")(self._remaining)
        routes.post("/prompt")(self._submit)

    async def _remaining(self, request: web.Request) -> web.Response:
        return json_answer(self._count.message())

    async def _submit(self, request: web.Request) -> web.Response:
        try:
            body = await read_json_object(request, strict=False)
            is_large = (request.content_length or LARGE_BYTES) >= LARGE_BYTES
            accepted = await self._submitting.submit(body, request.headers.get("Comfy-Usage-Source"), is_large)
        except web.HTTPBadRequest as error:
            return json_answer(error_body({**plain_error("invalid_json", error.text or ""), "details": ""}), 400)
        except SubmissionRefused as error:
            return json_answer(refusal_body(error), 400)
        except PromptRefused as error:
            return web.Response(body=error.body, status=error.status, content_type="application/json", charset="utf-8")
        except QueueFull as error:
            return _later(429, "queue_full", error, error.retry_after_s)
        except DuplicateJob as error:
            return json_answer(error_body(plain_error("duplicate_prompt_id", str(error))), 409)
        except NoServer as error:
            return _later(503, "no_server", error, RETRY_AFTER_S)
        except FleetError as error:
            return json_answer(error_body(plain_error("server_lost", str(error))), 502)
        return json_answer({"prompt_id": accepted.prompt_id, "number": accepted.number, "node_errors": dict(accepted.node_errors)})


def _later(status: int, kind: str, error: FleetError, retry_after_s: int) -> web.Response:
    answer = json_answer(error_body(plain_error(kind, str(error))), status)
    answer.headers["Retry-After"] = str(max(1, retry_after_s))
    return answer
