"""What every answer goes through: origin guard, CORS, cache headers, compression, CSP, errors, methods, limits."""

import asyncio
import logging
import sys
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from middleware import cross_origin
from middleware.errors import json_errors


@pytest.fixture
def start(server, aiohttp_client):
    """``await start(handlers by path)``: a client of the whole application with routes of a pack."""

    async def begin(**handlers):
        for name, handler in handlers.items():
            server.routes.get(f"/{name}")(handler)
            server.routes.post(f"/{name}")(handler)
        server.add_routes()
        return await aiohttp_client(server.app)

    return begin


async def fine(request):
    return web.json_response({"text": "x" * 2000})


HOST = {"Host": "127.0.0.1:8188"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8188"}, 200),
        ({"Origin": "http://localhost:8188"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "http://127.0.0.1"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example:notaport"}, 403),
        ({"Origin": "null"}, 200),
        ({"Host": "127.0.0.1", "Origin": "http://127.0.0.1:8188"}, 200),
        ({"Host": "localhost:8188", "Origin": "http://LOCALHOST:8188"}, 200),
        ({"Host": "localhost:8188", "Origin": "http://evil.example"}, 403),
        ({"Host": "sub.localhost:8188", "Origin": "http://evil.example"}, 403),
        ({"Host": "[::1]:8188", "Origin": "http://evil.example:8188"}, 403),
        ({"Host": "[::1]:8188", "Origin": "http://[::1]:8188"}, 200),
        ({"Host": "0.0.0.0:8188", "Origin": "http://evil.example"}, 403),
        ({"Host": "192.168.1.5:8188", "Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost.:8188"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8188"}, 403),
    ],
)
async def test_origin_guard(start, headers, status):
    client = await start(thing=fine)
    answer = await client.get("/thing", headers={**HOST, **headers})
    assert answer.status == status
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_origin_guard_holds_for_sockets(start):
    client = await start()
    answer = await client.get("/ws", headers={**HOST, "Origin": "http://evil.example"})
    assert answer.status == 403


@pytest.mark.parametrize(
    "host", ["evil.example:8188", "localhost.:8188", "192.168.1.5:8188", "0.0.0.0", "127.1", "a@localhost", "x.localhost"]
)
@pytest.mark.parametrize("path", ["/thing", "/ws", "/view?filename=a.png"])
async def test_a_loopback_server_answers_to_loopback_names_only(start, host, path):
    client = await start(thing=fine)
    for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"}):
        answer = await client.get(path, headers=headers)
        assert answer.status == 403 and "error" in await answer.json()


@pytest.mark.parametrize("flags", [{"allowed_host": ["box.example"]}])
async def test_further_names_can_be_allowed(start):
    client = await start(thing=fine)
    assert (await client.post("/thing", headers={"Host": "BOX.example:1", "Origin": "http://box.example:1"})).status == 200
    assert (await client.post("/thing", headers={"Host": "box.example:1", "Origin": "http://evil.example"})).status == 403
    assert (await client.post("/thing", headers={"Host": "other.example:1"})).status == 403


@pytest.mark.parametrize("flags", [{"listen": "0.0.0.0,::"}])
@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Host": "192.168.1.5:8188"}, 200),
        ("POST", {"Host": "box.example"}, 200),
        ("POST", {"Host": "box.example", "Origin": "http://box.example"}, 200),
        ("POST", {"Host": "box.example", "Origin": "http://evil.example"}, 403),
        ("POST", {"Host": "192.168.1.5:8188", "Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {"Host": "192.168.1.5:8188", "Origin": "null"}, 403),
    ],
)
async def test_a_server_for_the_network_answers_to_every_name(start, method, headers, status):
    client = await start(thing=fine)
    assert (await client.request(method, "/thing", headers=headers)).status == status


@pytest.mark.parametrize("flags", [{"listen": "0.0.0.0", "allowed_host": ["box.example"]}])
async def test_a_server_for_the_network_can_be_told_its_names(start):
    client = await start(thing=fine)
    statuses = [(await client.get("/thing", headers={"Host": host})).status for host in ("box.example", "192.168.1.5:1", "evil.example")]
    assert statuses == [200, 200, 403]


@pytest.mark.parametrize("headers", [{"Origin": "null"}, {"Origin": "null", "Sec-Fetch-Site": "same-origin"}])
async def test_pages_without_an_origin_of_their_own_change_nothing(start, headers):
    client = await start(thing=fine)
    assert (await client.get("/thing", headers={**HOST, **headers})).status == 200
    assert (await client.post("/thing", headers={**HOST, **headers})).status == 403
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x" * 22 + "=="}
    assert (await client.get("/ws", headers={**HOST, **headers, **upgrade})).status == 403


async def test_what_is_refused_is_logged_once_a_minute(start, caplog):
    client = await start(thing=fine)
    for _ in range(20):
        await client.get("/thing", headers={"Host": "evil.example"})
    assert caplog.text.count("--allowed-host evil.example would let it") == 1


@pytest.mark.parametrize("flags", [{"enable_cors_header": "*"}, {"enable_cors_header": "https://a.example"}])
async def test_cors_headers_are_on_every_answer(start, flags):
    client = await start(thing=fine)
    headers = {**HOST, "Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    for answer in (
        await client.get("/thing", headers=headers),
        await client.options("/nowhere", headers=headers),
        await client.get("/nowhere", headers=headers),
    ):
        assert answer.status in (200, 404)
        assert answer.headers["Access-Control-Allow-Origin"] == flags["enable_cors_header"]
        assert answer.headers["Access-Control-Allow-Methods"] == "POST, GET, DELETE, PUT, OPTIONS, PATCH"
        assert answer.headers["Access-Control-Allow-Headers"] == "Content-Type, Authorization"
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"


@pytest.mark.parametrize("flags", [{"enable_cors_header": "https://a.example"}])
async def test_cors_for_one_origin_lets_only_that_one_write(start):
    client = await start(thing=fine)
    cross = {**HOST, "Sec-Fetch-Site": "cross-site"}
    assert (await client.post("/thing", headers={**cross, "Origin": "https://a.example"})).status == 200
    assert (await client.post("/thing", headers={**HOST, "Origin": "http://127.0.0.1:8188"})).status == 200
    assert (await client.post("/thing", headers=HOST)).status == 200
    for origin in ("https://evil.example", "null", "https://a.example.evil"):
        assert (await client.post("/thing", headers={**cross, "Origin": origin})).status == 403
        assert (await client.delete("/thing", headers={**HOST, "Origin": origin})).status == 403
    assert (await client.post("/thing", headers={"Host": "evil.example", "Origin": "http://evil.example"})).status == 403


@pytest.mark.parametrize("flags", [{"enable_cors_header": "*"}])
async def test_cors_for_every_origin_lifts_the_checks(start):
    client = await start(thing=fine)
    assert (await client.post("/thing", headers={"Host": "evil.example", "Origin": "null", "Sec-Fetch-Site": "cross-site"})).status == 200


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1, ::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("127.0.0.1,192.168.1.5", False),
        ("::", False),
    ],
)
def test_which_servers_listen_on_loopback_only(listen, expected):
    assert cross_origin.listens_on_loopback_only(listen) is expected


@pytest.mark.parametrize("path", ["/prompt", "/api/prompt", "/nowhere/at/all", "/", "/internal/logs"])
async def test_options_is_answered_everywhere(start, path):
    client = await start()
    answer = await client.options(path)
    assert (answer.status, await answer.text()) == (200, "")


@pytest.mark.parametrize("path", ["/prompt", "/api/queue", "/", "/object_info", "/thing", "/api/thing"])
async def test_head_is_answered_where_get_is(start, path):
    client = await start(thing=fine)
    answer = await client.head(path)
    assert (answer.status, await answer.text()) == (200, "")


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/prompt"), ("PUT", "/api/history"), ("PATCH", "/api/jobs")])
async def test_a_wrong_method_is_405_and_names_the_right_ones(start, method, path):
    client = await start()
    answer = await client.request(method, path)
    assert answer.status == 405
    assert (await answer.json())["error"] == "Method Not Allowed"
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/nowhere", "/api/nowhere", "/api/internal/logs", "/jobs"])
async def test_an_unknown_path_is_404(start, path):
    client = await start()
    answer = await client.get(path)
    assert answer.status == 404
    assert answer.content_type != "text/html"


@pytest.mark.parametrize("flags", [{"max_upload_size": 0.01}])
async def test_a_body_over_the_limit_is_answered_with_413(start):
    client = await start()
    answer = await client.post("/queue", data=b"[" + b" " * 20_000 + b"]")
    assert answer.status == 413 and isinstance((await answer.json())["error"], str)
    assert (await client.post("/queue", data=b"{" + b" " * 5_000 + b"}")).status == 200


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("a.js", 200, "no-store"),
        ("b.css", 404, "no-store"),
        ("index.json", 200, "no-store"),
        ("index.zh.json", 200, "no-store"),
        ("other.json", 200, None),
        ("page.html", 200, None),
        ("a.png", 200, "public, max-age=86400"),
        ("a.JPG", 206, "public, max-age=86400"),
        ("a.webp", 308, "public, max-age=86400"),
        ("a.tiff", 404, "public, max-age=3600"),
        ("a.png", 302, "no-cache"),
        ("a.png", 500, None),
        ("a.png", 403, None),
        ("png", 200, None),
    ],
)
async def test_cache_headers(start, path, status, expected):
    async def answer_with(request):
        return web.Response(status=status, headers={"Location": "/"} if 300 <= status < 400 else None)

    client = await start(**{path: answer_with})
    answer = await client.get(f"/api/{path}", allow_redirects=False)
    assert answer.headers.get("Cache-Control") == expected


