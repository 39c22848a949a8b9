"""The answer of the asset routes: this server keeps no asset database."""

from aiohttp import web

_PATHS: tuple[tuple[str, str], ...] = (
    ("HEAD", "/api/assets/hash/{hash}"),
    ("GET", "/api/assets/hash/{hash}"),
    ("GET", "/api/assets"),
    ("POST", "/api/assets"),
    ("POST", "/api/assets/from-hash"),
    ("GET", "/api/assets/tags/refine"),
    ("GET", "/api/assets/remote-metadata"),
    ("POST", "/api/assets/seed"),
    ("GET", "/api/assets/seed/status"),
    ("POST", "/api/assets/seed/cancel"),
    ("POST", "/api/assets/prune"),
    ("GET", "/api/assets/{id}"),
    ("PUT", "/api/assets/{id}"),
    ("DELETE", "/api/assets/{id}"),
    ("GET", "/api/assets/{id}/content"),
    ("POST", "/api/assets/{id}/tags"),
    ("DELETE", "/api/assets/{id}/tags"),
    ("GET", "/api/tags"),
)


class AssetsDisabledRoutes:
    """Says 503 ``SERVICE_DISABLED`` on every asset route. The paths carry ``/api`` already: register them as they are, undoubled."""

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register every asset route."""
        for method, path in _PATHS:
            if method == "GET":
                routes.get(path, allow_head="hash" not in path)(self._answer)
            else:
                routes.route(method, path)(self._answer)

    async def _answer(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "error": {
                    "code": "SERVICE_DISABLED",
                    "message": "This server has no asset system; files are reached through /view and /upload.",
                    "details": {},
                }
            },
            status=503,
        )
