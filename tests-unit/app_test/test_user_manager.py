"""Users: one without --multi-user, known ones with it, reserved names never."""

import json

import pytest

from app.user_manager import UserManager
from comfy.cli_args import args


@pytest.fixture
def multi_user(monkeypatch):
    monkeypatch.setattr(args, "multi_user", True)


async def test_single_user_mode_has_no_list_of_users(serve, folders):
    client = await serve(UserManager())
    assert await (await client.get("/users")).json() == {"storage": "server", "migrated": False}
    (folders.user / "default").mkdir()
    assert await (await client.get("/users")).json() == {"storage": "server", "migrated": True}


async def test_added_user_is_listed_and_survives_a_restart(serve, folders, multi_user):
    client = await serve(UserManager())
    user_id = await (await client.post("/users", json={"username": "Ada Löve"})).json()
    assert user_id.startswith("Ada-L-ve_")
    assert await (await client.get("/users")).json() == {"storage": "server", "users": {user_id: "Ada Löve"}}
    assert UserManager().users == {user_id: "Ada Löve"}


async def test_user_can_be_added_in_single_user_mode_without_losing_those_there(serve, folders):
    (folders.user / "users.json").write_text('{"old_1": "old"}')
    client = await serve(UserManager())
    user_id = await (await client.post("/users", json={"username": "new"})).json()
    assert json.loads((folders.user / "users.json").read_text()) == {"old_1": "old", user_id: "new"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"username": ""}',
        b'{"username": "  "}',
        b'{"username": 3}',
        b'{"username": "__x"}',
        b'{"username": " __x"}',
        b'{"username": "taken"}',
    ],
)
async def test_unusable_user_names_are_refused(serve, folders, body):
    manager = UserManager()
    manager.add_user("taken")
    client = await serve(manager)
    answer = await client.post("/users", data=body)
    assert answer.status == 400
    assert len(manager.users) == 1


@pytest.mark.parametrize("name", ["../../x", "a/b", "x" * 5000, "..", "C:\\x", "日本"])
def test_user_id_is_always_a_plain_folder_name(folders, name):
    user_id = UserManager().add_user(name)
    assert all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in user_id)
    assert len(user_id) < 120


@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_list_of_users_starts_empty_with_a_warning(folders, content, caplog):
    (folders.user / "users.json").write_text(content)
    assert UserManager().users == {}
    assert "users.json" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/settings", 401),
        ("GET", "/settings/x", 401),
        ("POST", "/settings", 401),
        ("POST", "/settings/x", 401),
        ("GET", "/v2/userdata", 403),
        ("GET", "/userdata?dir=x", 403),
        ("GET", "/userdata/x", 403),
        ("POST", "/userdata/x", 403),
        ("DELETE", "/userdata/x", 403),
        ("POST", "/userdata/x/move/y", 403),
    ],
)
@pytest.mark.parametrize("user", ["nobody", "__system", "", "../default", "default/.."])
async def test_unknown_and_reserved_users_are_refused_everywhere(serve, folders, multi_user, method, path, status, user):
    manager = UserManager()
    manager.users = {"ada_1": "Ada"}
    (folders.user / "__system").mkdir()
    (folders.user / "__system" / "x").write_text("secret")
    client = await serve(manager)
    answer = await client.request(method, path, headers={"Comfy-User": user}, data=b"{}")
    assert answer.status == status
    assert "secret" not in await answer.text()


async def test_users_do_not_see_each_others_files_and_settings(serve, folders, multi_user):
    manager = UserManager()
    manager.users = {"ada_1": "Ada", "bob_2": "Bob"}
    client = await serve(manager)
    await client.post("/userdata/a.txt", data=b"of ada", headers={"Comfy-User": "ada_1"})
    await client.post("/settings", json={"x": 1}, headers={"Comfy-User": "ada_1"})
    assert (await client.get("/userdata/a.txt", headers={"Comfy-User": "bob_2"})).status == 404
    assert await (await client.get("/settings", headers={"Comfy-User": "bob_2"})).json() == {}
    assert (folders.user / "ada_1" / "a.txt").read_bytes() == b"of ada"


async def test_user_header_means_nothing_in_single_user_mode(serve, folders):
    client = await serve(UserManager())
    await client.post("/userdata/a.txt", data=b"x", headers={"Comfy-User": "__system"})
    assert (folders.user / "default" / "a.txt").exists()
