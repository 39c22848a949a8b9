"""What a client gets to see when a handler refuses or fails: JSON with one sentence, never a traceback."""

import logging

from aiohttp import web

from middleware.cache_middleware import Handler

log = logging.getLogger(__name__)

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
    except (Exception, SystemExit, BaseExceptionGroup):  # a pack's handler may call sys.exit, which would end the server
        if request.transport is None or request.transport.is_closing():
            raise
        log.exception("%s %s could not be answered", request.method, request.path)
        return web.json_response({"error": "The server could not answer this request; its log says why."}, status=500)
