"""The composed application: doubling, packs' routes, the page, handlers of packs, names that packs use."""

import asyncio
import uuid

import aiohttp
import pytest
from aiohttp import web

import server as server_module
from app.running import compose
from protocol import BinaryEventTypes


@pytest.fixture
def no_frontend(monkeypatch):
    monkeypatch.setattr(compose.FrontendManager, "init_frontend", no_page)


async def answer_text(client, path):
    answer = await client.get(path)
    return answer.status, await answer.text()


async def test_routes_of_packs_are_doubled(server, aiohttp_client):
    @server.routes.get("/pack/hello/{name}")
    async def hello(request):
        return web.Response(text=request.match_info["name"])

    @server.routes.view("/pack/view")
    class View(web.View):
        async def get(self):
            return web.Response(text="view")

    @server.routes.get("/pack/plain", name="named")
    def plain(request):
        return web.Response(text=str(request.app.router["named"].url_for()))

    with pytest.deprecated_call(match="Bare functions"):
        server.add_routes()
    client = await aiohttp_client(server.app)
    for path, text in (("/pack/hello/you", "you"), ("/pack/view", "view"), ("/pack/plain", "/pack/plain")):
        assert await answer_text(client, path) == await answer_text(client, "/api" + path) == (200, text)


async def test_folders_of_packs_are_served_once(server, aiohttp_client, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    server.routes.static("/pack/files", tmp_path)
    server.app.add_routes([web.static("/direct", tmp_path)])
    server.add_routes()
    client = await aiohttp_client(server.app)
    assert [(await client.get(path)).status for path in ("/pack/files/a.txt", "/direct/a.txt", "/api/pack/files/a.txt")] == [200, 200, 404]


async def test_a_pack_cannot_take_or_break_core_routes(server, aiohttp_client, caplog):
    async def other(request):
        return web.Response(text="taken over")

    server.routes.get("/prompt")(other)
    server.routes.get("no-slash")(other)
    server.routes.get("/after")(other)
    server.add_routes()
    client = await aiohttp_client(server.app)
    assert (await (await client.get("/prompt")).json()) == {"exec_info": {"queue_remaining": 0}}
    assert await answer_text(client, "/after") == (200, "taken over")
    assert "no-slash" in caplog.text


async def test_middlewares_of_packs_see_requests(server, aiohttp_client):
    @web.middleware
    async def stamp(request, handler):
        response = await handler(request)
        response.headers["X-Pack"] = "1"
        return response

    server.app.middlewares.append(stamp)
    server.add_routes()
    client = await aiohttp_client(server.app)
    assert (await client.get("/prompt")).headers["X-Pack"] == "1"


async def test_page_is_served_at_the_root(client):
    answer = await client.get("/")
    assert (answer.status, await answer.text()) == (200, "<html>the page</html>")
    assert "no-store" in answer.headers["Cache-Control"]


def no_page(version):
    raise compose.FrontendMissing("install it")


@pytest.mark.parametrize("flags", [{"front_end_root": None}])
async def test_without_a_page_the_rest_works(no_frontend, client):
    assert await answer_text(client, "/") == (503, "install it")
    assert (await client.get("/prompt")).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/users",
        "/settings",
        "/userdata?dir=x",
        "/v2/userdata",
        "/extensions",
        "/embeddings",
        "/models",
        "/experiment/models",
        "/i18n",
        "/workflow_templates",
        "/global_subgraphs",
        "/node_replacements",
        "/features",
        "/system_stats",
        "/history",
        "/queue",
        "/view?filename=none",
    ],
)
async def test_every_subsystem_answers_with_and_without_api(client, path):
    plain, doubled = await client.get(path), await client.get("/api" + path)
    assert plain.status == doubled.status
    assert plain.status in (200, 404)
    if plain.status == 404:
        assert path.startswith(("/userdata", "/view"))


async def test_internal_routes_are_not_doubled(client):
    assert (await client.get("/internal/folder_paths")).status == 200
    assert (await client.get("/api/internal/folder_paths")).status == 404


async def test_assets_answer_disabled_under_api_only(client):
    answer = await client.get("/api/assets")
    assert (answer.status, (await answer.json())["error"]["code"]) == (503, "SERVICE_DISABLED")
    assert (await client.get("/assets")).status == 404


async def test_encoded_slashes_stay_in_their_segment(client):
    assert (await client.post("/api/userdata/sub%2Ffile.txt", data=b"content")).status == 200
    assert await answer_text(client, "/userdata/sub%2Ffile.txt") == (200, "content")


async def test_log_messages_reach_their_subscriber(server, connect, client):
    socket = await connect("me")
    assert (await client.patch("/internal/logs/subscribe", json={"clientId": "me", "enabled": True})).status == 200
    server.internal_routes.subscriptions.publish([{"t": "now", "m": "line"}])
    message = await socket.next()
    assert (message["type"], message["data"]["entries"]) == ("logs", [{"t": "now", "m": "line"}])


async def test_the_server_has_the_names_that_packs_use(server):
    assert server_module.PromptServer.instance is server
    assert server_module.web is web and server_module.uuid is uuid and server_module.BinaryEventTypes is BinaryEventTypes
    assert server.supports == ["custom_nodes_from_web"]
    assert isinstance(server.routes, web.RouteTableDef) and isinstance(server.app, web.Application)
    assert (server.client_id, server.last_node_id, server.last_prompt_id, server.number) == (None, None, None, 0)
    assert server.sockets == {} == server.sockets_metadata and server.on_prompt_handlers == []
    assert server.prompt_queue.server is server and server.get_queue_info() == {"exec_info": {"queue_remaining": 0}}
    assert server.user_manager and server.node_replace_manager and server.web_root and server.messages.empty()
    assert server.encode_bytes(2, b"x") == b"\0\0\0\2x"


async def test_a_replaced_send_sync_is_called(server):
    heard = []
    server.send_sync = lambda *message: heard.append(message)
    server.queue_updated()
    server.prompt_queue.put((0, "p", {}, {}, [], {}))
    assert [message[0] for message in heard] == ["status", "status"]


async def test_client_session_is_opened_by_starting_and_closed_at_the_end(server, unused_tcp_port):
    started = []
    server.add_routes()
    await server.start("127.0.0.1", unused_tcp_port, call_on_start=lambda *place: started.append(place))
    assert started == [("http", "127.0.0.1", unused_tcp_port)]
    assert isinstance(server.client_session, aiohttp.ClientSession)
    async with server.client_session.get(f"http://127.0.0.1:{unused_tcp_port}/prompt") as answer:
        assert answer.status == 200
    session = server.client_session
    await server.close()
    assert session.closed and server.client_session is None


async def test_messages_of_a_pack_that_cannot_be_sent_do_not_stop_the_others(server, connect, caplog):
    socket = await connect("me")

    async def broken(*_):
        raise RuntimeError("a pack's own send_json")

    kept, server.send_json = server.send_json, broken
    server.send_sync("first", {}, "me")
    while not server.messages.empty() or "own send_json" not in caplog.text:
        await asyncio.sleep(0)
    server.send_json = kept
    server.send_sync("second", {}, "me")
    assert (await socket.next())["type"] == "second"
