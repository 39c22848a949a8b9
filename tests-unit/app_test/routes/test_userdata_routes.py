"""User data: listing, reading, writing, moving, and hostile names."""

import os

import pytest
from hostile_names import HOSTILE_NAMES, encoded, plant_links

from app.user_manager import UserManager


@pytest.fixture
def home(folders):
    home = folders.user / "default"
    (home / "workflows" / "deep").mkdir(parents=True)
    (home / "workflows" / "b.json").write_text("{}")
    (home / "workflows" / "deep" / "a ü.json").write_text("[1]")
    (home / "workflows" / ".hidden.json").write_text("")
    return home


@pytest.fixture
async def client(serve, home):
    return await serve(UserManager())


async def test_list_is_flat_unless_recursive_and_leaves_out_hidden_files(client):
    assert await (await client.get("/userdata?dir=workflows")).json() == ["b.json"]
    assert await (await client.get("/userdata?dir=workflows&recurse=true")).json() == ["deep/a ü.json", "b.json"]


async def test_a_split_listing_gives_the_parts_of_paths(client):
    listed = await (await client.get("/userdata?dir=workflows&recurse=true&split=true")).json()
    assert listed == [["deep/a ü.json", "deep", "a ü.json"], ["b.json", "b.json"]]


async def test_list_with_details_has_milliseconds(client, home):
    os.utime(home / "workflows" / "b.json", (1_700_000_000, 1_700_000_000.5))
    listed = await (await client.get("/userdata?dir=workflows&full_info=true&split=false")).json()
    assert listed[0].pop("created") > 1_000_000_000_000
    assert listed == [{"path": "b.json", "size": 2, "modified": 1_700_000_000_500}]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("?dir=", 400),
        ("?dir=none", 404),
        ("?dir=workflows%2Fb.json", 404),
        ("?dir=..", 403),
        ("?dir=%2Fetc", 403),
        ("?dir=a%00b", 400),
    ],
)
async def test_list_of_an_unusable_folder(client, query, status):
    assert (await client.get("/userdata" + query)).status == status


async def test_second_listing_gives_folders_first_and_seconds(client, home):
    os.utime(home / "workflows" / "b.json", (1_700_000_000, 1_700_000_000))
    listed = await (await client.get("/v2/userdata?path=workflows")).json()
    assert [(item["type"], item["path"], item["name"]) for item in listed] == [
        ("directory", "workflows/deep", "deep"),
        ("file", "workflows/.hidden.json", ".hidden.json"),
        ("file", "workflows/b.json", "b.json"),
        ("file", "workflows/deep/a ü.json", "a ü.json"),
    ]
    assert listed[2]["modified"] == 1_700_000_000
    assert listed[2]["size"] == 2
    assert "size" not in listed[0]


async def test_second_listing_of_a_user_without_folder_is_empty_and_of_a_missing_one_is_404(serve, folders):
    client = await serve(UserManager())
    assert await (await client.get("/v2/userdata")).json() == []
    assert (await client.get("/v2/userdata?path=none")).status == 404
    assert (await client.get("/v2/userdata?path=../x")).status == 403


async def test_written_file_is_read_back_as_attachment(client, home):
    answer = await client.post(encoded("/userdata/{}", "workflows/new/x ü.json"), data=b"\x00bytes")
    assert await answer.json() == "workflows/new/x ü.json"
    read = await client.get(encoded("/userdata/{}", "workflows/new/x ü.json"))
    assert await read.read() == b"\x00bytes"
    assert read.headers["Content-Disposition"].startswith("attachment;")
    assert read.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.js", "a.xml", "a.xhtml", "a.HTM", "a.mjs", "a.css"])
async def test_active_content_is_only_a_download(client, name):
    await client.post(f"/userdata/{name}", data=b"<script>")
    assert (await client.get(f"/userdata/{name}")).headers["Content-Type"] == "application/octet-stream"


async def test_percent_signs_in_names_are_decoded_once(client, home):
    await client.post(encoded("/userdata/{}", "100%2F.txt"), data=b"x")
    assert (home / "100%2F.txt").is_file()


