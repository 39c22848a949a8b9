"""/view: names, folders, ranges, previews, channels, active content, hostile names."""

import io

import pytest
from hostile_names import HOSTILE_NAMES, encoded, plant_links
from PIL import Image

from app.routes import view_image
from app.routes.view import ViewRoutes
from comfy.images import picture_files


@pytest.fixture
def files(folders):
    (folders.output / "a.bin").write_bytes(bytes(range(100)))
    (folders.output / "sub").mkdir()
    (folders.output / "sub" / "b.txt").write_text("in sub")
    (folders.input / "in.txt").write_text("input")
    (folders.temp / "t.txt").write_text("temp")
    image = Image.new("RGBA", (4, 3), (10, 200, 30, 255))
    image.putpixel((0, 0), (1, 2, 3, 0))
    image.save(folders.output / "p.png")
    image.convert("RGB").save(folders.output / "q.png")
    (folders.output / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    return folders


@pytest.fixture
async def client(serve, files):
    return await serve(ViewRoutes())


async def image_of(answer):
    return Image.open(io.BytesIO(await answer.read()))


@pytest.mark.parametrize(
    ("query", "content"),
    [
        ("filename=b.txt&subfolder=sub", "in sub"),
        ("filename=in.txt&type=input", "input"),
        ("filename=t.txt&type=temp", "temp"),
        ("filename=in.txt [input]", "input"),
        ("filename=in.txt [input]&type=temp", "input"),
        ("filename=sub/b.txt&subfolder=sub", "in sub"),
        ("filename=b.txt&subfolder=sub&rand=0.5&t=1&res=512", "in sub"),
        ("filename=in.txt&type=input&channel=rgba", "input"),
    ],
)
async def test_file_is_found_by_name_folder_and_type(client, query, content):
    answer = await client.get("/view?" + query)
    assert (answer.status, await answer.text()) == (200, content)
    assert answer.headers["Content-Disposition"].startswith('filename="')


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("filename=", 400),
        ("filename=none.png", 404),
        ("filename=a.bin&type=models", 400),
        ("filename=a.bin&type=", 400),
        ("filename=/etc/passwd", 400),
        ("filename=..", 400),
        ("filename=../secret.txt", 400),
        ("filename=x..y", 400),
        ("filename=sub", 404),
        ("filename=[output]", 400),
        ("filename=secret.txt&subfolder=..", 403),
        ("filename=passwd&subfolder=/etc", 403),
        ("filename=secret.txt&subfolder=sub/../..", 403),
        ("filename=b.txt&subfolder=none", 404),
        ("filename=a%00b", 400),
        ("filename=../secret.txt [input]", 400),
        ("filename=blake3:00", 404),
        ("filename=sub/", 404),
    ],
)
async def test_answers_to_unusable_names(client, query, status):
    assert (await client.get("/view?" + query)).status == status


@pytest.mark.parametrize("kind", ["filename", "subfolder"])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_hostile_names_show_nothing_from_outside(client, files, kind, name):
    plant_links(files.output, files.root)
    path = "/view?filename={}" if kind == "filename" else "/view?filename=secret.txt&subfolder={}"
    for extra in ("", "&preview=webp", "&channel=a"):
        answer = await client.get(encoded(path + extra, name))
        assert answer.status in (400, 403, 404)
        assert await answer.text() != "secret"


async def test_parts_of_a_file_are_served_for_players(client):
    answer = await client.get("/view?filename=a.bin", headers={"Range": "bytes=10-19"})
    assert answer.status == 206
    assert answer.headers["Content-Range"] == "bytes 10-19/100"
    assert await answer.read() == bytes(range(10, 20))
    assert (await client.get("/view?filename=a.bin", headers={"Range": "bytes=200-"})).status == 416


