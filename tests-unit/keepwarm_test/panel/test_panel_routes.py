"""The panel's routes over models of a real cache: what they list, do and refuse."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from panel_fakes import GPU, Loaded, Loader, indexed, with_torch
from ram_cache_fakes import Owner, caches, get

from comfy.ram_model_cache.weights_key import weights_key
from custom_nodes.keepwarm.panel.actions import Actions
from custom_nodes.keepwarm.panel.memory import MemoryModels
from custom_nodes.keepwarm.panel.routes import add_routes
from custom_nodes.keepwarm.panel.startup import install
from custom_nodes.keepwarm.panel.watch import Watch
from custom_nodes.keepwarm.preload.startup import Preloading


class Host:
    """A server with a cache of one kept model, its files in *root*; *unloaded* is what was moved off devices."""

    def __init__(self, root, cache):
        self.files = indexed(root, checkpoints__a=40, vae__v=7, vae__broken=3, text_encoders__t=1, loras__l=2)
        self.unloaded, self.calls, self.sockets = [], [], {"ann": object()}
        self.cache = cache
        if cache is not None:
            get(cache, weights_key("model", [root / "a.safetensors"]), seconds=2.0)
        self.management = SimpleNamespace(
            current_loaded_models=[], unload_model_and_clones=lambda patcher, all_devices: self.unloaded.append(patcher)
        )
        self.queue = SimpleNamespace(between_prompts=lambda call: self.calls.append(call) or False)
        self.preloading = Preloading()
        models = MemoryModels(self.management, cache, self.files, lambda: self.preloading.preloader, True, lambda: 1000.0)
        self.actions = Actions(self.management, cache, self.queue, models, self.files, self.preloading)
        self.in_memory = lambda: [row.as_json() for row in models.rows()]
        self.text_encoder_types = lambda: ["sdxl"]
        self.watch = Watch(self.read, lambda *sent: None, lambda: self.sockets)

    def read(self):
        rows = [*self.in_memory(), *(file.row().as_json() for file in self.files.all())]
        empty = {"id": None, "running": False, "receipts": []}
        return {"rows": {row["id"]: row for row in rows}, "prompt": empty, "points": [], "bars": {}}


@pytest.fixture
def cache():
    made = next(caches(Owner()))(1000)
    yield made
    assert made.check() == []


@pytest.fixture
async def host(tmp_path, cache, monkeypatch):
    """(the server's parts, a client of its routes)."""
    async for pair in serving(Host(tmp_path, cache), monkeypatch, tmp_path):
        yield pair


@pytest.fixture
async def plain_host(tmp_path, monkeypatch):
    """The same for a server without a cache."""
    async for pair in serving(Host(tmp_path, None), monkeypatch, tmp_path):
        yield pair


async def serving(host, monkeypatch, root):
    import nodes

    with_torch(monkeypatch)
    monkeypatch.setattr(nodes, "NODE_CLASS_MAPPINGS", {"VAELoader": Loader})
    monkeypatch.setattr("folder_paths.get_full_path", lambda folder, name: str(root / name))
    monkeypatch.setattr("comfy.model_management.ram_cache", lambda: None)
    monkeypatch.setattr(Loader, "load", Loader.load)  # a keeper wraps it
    app, routes = web.Application(), web.RouteTableDef()
    add_routes(routes, host, lambda handler: handler)
    app.add_routes(routes)
    async with TestClient(TestServer(app)) as client:
        yield host, client
        await host.watch.close()


async def act(client, action, **body):
    """(status, what was said)."""
    answer = await client.post(f"/keepwarm/models/{action}", json=body)
    said = await answer.json()
    return answer.status, said.get("said") or said["error"]


async def test_all_models_are_listed_with_a_revision_and_those_in_memory_alone(host):
    _, client = host
    everything = await (await client.get("/keepwarm/models")).json()
    assert everything["rev"] == 1 and everything["text_encoder_types"] == ["sdxl"]
    assert [row["tier"] for row in everything["rows"]] == ["ram", *["disk"] * 5]
    (kept,) = (await (await client.get("/keepwarm/models?in=memory")).json())["rows"]
    assert (kept["name"], kept["files"], kept["ram_bytes"]) == ("a.safetensors", [["checkpoints", "a.safetensors"]], 40)


async def test_a_model_is_held_let_go_and_dropped(host):
    host, client = host
    (row,) = host.in_memory()
    assert (await act(client, "hold", id=row["id"]))[0] == 200 and host.in_memory()[0]["held"]
    assert (await act(client, "let-go", id=row["id"]))[0] == 200 and not host.in_memory()[0]["held"]
    assert await act(client, "drop", id=row["id"]) == (200, "Dropped.")
    assert host.in_memory() == []
    for action in ("hold", "drop", "let-go"):
        assert (await act(client, action, id=row["id"]))[0] == 409


async def test_a_model_on_a_device_moves_to_ram_between_prompts(host):
    host, client = host
    (row,) = host.in_memory()
    assert (await act(client, "to-ram", id=row["id"]))[0] == 409
    loaded = Loaded(GPU)
    host.management.current_loaded_models.append(loaded)
    host.cache.named.name_of = lambda one: row["id"].removeprefix("cache:") if one is loaded else None
    assert (await act(client, "to-ram", id=row["id"])) == (200, "It moves to RAM.")
    assert host.unloaded == []
    host.calls[0]()
    assert host.unloaded == [loaded.model]
    host.queue.between_prompts = lambda call: True
    assert (await act(client, "to-ram", id=row["id"])) == (200, "It moves to RAM when the running prompt has ended.")
    del host.queue.between_prompts
    assert (await act(client, "to-ram", id=row["id"]))[0] == 409


async def test_a_file_is_preloaded_and_let_go_where_the_pack_holds_models_itself(plain_host):
    host, client = plain_host
    status, said = await act(client, "preload", id="file:vae/v.safetensors")
    assert status == 200 and said.startswith("Preloaded in ")
    (row,) = host.in_memory()
    assert row["held"] and row["actions"] == ["let-go"] and row["name"] == "v.safetensors"
    assert [model["state"] for model in host.preloading.described()["models"]] == ["held"]
    assert (await act(client, "preload", id="file:vae/v.safetensors"))[0] == 200 and len(host.preloading.described()["models"]) == 1
    assert await act(client, "let-go", id=row["id"]) == (200, "Let go.")
    assert host.in_memory() == [] and (await act(client, "let-go", id=row["id"]))[0] == 409
    assert (await act(client, "hold", id=row["id"]))[0] == 409


async def test_what_cannot_be_preloaded_says_why(plain_host, tmp_path):
    _, client = plain_host
    assert "damaged" in (await act(client, "preload", id="file:vae/broken.safetensors"))[1]
    for row in ("file:loras/l.safetensors", "file:vae/none", "cache:x"):
        assert (await act(client, "preload", id=row))[0] == 409
    status, said = await act(client, "preload", id="file:text_encoders/t.safetensors", type="sdxl")
    assert status == 409 and "no node CLIPLoader" in said
    (tmp_path / "v.safetensors").unlink()
    assert "cannot be read" in (await act(client, "preload", id="file:vae/v.safetensors"))[1]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'{"id": 3}', b'{"id": "x", "type": []}', b'{"type": "x"}'])