async def test_a_handlers_own_cache_header_stays(start):
    async def own(request):
        return web.Response(headers={"Cache-Control": "max-age=7"})

    client = await start(**{"a.png": own})
    assert (await client.get("/a.png")).headers["Cache-Control"] == "max-age=7"


async def test_a_404_raised_for_an_image_may_be_cached_for_an_hour(start):
    async def missing(request):
        raise web.HTTPNotFound

    client = await start(**{"a.png": missing})
    assert (await client.get("/a.png")).headers["Cache-Control"] == "public, max-age=3600"


@pytest.mark.parametrize("flags", [{}, {"enable_compress_response_body": True}])
async def test_json_and_text_are_compressed(start, flags):
    async def picture(_):
        return web.Response(body=b"x" * 2000, content_type="image/png")

    async def text(_):
        return web.Response(text="x" * 2000)

    client = await start(thing=fine, picture=picture, text=text)
    for path, expected in (("/thing", "gzip"), ("/text", "gzip"), ("/picture", None)):
        answer = await client.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.headers.get("Content-Encoding") == (expected if flags else None)
        assert len(await answer.read()) >= 2000
    assert "Content-Encoding" not in (await client.get("/thing", headers={"Accept-Encoding": "identity"})).headers


@pytest.mark.parametrize("flags", [{}, {"disable_api_nodes": True}])
async def test_content_policy_without_api_nodes(start, flags):
    client = await start(thing=fine)
    for path in ("/thing", "/", "/nowhere"):
        policy = (await client.get(path)).headers.get("Content-Security-Policy")
        assert ("default-src 'self'" in policy and "connect-src 'self' data:" in policy) if flags else policy is None


