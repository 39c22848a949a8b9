"""Every asset route says that the asset system is off."""

import pytest

from app.routes.assets_disabled import AssetsDisabledRoutes

ID = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/assets"),
        ("POST", "/api/assets"),
        ("POST", "/api/assets/from-hash"),
        ("GET", f"/api/assets/{ID}"),
        ("PUT", f"/api/assets/{ID}"),
        ("DELETE", f"/api/assets/{ID}"),
        ("GET", f"/api/assets/{ID}/content?disposition=inline"),
        ("GET", "/api/tags"),
        ("POST", f"/api/assets/{ID}/tags"),
        ("DELETE", f"/api/assets/{ID}/tags"),
        ("GET", "/api/assets/tags/refine"),
        ("POST", "/api/assets/seed?wait=true"),
        ("GET", "/api/assets/seed/status"),
        ("POST", "/api/assets/seed/cancel"),
        ("POST", "/api/assets/prune"),
        ("GET", "/api/assets/hash/blake3:00"),
    ],
)
async def test_route_says_service_disabled(serve, method, path):
    client = await serve(AssetsDisabledRoutes())
    answer = await client.request(method, path)
    assert answer.status == 503
    error = (await answer.json())["error"]
    assert (error["code"], set(error)) == ("SERVICE_DISABLED", {"code", "message", "details"})


async def test_existence_check_says_so_without_a_body(serve):
    client = await serve(AssetsDisabledRoutes())
    assert (await client.head("/api/assets/hash/blake3:00")).status == 503
