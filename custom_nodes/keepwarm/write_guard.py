"""Who may change what the pack keeps: no page of another site, and with ``--multi-user`` the first user alone."""

import functools
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

ENVIRONMENT = "KEEPWARM_CACHE_MANAGERS"
EVERYONE = "all"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WriteGuard:
    """Called with the handler of a route that changes something, gives one that answers 403 to those who may not.

    *args*: the server's parsed flags; *server*: its ``PromptServer``. With ``--multi-user`` the user whose id was made first may write, and
    everybody with ``--cache-managers all`` or ``KEEPWARM_CACHE_MANAGERS=all``. User ids are names and not passwords, here as elsewhere.
    """

    def __init__(self, args: Any, server: Any, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._multi_user = bool(getattr(args, "multi_user", False))
        self._everyone = EVERYONE in (getattr(args, "cache_managers", None), environment.get(ENVIRONMENT, "").lower())
        self._allowed_origin = getattr(args, "enable_cors_header", None)
        self._server = server

    def __call__(self, handler: Handler) -> Handler:
        """*handler*, for those who may write."""

        @functools.wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            why = self.refusal(request)
            if why is None:
                return await handler(request)
            return web.json_response({"error": why}, status=403)

        return guarded

    def refusal(self, request: web.Request) -> str | None:
        """Why *request* may not change anything, or None."""
        if _is_foreign(request.headers, self._allowed_origin):
            return "Requests from pages of other sites are refused"
        if not self._multi_user or self._everyone:
            return None
        first = next(iter(self._users()), None)
        if first is not None and request.headers.get("comfy-user") == first:
            return None
        return "Only the first user may change what is kept; the server's flag --cache-managers all lets everybody"

    def _users(self) -> Mapping[str, Any]:
        """The users by id, in the order in which they were added."""
        users: Mapping[str, Any] = getattr(getattr(self._server, "user_manager", None), "users", {})
        return users


def _is_foreign(headers: Mapping[str, str], allowed_origin: str | None) -> bool:
    """Whether a page of another site sent these headers. Programs other than browsers send no Origin, and are not meant.

    The one origin that ``--enable-cors-header`` names may write; ``*`` names none.
    """
    origin = headers.get("Origin")
    if origin and origin == allowed_origin:
        return False
    if headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        return True
    if not origin:
        return False
    try:
        sent_by, sent_to = urlsplit(origin), urlsplit("//" + headers.get("Host", ""))
        same_port = None in (sent_by.port, sent_to.port) or sent_by.port == sent_to.port
        return not (sent_by.hostname and sent_by.hostname == sent_to.hostname and same_port)
    except ValueError:
        return True
