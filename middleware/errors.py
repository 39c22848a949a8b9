"""What a client gets to see when a handler refuses or fails: JSON with one sentence, never a traceback."""

import asyncio
import logging
import os

from aiohttp import web

from comfy_execution.executor.isolation import is_own_end, log_failure
from middleware.cache_middleware import Handler

log = logging.getLogger(__name__)

RESTARTED_BY = "__COMFY_CLI_SESSION__"
# They describe the body that is replaced.
_BODY_HEADERS = frozenset({"content-type", "content-length"})


def _refusal(error: web.HTTPException) -> web.Response:
    headers = {name: value for name, value in error.headers.items() if name.lower() not in _BODY_HEADERS}
    if error.status < 400:
        return web.Response(status=error.status, headers=headers, body=error.body)
    text = error.text or ""
    reason = error.reason if text == f"{error.status}: {error.reason}" else text
    return web.json_response({"error": reason or error.reason}, status=error.status, headers=headers)


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn raised refusals (404, 405, 413, …) into JSON; log what was not expected and answer 500 without details.

    What a handler raises because its client has gone is left to aiohttp.
    """
    try:
        response = await handler(request)
        if not isinstance(response, web.StreamResponse):
            raise TypeError(f"the handler returned {type(response).__name__} instead of a response")
        return response
    except web.HTTPException as error:
        return _refusal(error)
    except BaseException as error:
        # A pack's handler may call sys.exit, which would end the server. Under comfy-cli, which starts it again, packs restart it so.
        if is_own_end(error, asyncio.current_task()) or (isinstance(error, SystemExit) and RESTARTED_BY in os.environ):
            raise
        if request.transport is None or request.transport.is_closing():
            raise
        log_failure(log, f"{request.method} {request.path} could not be answered", error)
        return web.json_response({"error": "The server could not answer this request; its log says why."}, status=500)
