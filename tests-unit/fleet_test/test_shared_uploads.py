"""Uploads go through the places where results are shared, and directly where those have none or fail."""

import asyncio
import pathlib
import socket
import sys

import pytest
from blake3 import blake3

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "serverless_test"))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "keepwarm_test"))
from scripted_server import ScriptedServer  # noqa: E402
from store_servers import running_redis  # noqa: E402

from fleet.replica import Replica  # noqa: E402
from fleet.server_http import ServerHttp  # noqa: E402
from fleet.shared_uploads import SharedUploads, places_in  # noqa: E402
from fleet.supervisor import ServerPlan  # noqa: E402
from fleet.values import InputFile  # noqa: E402
from serverless.server_api import ServerUnreachable  # noqa: E402

CONTENT = b"a picture" * 100_000
DIGEST = blake3(CONTENT).hexdigest()
NOBODY = "http://127.0.0.1:9/gone"


@pytest.fixture
def upload(tmp_path):
    path = tmp_path / "mine.png"
    path.write_bytes(CONTENT)
    return str(path)


@pytest.fixture(params=["folder", "redis"])
def place(request, tmp_path):
    """The URL of a place where results are shared."""
    if request.param == "folder":
        yield f"file://{tmp_path}/results"
        return
    with running_redis() as server:
        yield f"redis://127.0.0.1:{server.port}"


async def test_what_one_process_offers_another_finds_by_its_content(place, upload):
    gateway, supervisor = SharedUploads([place]), SharedUploads([place])
    assert await supervisor.fetch(DIGEST, len(CONTENT)) is None
    assert await gateway.offer(DIGEST, len(CONTENT), upload)
    assert await supervisor.fetch(DIGEST, len(CONTENT)) == CONTENT
    pathlib.Path(upload).unlink()
    assert await gateway.offer(DIGEST, len(CONTENT), upload), "it is there already"
    await asyncio.gather(gateway.close(), supervisor.close())


async def test_a_server_gets_an_upload_whose_gateway_is_gone(place, upload, tmp_path):
    gateway = SharedUploads([place])
    assert await gateway.offer(DIGEST, len(CONTENT), upload)
    await gateway.close()

    async def nobody(report):
        pass

    replica = Replica("s", "node", ServerPlan(("--cpu", "--cache-provider", place), tmp_path / "s"), nobody)
    async with ScriptedServer() as server:
        await replica._http.close()
        replica._http = ServerHttp(f"http://{server.host}")
        await replica._bring(InputFile("mine.png", "deep", "input", DIGEST, NOBODY, len(CONTENT)))
        assert server.uploads == {"mine.png": CONTENT}
        with pytest.raises(ServerUnreachable):
            await replica._bring(InputFile("other.png", "", "input", "0" * 64, NOBODY, 5))
        await replica.stop()


async def test_what_is_damaged_is_not_used_and_can_be_stored_again(tmp_path, upload):
    place = f"file://{tmp_path}/results"
    uploads = SharedUploads([place])
    assert await uploads.offer(DIGEST, len(CONTENT), upload)
    (blob,) = (tmp_path / "results").glob(f"v1/blobs/*/{DIGEST}")
    blob.write_bytes(CONTENT[:-1] + b"!")
    assert await uploads.fetch(DIGEST, len(CONTENT)) is None
    again = SharedUploads([place])
    assert await again.offer(DIGEST, len(CONTENT), upload) and await uploads.fetch(DIGEST, len(CONTENT)) == CONTENT
    await asyncio.gather(uploads.close(), again.close())


async def test_a_place_that_fails_is_passed_over_and_left_alone_for_a_while(tmp_path, upload, caplog):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"redis://127.0.0.1:{probe.getsockname()[1]}"
    pytest.importorskip("redis")
    now = [0.0]
    uploads = SharedUploads([dead, f"file://{tmp_path}/results"], clock=lambda: now[0])
    assert await uploads.offer(DIGEST, len(CONTENT), upload)
    assert await uploads.fetch(DIGEST, len(CONTENT)) == CONTENT
    assert caplog.text.count("do not go through redis") == 1
    now[0] = 60.0
    assert await uploads.fetch(DIGEST, len(CONTENT)) == CONTENT and caplog.text.count("do not go through redis") == 2
    await uploads.close()


async def test_what_cannot_be_shared_is_not_offered(tmp_path, upload, caplog):
    read_only = SharedUploads([f"file://{tmp_path}/results?mode=ro"])
    assert not await read_only.offer(DIGEST, len(CONTENT), upload)
    small = SharedUploads([f"file://{tmp_path}/results?max_value_mb=0.1"])
    assert not await small.offer(DIGEST, len(CONTENT), upload)
    changed = SharedUploads([f"file://{tmp_path}/results"])
    assert not await changed.offer("0" * 64, len(CONTENT), upload), "its content is another one by now"
    wrong = SharedUploads(["ftp://somewhere"])
    assert not await wrong.offer(DIGEST, len(CONTENT), upload) and "scheme 'ftp' is unknown" in caplog.text
    nowhere = SharedUploads([])
    assert not await nowhere.offer(DIGEST, len(CONTENT), upload) and await nowhere.fetch(DIGEST, len(CONTENT)) is None
    await asyncio.gather(*(one.close() for one in (read_only, small, changed, wrong, nowhere)))


def test_the_places_are_those_of_the_servers():
    flags = ("--cpu", "--cache-provider", "file:///a", "--cache-provider=redis://b", "--cache-none")
    assert places_in(flags, {"KEEPWARM_CACHE_PROVIDERS": "redis://b s3://c"}) == ("file:///a", "redis://b", "s3://c")
    assert places_in((), {}) == ()