async def test_unchanged_file_is_not_sent_again_and_head_is_answered(client):
    first = await client.get("/view?filename=a.bin")
    again = await client.get("/view?filename=a.bin", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status == 304
    head = await client.head("/view?filename=a.bin")
    assert (head.status, head.headers["Content-Length"]) == (200, "100")


@pytest.mark.parametrize("name", ["x.html", "x.HTM", "x.js", "x.css", "x.svg", "x.xml", "x.xhtml", "x.mjs", "x.svgz", "x.mht"])
async def test_active_content_is_neutralised(client, files, name):
    (files.output / name).write_text("<script>")
    answer = await client.get(f"/view?filename={name}", headers={"Sec-Fetch-Dest": "document"})
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_svg_is_shown_to_image_elements_only_and_never_cached_for_others(client, files):
    (files.output / "x.svg").write_text("<svg/>")
    answer = await client.get("/view?filename=x.svg", headers={"Sec-Fetch-Dest": "image"})
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert (answer.headers["Vary"], answer.headers["Cache-Control"]) == ("Sec-Fetch-Dest", "no-store")


async def test_file_names_cannot_break_the_header(client, files):
    (files.output / 'a"b\r\nX: y ü.txt').write_text("x")
    answer = await client.get(encoded("/view?filename={}", 'a"b\r\nX: y ü.txt'))
    assert answer.status == 200
    assert "X" not in answer.headers
    assert answer.headers["Content-Disposition"] == "filename=\"a_b__X: y _.txt\"; filename*=UTF-8''a_b__X%3A%20y%20%C3%BC.txt"


@pytest.mark.parametrize(
    ("query", "format_name", "mode"),
    [
        ("preview=webp;90", "WEBP", "RGBA"),
        ("preview=webp;90&channel=rgb", "WEBP", "RGB"),
        ("preview=jpeg;50", "JPEG", "RGB"),
        ("preview=", "WEBP", "RGBA"),
        ("preview=tiff;x", "WEBP", "RGBA"),
        ("preview=webp;99999", "WEBP", "RGBA"),
        ("channel=rgb", "PNG", "RGB"),
        ("channel=a", "PNG", "RGBA"),
    ],
)
async def test_images_are_re_encoded(client, query, format_name, mode):
    answer = await client.get("/view?filename=p.png&" + query)
    image = await image_of(answer)
    assert (answer.status, image.format, image.mode, image.size) == (200, format_name, mode, (4, 3))
    assert answer.headers["Content-Type"] == f"image/{format_name.lower()}"


async def test_alpha_channel_is_shown_alone(client):
    image = await image_of(await client.get("/view?filename=p.png&channel=a"))
    assert (image.getpixel((0, 0)), image.getpixel((1, 1))) == ((0, 0, 0, 0), (0, 0, 0, 255))
    opaque = await image_of(await client.get("/view?filename=q.png&channel=a"))
    assert opaque.getpixel((0, 0)) == (0, 0, 0, 255)


async def test_sixteen_bit_images_are_scaled_not_clipped(client, files):
    Image.new("I;16", (4, 4), 0x8000).save(files.output / "deep.png")
    for query in ("preview=webp", "channel=rgb"):
        shown = (await image_of(await client.get(f"/view?filename=deep.png&{query}"))).convert("L")
        assert abs(shown.getpixel((0, 0)) - 128) <= 2


@pytest.mark.parametrize("extra", ["preview=webp", "channel=rgb", "channel=a"])
@pytest.mark.parametrize("name", ["broken.png", "a.bin"])
async def test_a_file_that_is_not_an_image_has_no_preview(client, name, extra):
    answer = await client.get(f"/view?filename={name}&{extra}")
    assert answer.status == 415
    assert "not an image" in await answer.text()


async def test_images_with_too_many_pixels_are_not_decoded(client, monkeypatch):
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 11)
    answer = await client.get("/view?filename=p.png&preview=webp")
    assert answer.status == 415
    assert "4x3" in await answer.text()


async def test_a_picture_over_pillows_own_limit_is_shown(client, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    assert (await client.get("/view?filename=p.png&preview=webp")).status == 200


@pytest.mark.parametrize("query", ["channel=rgb", "channel=a", "preview=webp", "preview=jpeg;80&channel=rgba"])
async def test_pictures_are_shown_upright(client, files, query):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 2)).save(files.output / "sideways.jpg", exif=exif)
    answer = await client.get(f"/view?filename=sideways.jpg&{query}")
    assert Image.open(io.BytesIO(await answer.read())).size == (2, 6)


async def test_preview_larger_than_its_format_allows_is_scaled(files):
    Image.new("L", (17000, 2)).save(files.output / "long.png")
    data = view_image.encode_preview(str(files.output / "long.png"), view_image.PreviewFormat("webp"), "rgba")
    assert Image.open(io.BytesIO(data)).width == 16383
