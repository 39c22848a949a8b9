"""Model lists, previews and metadata."""

import base64
import io
import json
import os
import struct

import pytest
from hostile_names import HOSTILE_NAMES, encoded
from PIL import Image

from app.model_manager import ModelFileManager
from app.routes.models import ModelRoutes


def safetensors(path, metadata, padding=0):
    header = json.dumps({"__metadata__": metadata} if metadata is not None else {}).encode() + b" " * padding
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def picture(path, size=(8, 6)):
    Image.new("RGB", size, "red").save(path)


@pytest.fixture
async def client(serve, folders):
    (folders.models / "sub").mkdir()
    safetensors(folders.models / "sub" / "a.safetensors", {"k": "v"})
    safetensors(folders.models / "b.safetensors", None)
    (folders.models / "readme.txt").write_text("x")
    return await serve(ModelRoutes(), ModelFileManager())


async def test_folders_models_and_embeddings_are_listed_by_name(client):
    assert await (await client.get("/models")).json() == ["loras", "embeddings", "custom_nodes", "configs"]
    assert sorted(await (await client.get("/models/loras")).json()) == ["b.safetensors", "sub/a.safetensors"]
    assert sorted(await (await client.get("/embeddings")).json()) == ["b", "sub/a"]
    assert (await client.get("/models/none")).status == 404


async def test_folders_with_their_extensions(client, folders):
    listed = await (await client.get("/experiment/models")).json()
    assert listed[0] == {"name": "loras", "folders": [str(folders.models)], "extensions": [".safetensors"]}
    assert [item["name"] for item in listed] == ["loras", "embeddings"]


async def test_files_are_listed_with_size_and_times(client, folders):
    os.utime(folders.models / "b.safetensors", (1_700_000_000, 1_700_000_000))
    listed = await (await client.get("/experiment/models/loras")).json()
    assert [(item["name"], item["pathIndex"]) for item in listed] == [("b.safetensors", 0), ("sub/a.safetensors", 0)]
    assert listed[0]["modified"] == 1_700_000_000
    assert listed[0]["size"] == (folders.models / "b.safetensors").stat().st_size
    assert (await client.get("/experiment/models/none")).status == 404


async def test_linked_folders_are_listed_once_even_when_they_loop(client, folders):
    os.symlink(folders.models, folders.models / "sub" / "loop")
    names = [item["name"] for item in await (await client.get("/experiment/models/loras")).json()]
    assert names == ["b.safetensors", "sub/a.safetensors"]


@pytest.mark.parametrize("image", ["b.png", "b.preview.png", "b.jpg", "b.webp"])
async def test_image_beside_the_model_is_its_preview(client, folders, image):
    picture(folders.models / image)
    answer = await client.get("/experiment/models/preview/loras/0/b.safetensors")
    shown = Image.open(io.BytesIO(await answer.read()))
    assert (answer.status, answer.content_type, shown.format, shown.size) == (200, "image/webp", "WEBP", (8, 6))


async def test_cover_inside_the_metadata_is_a_preview(client, folders):
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3)).save(buffer, format="png")
    safetensors(folders.models / "c.safetensors", {"ssmd_cover_images": json.dumps([base64.b64encode(buffer.getvalue()).decode()])})
    assert (await client.get("/experiment/models/preview/loras/0/c.safetensors")).status == 200


@pytest.mark.parametrize("covers", ["", "x", "[3]", "{}", '["!!"]', '["aaaa"]'])
async def test_odd_covers_give_no_preview(client, folders, covers):
    safetensors(folders.models / "c.safetensors", {"ssmd_cover_images": covers})
    assert (await client.get("/experiment/models/preview/loras/0/c.safetensors")).status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("loras/x/b", 400),
        ("loras/-1/b.safetensors", 400),
        ("loras/7/b.safetensors", 404),
        ("loras/0/", 400),
        ("none/0/b.safetensors", 404),
        ("loras/0/none.safetensors", 404),
        ("loras/0/b.safetensors", 404),
        ("loras/99999999999/b", 400),
        ("loras/²/b", 400),
    ],
)
async def test_missing_previews_are_not_found(client, path, status):
    assert (await client.get("/experiment/models/preview/" + path)).status == status


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_hostile_names_show_no_preview_or_metadata(client, folders, name):
    picture(folders.root / "secret.png")
    safetensors(folders.root / "secret.safetensors", {"secret": "x"})
    os.symlink(folders.root, folders.models / "link")
    os.symlink(folders.root / "secret.png", folders.models / "link_file.png")
    assert (await client.get(encoded("/experiment/models/preview/loras/0/{}", name))).status in (400, 403, 404)
    name = name.replace("secret.txt", "secret.safetensors").replace("link/", "no_link/")
    answer = await client.get(encoded("/view_metadata/loras?filename={}", name))
    assert answer.status in (400, 403, 404)


async def test_metadata_of_the_header(client, folders):
    assert await (await client.get("/view_metadata/loras?filename=sub/a.safetensors")).json() == {"k": "v"}
    safetensors(folders.models / "large.safetensors", {"k": "v"}, padding=1024 * 1024)
    (folders.models / "short.safetensors").write_bytes(b"123")
    (folders.models / "odd.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")
    for name in ("b.safetensors", "none.safetensors", "readme.txt", "large.safetensors", "short.safetensors", "odd.safetensors", ""):
        assert (await client.get("/view_metadata/loras", params={"filename": name})).status == 404, name
    assert (await client.get("/view_metadata/loras")).status == 404
    assert (await client.get("/view_metadata/none?filename=a.safetensors")).status == 404
