"""Uploads: names, duplicates, folders, masks, hostile names."""

import asyncio
import io
import json
import os

import aiohttp
import pytest
from hostile_names import HOSTILE_NAMES, plant_links
from PIL import Image, PngImagePlugin

from app.routes import upload_form, upload_store
from app.routes.upload import UploadRoutes


@pytest.fixture
async def client(serve, folders):
    return await serve(UploadRoutes("sha256"))


def form(content=b"data", filename="a.png", **fields):
    data = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
    if content is not None:
        data.add_field("image", content, filename=filename)
    for name, value in fields.items():
        data.add_field(name, value)
    return data


async def upload(client, *arguments, route="image", **fields):
    answer = await client.post(f"/upload/{route}", data=form(*arguments, **fields))
    return answer.status, (await answer.json() if answer.content_type == "application/json" else await answer.text())


@pytest.mark.parametrize("kind", ["input", "temp", "output"])
async def test_file_lands_in_the_folder_of_its_type(client, folders, kind):
    assert await upload(client, type=kind, subfolder="x/y") == (200, {"name": "a.png", "subfolder": "x/y", "type": kind})
    assert (getattr(folders, kind) / "x" / "y" / "a.png").read_bytes() == b"data"


@pytest.mark.parametrize(
    "sent, subfolder, name, answered",
    [
        ("dir/sub/x.png", "", "x.png", "dir/sub"),
        ("dir\\sub\\x.png", "", "x.png", "dir/sub"),
        ("sub/x.png", "dir", "x.png", "dir/sub"),
        ("z.png [output]", "", "z.png", ""),
        ("z.png [temp] [input]", "", "z.png", ""),
        ("[output]", "", "[output]", ""),
    ],
)
async def test_the_answer_names_the_file_as_it_is_found(client, folders, sent, subfolder, name, answered):
    status, body = await upload(client, b"data", sent, subfolder=subfolder)
    assert (status, body) == (200, {"name": name, "subfolder": answered, "type": "input"})
    assert (folders.input / answered / name).read_bytes() == b"data"


async def test_input_is_the_default_and_the_mode_is_that_of_ordinary_files(client, folders):
    assert (await upload(client))[1] == {"name": "a.png", "subfolder": "", "type": "input"}
    assert (folders.input / "a.png").stat().st_mode & 0o777 == 0o644


async def test_same_content_is_stored_once_and_different_content_gets_a_number(client, folders):
    names = [(await upload(client, content))[1]["name"] for content in (b"one", b"one", b"two", b"six", b"two", b"one")]
    assert names == ["a.png", "a.png", "a (1).png", "a (2).png", "a (1).png", "a.png"]
    assert sorted(os.listdir(folders.input)) == ["a (1).png", "a (2).png", "a.png"]


@pytest.mark.parametrize("word", ["true", "1"])
async def test_overwrite_replaces(client, folders, word):
    await upload(client, b"one")
    assert (await upload(client, b"two", overwrite=word))[1]["name"] == "a.png"
    assert (folders.input / "a.png").read_bytes() == b"two"


async def test_folder_of_that_name_is_never_replaced(client, folders):
    (folders.input / "a.png").mkdir()
    assert (await upload(client))[1]["name"] == "a (1).png"
    assert (await upload(client, overwrite="true"))[0] == 400


async def test_concurrent_uploads_of_one_name_all_survive(client, folders):
    answers = await asyncio.gather(*(upload(client, f"content {number}".encode()) for number in range(12)))
    contents = {(folders.input / body["name"]).read_bytes() for _, body in answers}
    assert contents == {f"content {number}".encode() for number in range(12)}


@pytest.mark.parametrize("arguments", [{"content": None}, {"filename": ""}, {"type": "models"}, {"type": "../x"}])
async def test_incomplete_forms_are_refused(client, folders, arguments):
    assert (await upload(client, **arguments))[0] == 400
    assert os.listdir(folders.input) == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "multipart/form-data"),
        (b"x", "multipart/form-data; boundary=b"),
        (b"--b\r\n\r\n\r\n--b--", "multipart/form-data; boundary=b"),
        (b"{}", "application/json"),
        (b"", "multipart/form-data; boundary="),
        (b"image=x", "application/x-www-form-urlencoded"),
    ],
)
@pytest.mark.parametrize("route", ["image", "mask"])
async def test_bodies_that_are_not_a_form_are_refused(client, body, content_type, route):
    assert (await client.post(f"/upload/{route}", data=body, headers={"Content-Type": content_type})).status == 400


async def test_upload_over_the_limit_is_refused(client, folders):
    assert (await upload(client, b"x" * (1024 * 1024 + 1)))[0] == 413
    assert os.listdir(folders.input) == []


@pytest.mark.parametrize("field", ["filename", "subfolder"])
@pytest.mark.parametrize("name", [name for name in HOSTILE_NAMES if "\0" not in name])
async def test_hostile_names_write_nothing_outside(client, folders, field, name):
    plant_links(folders.input, folders.root)
    before = sorted(os.listdir(folders.root))
    for overwrite in ("true", "false"):
        status, _ = await upload(client, b"evil", **{"overwrite": overwrite, field: name})
        # The multipart parser drops leading slashes of file names, so that what remains is an ordinary relative name.
        assert status == (200 if field == "filename" and name[0] in "/\\" else 400)
    assert folders.secret.read_text() == "secret"
    assert sorted(os.listdir(folders.root)) == before
    assert {"link", "link_file.txt"} <= set(os.listdir(folders.input)) <= {"link", "link_file.txt", "etc", "host"}


