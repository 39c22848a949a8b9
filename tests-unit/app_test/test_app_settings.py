"""Settings survive damage, errors and concurrent writers."""

import asyncio
import json
import os

import pytest

from app import app_settings
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


@pytest.mark.parametrize("damage", [b"{", b"", b"[1]", b"\xff", b'{"a": NaN}'])
async def test_damaged_file_is_kept_aside_and_defaults_are_used(serve, file, damage, caplog):
    file.write_bytes(damage)
    client = await serve(UserManager())
    assert await (await client.get("/settings")).json() == {}
    aside = [path for path in file.parent.iterdir() if "damaged" in path.name]
    assert [path.read_bytes() for path in aside] == [damage]
    assert aside[0].name in caplog.text
    await client.post("/settings/a", json=1)
    assert json.loads(file.read_text()) == {"a": 1}


async def test_file_that_cannot_be_read_is_not_overwritten(serve, file, monkeypatch, caplog):
    file.write_text('{"a": 1}')

    def deny(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(app_settings, "_load", deny)
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
        ("/settings/x", b"[" * 50_000),
    ],
)
async def test_malformed_settings_are_refused_and_change_nothing(serve, file, path, body):
    file.write_text('{"a": 1}')
    client = await serve(UserManager())
    assert (await client.post(path, data=body)).status == 400
    assert json.loads(file.read_text()) == {"a": 1}


async def test_no_update_is_lost_when_many_arrive_at_once(serve, file):
    client = await serve(UserManager())
    await asyncio.gather(*(client.post(f"/settings/k{number}", json=number) for number in range(40)))
    assert json.loads(file.read_text()) == {f"k{number}": number for number in range(40)}
    assert os.listdir(file.parent) == [file.name]
