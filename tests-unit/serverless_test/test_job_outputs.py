"""Which list of the result each output goes to."""

import base64

from serverless.job_outputs import Base64Encoder, OutputCollector
from serverless.result_storage import StorageError
from serverless.server_api import ServerAnswer


async def view(filename, subfolder, kind):
    if filename.startswith("gone"):
        raise ServerAnswer("GET /view", 404, "")
    return f"{kind}/{subfolder}/{filename}".encode()


async def collect(outputs, encoder=None):
    return await OutputCollector(view, encoder or Base64Encoder(), lambda node: f"client-{node}").collect(outputs)


def entry(path):
    return {"filename": path.rpartition("/")[2], "type": "base64", "data": base64.b64encode(path.encode()).decode()}


def file(name, kind="output", subfolder=""):
    return {"filename": name, "subfolder": subfolder, "type": kind}


async def test_images_are_exactly_as_before_and_in_order():
    found = await collect(
        {"9": {"images": [file("b.png"), file("a.png", subfolder="day/one")]}, "3": {"images": [file("c.mp4")], "animated": [True]}}
    )
    assert found.lists == {"images": [entry("output//b.png"), entry("output/day/one/a.png"), entry("output//c.mp4")]}
    assert not found.errors


async def test_every_other_kind_has_a_list_of_its_own():
    found = await collect(
        {
            "1": {"gifs": [file("x.mp4")]},
            "2": {"audio": [file("x.flac")]},
            "3": {"video": [file("x.webm")]},
            "4": {"text": ["one", "two"]},
            "5": {"3d": [file("x.glb")]},
        }
    )
    assert found.lists["gifs"] == [{**entry("output//x.mp4"), "node": "client-1"}]
    assert found.lists["audio"] == [{**entry("output//x.flac"), "node": "client-2"}]
    assert found.lists["videos"] == [{**entry("output//x.webm"), "node": "client-3"}]
    assert found.lists["text"] == [{"node": "client-4", "text": "one"}, {"node": "client-4", "text": "two"}]
    assert found.lists["files"] == [{**entry("output//x.glb"), "node": "client-5", "key": "3d"}]


async def test_previews_are_left_out_and_nameless_entries_reported():
    found = await collect({"1": {"images": [file("p.png", "temp"), {"type": "output"}]}})
    assert not found.lists and found.errors == ["Skipping image in node client-1 due to missing filename: {'type': 'output'}"]


async def test_one_file_that_fails_does_not_take_the_others_with_it():
    class Picky(Base64Encoder):
        async def encode(self, filename, data):
            if filename == "b.png":
                raise StorageError("no bucket")
            return await super().encode(filename, data)

    found = await collect({"1": {"images": [file("gone.png"), file("b.png"), file("c.png")]}}, Picky())
    assert found.lists == {"images": [entry("output//c.png")]}
    assert found.errors[0].startswith("Failed to fetch image data for gone.png from /view endpoint.")
    assert found.errors[1] == "Error uploading b.png to S3: no bucket"


async def test_what_has_no_place_is_logged(caplog):
    found = await collect({"1": {"result": [1, {"x": 2}], "odd": "x"}, "2": None})
    assert not found.lists and "result (2 values)" in caplog.text