async def test_old_scripts_are_warned_about_once_each(start, caplog):
    client = await start()
    with caplog.at_level(logging.WARNING):
        for path in ("/scripts/ui.js", "/scripts/ui.js", "/scripts/ui/x.js", "/extensions/core/a.js", "/scripts/app.js"):
            await client.get(path)
    warned = [record.getMessage().split()[0] for record in caplog.records if "old script" in record.getMessage()]
    assert warned == ["/scripts/ui.js", "/scripts/ui/x.js", "/extensions/core/a.js"]


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, GeneratorExit, BaseException, asyncio.CancelledError])
async def test_a_failing_handler_is_logged_and_tells_no_details(start, caplog, kind):
    async def broken(request):
        raise kind("the secret reason")

    client = await start(thing=broken)
    answer = await client.get("/api/thing")
    body = await answer.text()
    assert answer.status == 500 and "error" in await answer.json()
    assert "secret" not in body and "Traceback" not in body
    assert "the secret reason" in caplog.text and "Traceback" in caplog.text


async def test_a_pack_may_end_the_process_where_comfy_cli_starts_it_again(monkeypatch):
    async def restart(request):
        sys.exit(0)

    request = make_mocked_request(
        "POST", "/api/manager/reboot", transport=SimpleNamespace(is_closing=lambda: False, get_extra_info=lambda *_: None)
    )
    assert (await json_errors(request, restart)).status == 500
    monkeypatch.setenv("__COMFY_CLI_SESSION__", "/somewhere")
    with pytest.raises(SystemExit):
        await json_errors(request, restart)


async def test_a_connection_that_a_handler_lost_elsewhere_is_an_error_too(start, caplog):
    async def refused(request):
        raise ConnectionRefusedError("another host")

    client = await start(thing=refused)
    assert (await client.get("/thing")).status == 500
    assert "another host" in caplog.text


async def test_a_handler_that_returns_nothing_is_an_error(start, caplog):
    async def forgetful(request):
        return None

    client = await start(thing=forgetful)
    answer = await client.get("/thing")
    assert answer.status == 500 and "error" in await answer.json()
    assert "NoneType" in caplog.text


async def test_raised_refusals_become_json_and_keep_their_headers(start):
    async def refuse(request):
        raise web.HTTPBadRequest(text="because", headers={"X-More": "1"})

    async def elsewhere(request):
        raise web.HTTPFound("/prompt")

    client = await start(thing=refuse, other=elsewhere)
    answer = await client.get("/thing")
    assert (answer.status, await answer.json(), answer.headers["X-More"]) == (400, {"error": "because"}, "1")
    redirect = await client.get("/other", allow_redirects=False)
    assert (redirect.status, redirect.headers["Location"]) == (302, "/prompt")