async def test_existing_file_is_replaced_unless_overwrite_is_false(client, home):
    assert (await client.post("/userdata/f", data=b"1")).status == 200
    assert (await client.post("/userdata/f?overwrite=false", data=b"2")).status == 409
    assert (home / "f").read_bytes() == b"1"
    info = await (await client.post("/userdata/f?overwrite=true&full_info=true", data=b"333")).json()
    assert (info["path"], info["size"]) == ("f", 3)
    assert info["modified"] > 1_000_000_000_000
    assert sorted(os.listdir(home)) == ["f", "workflows"]


async def test_folder_in_the_way_is_a_conflict(client):
    assert (await client.post("/userdata/workflows", data=b"1")).status == 409
    assert (await client.post(encoded("/userdata/{}", "workflows/b.json/x"), data=b"1")).status == 409
    assert (await client.post(encoded("/userdata/{}/move/workflows?overwrite=true", "workflows/b.json"))).status == 409


async def test_files_are_deleted_and_folders_are_not(client, home):
    assert (await client.delete(encoded("/userdata/{}", "workflows/b.json"))).status == 204
    assert (await client.delete(encoded("/userdata/{}", "workflows/b.json"))).status == 404
    assert (await client.delete("/userdata/workflows")).status == 404
    assert (home / "workflows").is_dir()


async def test_move_needs_overwrite_to_replace(client, home):
    (home / "x").write_text("x")
    (home / "y").write_text("y")
    assert (await client.post("/userdata/x/move/y")).status == 409
    assert (await client.post("/userdata/x/move/y?overwrite=false")).status == 409
    assert (home / "y").read_text() == "y"
    assert await (await client.post("/userdata/x/move/y?overwrite=true")).json() == "y"
    assert (home / "y").read_text() == "x"
    assert not (home / "x").exists()
    assert (await client.post("/userdata/x/move/z")).status == 404
    moved = await (await client.post(encoded("/userdata/y/move/{}?full_info=true", "new/place.txt"))).json()
    assert (moved["path"], moved["size"]) == ("new/place.txt", 1)


async def test_move_onto_itself_changes_nothing(client, home):
    (home / "x").write_text("x")
    assert (await client.post("/userdata/x/move/x?overwrite=true")).status == 200
    assert (home / "x").read_text() == "x"


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_hostile_names_reach_nothing_outside(client, home, folders, name):
    plant_links(home, folders.root)
    (home / "mine").write_text("mine")
    requests = [
        ("GET", "/userdata/{}"),
        ("POST", "/userdata/{}"),
        ("DELETE", "/userdata/{}"),
        ("GET", "/v2/userdata?path={}"),
        ("POST", "/userdata/{}/move/w?overwrite=true"),
        ("POST", "/userdata/mine/move/{}?overwrite=true"),
        ("GET", "/userdata?recurse=true&dir={}"),
    ]
    before = sorted(os.listdir(folders.root))
    for method, path in requests:
        answer = await client.request(method, encoded(path, name), data=b"evil" if method == "POST" else None)
        relative_is_fine = path == "/v2/userdata?path={}" and name.startswith(("/", "//"))
        assert answer.status in ((400, 403, 404) if not relative_is_fine else (404,)), (method, path, name, answer.status)
        assert "secret" not in (await answer.text()).replace("secret.txt", "")
    assert folders.secret.read_text() == "secret"
    assert sorted(os.listdir(folders.root)) == before
    assert (home / "mine").read_text() == "mine"


async def test_links_that_lead_out_are_not_listed(client, home, folders):
    plant_links(home, folders.root)
    assert [item["path"] for item in await (await client.get("/v2/userdata")).json() if "link" in item["path"]] == []
    assert await (await client.get("/userdata?dir=.&recurse=true")).json() == ["workflows/deep/a ü.json", "workflows/b.json"]


async def test_body_over_the_limit_is_refused(client, home):
    assert (await client.post("/userdata/big", data=b"x" * (1024 * 1024 + 1))).status == 413
    assert not (home / "big").exists()
