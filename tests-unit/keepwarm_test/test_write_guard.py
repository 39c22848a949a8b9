"""The pack's routes that change something, asked by pages, programs and users who may and may not."""

from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from custom_nodes.keepwarm.write_guard import WriteGuard

OWN = {"Host": "127.0.0.1:8188"}


async def status(headers, users=None, environment=None, **flags):
    """What a guarded route answers to *headers*."""

    async def change(request):
        return web.json_response({"changed": True})

    server = SimpleNamespace(user_manager=SimpleNamespace(users=users or {}))
    app = web.Application()
    app.router.add_post("/change", WriteGuard(SimpleNamespace(**flags), server, environment or {})(change))
    async with TestClient(TestServer(app)) as client:
        answer = await client.post("/change", headers={**OWN, **headers})
        assert answer.status == 200 or (await answer.json())["error"]
        return answer.status


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8188"}, 200),
        ({"Origin": "http://127.0.0.1:8188", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://127.0.0.1"}, 200),
        ({"Origin": "http://127.0.0.1:8189"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[broken"}, 403),
        ({"Origin": "http://127.0.0.1:99999999"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
async def test_pages_of_other_sites_change_nothing(headers, expected):
    assert await status(headers) == expected


async def test_the_origin_that_a_flag_names_may_write_and_a_star_names_none():
    foreign = {"Origin": "https://pages.example", "Sec-Fetch-Site": "cross-site"}
    assert await status(foreign, enable_cors_header="https://pages.example") == 200
    assert await status(foreign, enable_cors_header="*") == 403
    assert await status({**foreign, "Origin": "https://other.example"}, enable_cors_header="https://pages.example") == 403


async def test_with_several_users_only_the_first_writes_unless_all_may():
    users = {"ann_1": "Ann", "bob_2": "Bob"}
    assert await status({"Comfy-User": "ann_1"}, users, multi_user=True) == 200
    for other in ({"Comfy-User": "bob_2"}, {"Comfy-User": "default"}, {}):
        assert await status(other, users, multi_user=True) == 403
        assert await status(other, users, multi_user=True, cache_managers="all") == 200
        assert await status(other, users, {"KEEPWARM_CACHE_MANAGERS": "all"}, multi_user=True) == 200
        assert await status(other, users, multi_user=False) == 200
    assert await status({}, {}, multi_user=True) == 403
    assert await status({"Origin": "http://evil.example", "Comfy-User": "ann_1"}, users, multi_user=True, cache_managers="all") == 403
