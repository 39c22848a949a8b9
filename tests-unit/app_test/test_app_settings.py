"""Settings survive damage, errors and concurrent writers."""

import asyncio
import json
import os

import pytest

from app import app_settings
from app.files import json_file
from app.user_manager import UserManager


@pytest.fixture
def file(folders):
    (folders.user / "default").mkdir()
    return folders.user / "default" / "comfy.settings.json"


async def test_settings_are_merged_and_read_back(serve, file):
    client = await serve(UserManager())
    assert await (await client.get("/settings")).json() == {}
    assert (await client.post("/settings", json={"a": 1, "b": {"c": None}})).status == 200
    assert (await client.post("/settings/Comfy.x", data=b'"text"', headers={"Content-Type": "text/plain"})).status == 200
    assert await (await client.get("/settings")).json() == {"a": 1, "b": {"c": None}, "Comfy.x": "text"}
    assert await (await client.get("/settings/a")).json() == 1
    assert await (await client.get("/settings/unknown")).json() is None
    assert json.loads(file.read_text())["Comfy.x"] == "text"


async def test_first_setting_makes_the_users_folder(serve, folders):
    client = await serve(UserManager())
    assert (await client.post("/settings/a", json=1)).status == 200
    assert (folders.user / "default" / "comfy.settings.json").is_file()


@pytest.mark.parametrize("damage", [b"{", b"", b"[1]", b"\xff", b'{"a": NaN}', b'{"a": 1e999}'])
async def test_damaged_file_is_kept_aside_and_defaults_are_used(serve, file, damage, caplog):
    file.write_bytes(damage)
    client = await serve(UserManager())
    assert await (await client.get("/settings")).json() == {}
    aside = [path for path in file.parent.iterdir() if "damaged" in path.name]
    assert [path.read_bytes() for path in aside] == [damage]
    assert aside[0].name in caplog.text
    await client.post("/settings/a", json=1)
    assert json.loads(file.read_text()) == {"a": 1}


async def test_a_damaged_file_falls_back_to_the_settings_before_the_last_change(serve, file, caplog):
    client = await serve(UserManager())
    for number in range(3):
        await client.post("/settings/a", json=number)
    file.write_bytes(b"\0" * 100)
    assert await (await client.get("/settings")).json() == {"a": 1}
    assert json.loads(file.read_text()) == {"a": 1}
    assert caplog.text.count("before the last change") == 1


async def test_damaging_the_file_again_and_again_leaves_a_handful_of_copies(serve, file, monkeypatch):
    client = await serve(UserManager())
    for number in range(9):
        monkeypatch.setattr(json_file.os, "getpid", lambda number=number: number)
        file.write_bytes(b"{")
        await client.get("/settings")
    assert len([name for name in os.listdir(file.parent) if "damaged" in name]) == 5


async def test_file_that_cannot_be_read_is_not_overwritten(serve, file, monkeypatch, caplog):
    file.write_text('{"a": 1}')

    def deny(path, max_bytes):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(json_file, "read_regular", deny)
    client = await serve(UserManager())
    assert await (await client.get("/settings")).json() == {}
    assert (await client.post("/settings/b", json=2)).status == 500
    assert json.loads(file.read_text()) == {"a": 1}
    assert "Permission denied" in caplog.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/settings", b""),
        ("/settings", b"[]"),
        ("/settings", b"{"),
        ("/settings/x", b""),
        ("/settings/x", b"NaN"),
        ("/settings/x", b"1e999"),
        ("/settings/x", b"[-1e999]"),
        ("/settings/x", b"[" * 50_000),
    ],
)
async def test_malformed_settings_are_refused_and_change_nothing(serve, file, path, body):
    file.write_text('{"a": 1}')
    client = await serve(UserManager())
    assert (await client.post(path, data=body)).status == 400
    assert json.loads(file.read_text()) == {"a": 1}


async def test_what_is_nested_deeply_or_would_grow_the_file_too_much_is_refused(serve, file, monkeypatch):
    monkeypatch.setattr(app_settings, "MAX_SETTINGS_BYTES", 10_000)
    client = await serve(UserManager())
    assert (await client.post("/settings/a", json=1)).status == 200
    for value in (b"[" * 100 + b"]" * 100, json.dumps("x" * 10_000).encode()):
        answer = await client.post("/settings/b", data=value)
        assert answer.status == 413 and "not saved" in await answer.text()
    assert await (await client.get("/settings")).json() == {"a": 1}


async def test_the_file_is_not_much_longer_than_what_was_sent(serve, file):
    client = await serve(UserManager())
    body = json.dumps({"deep": [[[[[[[[1] * 50] * 50]]]]]]}).encode()
    assert (await client.post("/settings", data=body)).status == 200
    assert file.stat().st_size < len(body) + 100


async def test_no_update_is_lost_when_many_arrive_at_once(serve, file):
    client = await serve(UserManager())
    await asyncio.gather(*(client.post(f"/settings/k{number}", json=number) for number in range(40)))
    assert json.loads(file.read_text()) == {f"k{number}": number for number in range(40)}
    assert sorted(os.listdir(file.parent)) == [file.name, file.name + ".last-good"]
