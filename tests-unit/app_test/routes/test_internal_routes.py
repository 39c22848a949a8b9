"""/internal: log, folders, newest files."""

import os
import threading

import pytest
from aiohttp import web

from app import logger
from app.files.body_budget import BODIES, BodyBudget
from app.routes import internal as internal_routes
from app.routes.internal import InternalRoutes


@pytest.fixture
def buffer(monkeypatch):
    capture = logger._Capture()
    monkeypatch.setattr(logger, "_capture", capture)
    return capture.buffer


@pytest.fixture
def sent():
    return []


@pytest.fixture
async def client(aiohttp_client, folders, buffer, sent):
    app = web.Application()
    app[BODIES] = BodyBudget()
    internal = InternalRoutes(lambda *message: sent.append(message), lambda client_id: client_id == "here")
    app.add_subapp("/internal", internal.get_app())
    return await aiohttp_client(app)


async def test_log_as_text_and_as_entries(client, buffer):
    buffer.append("a\n")
    buffer.append("b")
    entries = buffer.entries()
    assert await (await client.get("/internal/logs")).json() == f"{entries[0]['t']} - a\n{entries[1]['t']} - b"
    raw = await (await client.get("/internal/logs/raw")).json()
    assert raw["entries"] == entries
    assert set(raw["size"]) == {"cols", "rows"}


async def test_subscribed_client_gets_new_entries_until_it_unsubscribes(client, buffer, sent):
    for enabled in (True, False):
        assert (await client.patch("/internal/logs/subscribe", json={"clientId": "here", "enabled": enabled})).status == 200
        buffer.append("x")
        buffer.announce()
    ((event, data, client_id),) = sent
    assert (event, [entry["m"] for entry in data["entries"]], client_id) == ("logs", ["x"], "here")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"clientId": 1, "enabled": true}', b'{"clientId": "a", "enabled": "yes"}'])
async def test_malformed_subscriptions_are_refused(client, body):
    assert (await client.patch("/internal/logs/subscribe", data=body)).status == 400


async def test_folder_paths_are_listed(client, folders):
    assert (await (await client.get("/internal/folder_paths")).json())["loras"] == [str(folders.models)]


async def test_files_are_listed_newest_first(client, folders):
    for age, name in enumerate(("new.png", "old.png", ".hidden")):
        (folders.output / name).write_text("x")
        os.utime(folders.output / name, (1_700_000_000 - age, 1_700_000_000 - age))
    (folders.output / "folder").mkdir()
    assert await (await client.get("/internal/files/output")).json() == ["new.png [output]", "old.png [output]"]
    assert await (await client.get("/internal/files/input")).json() == []
    folders.temp.rmdir()
    assert await (await client.get("/internal/files/temp")).json() == []


@pytest.mark.parametrize("kind", ["models", "..%2F..", "user"])
async def test_other_folders_are_not_listed(client, kind):
    assert (await client.get(f"/internal/files/{kind}")).status == 400


async def test_large_folder_does_not_hold_the_loop(client, monkeypatch):
    seen = []
    original = internal_routes.newest_files
    monkeypatch.setattr(internal_routes, "newest_files", lambda folder: seen.append(threading.current_thread()) or original(folder))
    await client.get("/internal/files/output")
    assert seen[0] is not threading.main_thread()