async def test_nul_in_a_name_is_refused(client, folders):
    assert (await upload(client, subfolder="a\0b"))[0] == 400


async def test_file_where_a_subfolder_should_be_is_refused(client, folders):
    await upload(client, filename="x")
    assert (await upload(client, filename="y", subfolder="x"))[0] == 400


async def test_longest_name_without_room_for_a_number_is_refused(client, folders):
    name = "n" * 251 + ".png"
    assert (await upload(client, b"one", name))[0] == 200
    assert (await upload(client, b"two", name))[0] == 400


async def test_failed_write_leaves_no_empty_file(client, folders, monkeypatch):
    def fail(path, write):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(upload_store, "write_atomic_with", fail)
    assert (await upload(client))[0] == 507
    assert os.listdir(folders.input) == []


def png(size, color, **texts):
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    Image.new("RGBA", size, color).save(buffer, format="png", pnginfo=info)
    return buffer.getvalue()


async def upload_mask(client, mask, original, **fields):
    reference = original if isinstance(original, str) else json.dumps(original)
    return await upload(client, mask, "mask.png", route="mask", original_ref=reference, **fields)


async def test_mask_becomes_the_alpha_of_the_original_and_texts_are_kept(client, folders):
    (folders.output / "o.png").write_bytes(png((4, 2), (9, 8, 7, 255), workflow='{"w": 1}', prompt="{}"))
    status, body = await upload_mask(
        client, png((4, 2), (0, 0, 0, 33)), {"filename": "o.png", "subfolder": "", "type": "output"}, subfolder="clipspace"
    )
    assert (status, body) == (200, {"name": "mask.png", "subfolder": "clipspace", "type": "input"})
    with Image.open(folders.input / "clipspace" / "mask.png") as image:
        assert image.getpixel((0, 0)) == (9, 8, 7, 33)
        assert image.text == {"workflow": '{"w": 1}', "prompt": "{}"}


async def test_turned_photograph_is_masked_as_it_is_seen(client, folders):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2), "red").save(folders.input / "photo.jpg", exif=exif)
    status, _ = await upload_mask(client, png((2, 4), (0, 0, 0, 0)), {"filename": "photo.jpg", "type": "input"})
    assert status == 200


@pytest.mark.parametrize(
    "original",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"filename": ""}',
        '{"filename": 3}',
        '{"filename": "o.png", "subfolder": 3}',
        '{"filename": "none.png"}',
        '{"filename": "o.png", "type": "models"}',
        '{"filename": "../secret.txt"}',
        '{"filename": "secret.txt", "subfolder": ".."}',
        '{"filename": "text.png"}',
        '{"filename": "small.png"}',
        '{"filename": "a\\u0000b"}',
        "[" * 50_000,
    ],
)
async def test_mask_that_cannot_be_applied_is_a_clear_error(client, folders, original):
    (folders.output / "o.png").write_bytes(png((4, 2), "red"))
    (folders.output / "small.png").write_bytes(png((1, 1), "red"))
    (folders.output / "text.png").write_text("not an image")
    status, text = await upload_mask(client, png((4, 2), "blue"), original)
    assert status == 400
    assert "refused" in text
    assert os.listdir(folders.input) == []


async def test_mask_without_original_or_without_image_data_is_refused(client, folders):
    assert (await upload(client, png((4, 2), "blue"), route="mask"))[0] == 400
    (folders.output / "o.png").write_bytes(png((4, 2), "red"))
    assert (await upload_mask(client, b"no image", {"filename": "o.png"}))[0] == 400


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ('Content-Disposition: form-data; name="x"\r\n\r\ny', 413),
        ('Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Encoding: gzip\r\n\r\ny', 400),
        ('Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Transfer-Encoding: base64\r\n\r\neQ==', 400),
        ("Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\n--c--", 400),
    ],
    ids=["too many", "packed", "encoded", "nested"],
)
async def test_forms_with_many_or_encoded_parts_are_refused(client, folders, parts, status):
    body = "".join(f"--b\r\n{parts}\r\n" for _ in range(upload_form.MAX_PARTS + 1)) + "--b--\r\n"
    answer = await client.post("/upload/image", data=body.encode(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status == status, await answer.text()
    assert os.listdir(folders.input) == []


async def test_a_text_in_a_form_has_a_limit_of_its_own(client, folders, monkeypatch):
    monkeypatch.setattr(upload_form, "MAX_TEXT_BYTES", 100)
    assert (await upload(client, subfolder="x" * 101))[0] == 413
    assert (await upload(client, note="x" * 100))[0] == 200


async def test_a_form_that_does_not_end_is_given_up(client, folders, monkeypatch):
    monkeypatch.setattr(upload_form, "FORM_LIMIT_S", 0.05)
    never = asyncio.Event()

    async def slowly():
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nx'
        await never.wait()

    answer = await client.post("/upload/image", data=slowly(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status == 408
    never.set()
