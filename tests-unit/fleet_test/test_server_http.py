"""What the fleet asks a server, against a server of a few routes."""

import pytest
from aiohttp import web

from fleet.server_http import ServerHttp
from fleet.values import EndedPrompt, InputFile, ModelFile, WarmModel
from serverless.server_api import ServerAnswer, ServerUnreachable

SUMMARY = {
    "boot": "b",
    "version": 3,
    "models": [
        {"folder": "vae", "name": "v", "identity": None, "file_bytes": 5, "bytes": 9, "reload_s": 0.5, "tier": "vram", "held": True}
    ],
    "cap_bytes": 100,
    "running": ["r"],
    "waiting": ["w"],
    "ended": [{"prompt_id": "e", "status": "success", "seconds": 2.0, "read_s": 0.5}],
    "files_version": "f1",
}


class Scripted:
    """Answers as told, and remembers what it was asked."""

    def __init__(self):
        self.asked, self.history, self.queue = [], {}, []

    async def handle(self, request):
        kind = request.content_type
        body = await request.json() if kind == "application/json" and request.can_read_body else (await request.read() or None)
        self.asked.append((request.method, request.path_qs, body))
        if request.path == "/caches/summary":
            if request.headers["If-None-Match"] == '"1"':
                return web.Response(status=304)
            more = {"files": [{"folder": "vae", "name": "v", "bytes": 5}]} if request.query["files"] != "f1" else {}
            return web.json_response({**SUMMARY, **more}, headers={"ETag": '"1"'})
        if request.path.startswith("/history/"):
            return web.json_response(self.history)
        if request.path == "/queue" and request.method == "GET":
            return web.json_response({"queue_running": self.queue, "queue_pending": []})
        if request.path == "/prompt":
            return web.json_response({"error": "no"}, status=400)
        if request.path == "/file":
            return web.Response(body=b"content")
        return web.Response(status=500 if request.path == "/interrupt" and body == {} else 200)


@pytest.fixture
async def server(aiohttp_server):
    scripted, app = Scripted(), web.Application()
    app.router.add_route("*", "/{path:.*}", scripted.handle)
    scripted.url = str((await aiohttp_server(app)).make_url("")).rstrip("/")
    return scripted


@pytest.fixture
async def http(server):
    made = ServerHttp(server.url)
    yield made
    await made.close()


async def test_a_summary_is_read_once_and_files_only_when_they_change(http, server):
    summary, files = await http.summary()
    assert files == (ModelFile("vae", "v", None, 5),)
    assert summary.warm == (WarmModel(ModelFile("vae", "v", None, 5), 9, 0.5, "vram", True),)
    assert summary.ended == (EndedPrompt("e", "success", 2.0, 0.5),) and (summary.running, summary.waiting) == (("r",), ("w",))
    assert await http.summary() is None
    http._tag = ""
    assert (await http.summary())[1] is None


async def test_a_refusal_is_passed_on_and_an_absent_server_is_an_error(http):
    assert await http.submit({"prompt": {}}, "me") == (400, b'{"error": "no"}')
    gone = ServerHttp("http://127.0.0.1:9")
    with pytest.raises(ServerUnreachable) as unreachable:
        await gone.submit({}, None)
    assert unreachable.value.is_refused
    await gone.close()


async def test_where_a_prompt_is(http, server):
    assert await http.where("x") == ("unknown", None)
    server.queue = [[0, "x"]]
    assert await http.where("x") == ("queued", None)
    server.history = {"x": {"outputs": {}}}
    assert await http.where("x") == ("ended", {"outputs": {}})


async def test_cancelling_withdraws_and_interrupts_this_prompt_alone(http, server):
    await http.cancel("x")
    await http.forget(["y"])
    assert server.asked == [
        ("POST", "/queue", {"delete": ["x"]}),
        ("POST", "/interrupt", {"prompt_id": "x"}),
        ("POST", "/history", {"delete": ["y"]}),
    ]
    with pytest.raises(ServerAnswer):
        await http.interrupt()


async def test_an_input_file_is_fetched_and_stored_under_its_name(http, server):
    await http.bring(InputFile("a.png", "sub", "input", "digest", f"{server.url}/file"))
    method, path, body = server.asked[-1]
    assert (method, path) == ("POST", "/upload/image") and b"content" in body and b'filename="a.png"' in body and b"sub" in body
    with pytest.raises(ServerUnreachable):
        await http.bring(InputFile("a.png", "", "input", "digest", "http://127.0.0.1:9/"))