async def test_bodies_that_name_no_row_are_refused(host, body):
    assert (await host[1].post("/keepwarm/models/hold", data=body)).status == 400


async def test_unknown_actions_are_not_found(host):
    assert (await act(host[1], "explode", id="cache:x"))[0] == 404


async def test_a_page_watches_only_with_a_socket_and_ends_it(host):
    host, client = host

    async def status(**body):
        return (await client.post("/keepwarm/watch", json=body)).status

    assert await status(client_id="ann", watching=True) == 200 and host.watch.watchers == 1
    assert await status(client_id="ann", watching=False) == 200 and host.watch.watchers == 0
    assert await status(client_id="bob", watching=True) == 409
    assert await status(client_id=3, watching=True) == await status(client_id="ann", watching="yes") == await status() == 400


async def test_what_changes_something_is_wrapped_and_what_only_reads_is_not(host):
    wrapped = []
    routes = web.RouteTableDef()
    add_routes(routes, host[0], lambda handler: wrapped.append(handler.__name__) or handler)
    assert wrapped == ["act"] and len(routes) == 3


async def test_two_models_are_loaded_at_once_at_most(host):
    host, client = host
    running, most, gate, lock = [0], [0], threading.Event(), threading.Lock()

    def do(action, row_id, options):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            if running[0] == 2:
                gate.set()
        gate.wait(5)
        with lock:
            running[0] -= 1
        return "done"

    host.actions.do = do
    assert await asyncio.gather(*(act(client, "hold", id="x") for _ in range(5))) == [(200, "done")] * 5
    assert most == [2]


async def test_the_server_s_panel_is_guarded_and_ends_with_it(monkeypatch):
    server = SimpleNamespace(
        routes=web.RouteTableDef(),
        app=web.Application(),
        prompt_queue=SimpleNamespace(),
        send_sync=lambda *sent: None,
        sockets={},
        user_manager=SimpleNamespace(users={"ann": "Ann", "bob": "Bob"}),
    )
    monkeypatch.setattr("server.PromptServer.instance", server, raising=False)
    monkeypatch.setattr("comfy.cli_args.args.multi_user", True, raising=False)
    install(Preloading(), [])
    server.app.add_routes(server.routes)
    async with TestClient(TestServer(server.app)) as client:
        for user, expected in (("bob", 403), ("ann", 409)):
            answer = await client.post("/keepwarm/models/hold", json={"id": "cache:x"}, headers={"Comfy-User": user})
            assert answer.status == expected
        foreign = {"Comfy-User": "ann", "Origin": "https://evil.example"}
        assert (await client.post("/keepwarm/models/hold", json={"id": "cache:x"}, headers=foreign)).status == 403
