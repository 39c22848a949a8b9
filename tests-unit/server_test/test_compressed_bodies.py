"""Compressed request bodies: every encoding, limits on both sides, damage, forms, and the connection afterwards."""

import asyncio
import gzip
import importlib.util
import zlib

import aiohttp
import pytest
from aiohttp import web

from app.files.body_budget import BODIES, BodyBudget
from middleware import compressed_bodies
from middleware.compressed_bodies import BodyTooLarge, BrokenBody, make_compressed_bodies, unpack
from middleware.errors import json_errors

needs_brotli = pytest.mark.skipif(importlib.util.find_spec("brotli") is None, reason="needs brotli")


def packed(encoding, plain):
    if encoding == "br":
        import brotli

        return brotli.compress(plain)
    if encoding == "raw deflate":
        packer = zlib.compressobj(wbits=-15)
        return packer.compress(plain) + packer.flush()
    return gzip.compress(plain) if encoding == "gzip" else zlib.compress(plain)


ENCODINGS = ["gzip", "deflate", "raw deflate", pytest.param("br", marks=needs_brotli)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_bodies_are_unpacked_within_their_limit(encoding):
    name, plain = encoding.rpartition(" ")[2], b"some text, " * 400_000
    body = packed(encoding, plain)
    assert unpack(body, name, len(plain)) == plain
    with pytest.raises(BodyTooLarge):
        unpack(body, name, len(plain) - 1)
    for broken in (body[: len(body) // 2], b""):
        with pytest.raises(BrokenBody):
            unpack(broken, name, len(plain))


def test_members_of_gzip_follow_each_other():
    assert unpack(gzip.compress(b"one ") + gzip.compress(b"two") + b"\0\0", "gzip", 100) == b"one two"
    with pytest.raises(BrokenBody):
        unpack(gzip.compress(b"one") + b"rubbish", "gzip", 100)


@pytest.fixture
async def address():
    """A server as ours: it leaves bodies packed, the middleware unpacks them."""

    async def echo(request):
        return web.Response(body=await request.read())

    async def form(request):
        return web.Response(text=(await request.post())["field"])

    async def deaf(request):
        return web.Response(text="not read")

    app = web.Application(middlewares=[json_errors, make_compressed_bodies()], client_max_size=200_000)
    app[BODIES] = BodyBudget()
    app.router.add_post("/echo", echo)
    app.router.add_post("/form", form)
    app.router.add_post("/deaf", deaf)
    runner = web.AppRunner(app, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def post(session, url, body, encoding="gzip", **headers):
    async with session.post(url, data=body, headers={"Content-Encoding": encoding, **headers}) as answer:
        return answer.status, await answer.text()


async def test_handlers_see_the_plain_body_and_the_connection_goes_on(address):
    form_type = {"Content-Type": "application/x-www-form-urlencoded"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for _ in range(2):
            assert await post(session, address + "/echo", gzip.compress(b"x" * 150_000)) == (200, "x" * 150_000)
            assert await post(session, address + "/form", gzip.compress(b"field=value"), **form_type) == (200, "value")
            assert await post(session, address + "/deaf", gzip.compress(b"x" * 150_000)) == (200, "not read")


async def test_what_is_broken_unknown_or_too_large_is_refused_as_such(address):
    async with aiohttp.ClientSession() as session:
        assert (await post(session, address + "/echo", b"no gzip"))[0] == 400
        assert (await post(session, address + "/echo", gzip.compress(b"x" * 500_000)))[0] == 413
        assert (await post(session, address + "/echo", b"x", "zstd"))[0] == 415
        assert (await post(session, address + "/echo", gzip.compress(gzip.compress(b"x")), "gzip, gzip"))[0] == 415


async def test_the_loop_goes_on_while_files_are_read(monkeypatch):
    import threading

    running, proceed = threading.Event(), threading.Event()

    def slow(body, encoding, max_bytes):
        running.set()
        proceed.wait(30)
        return b"plain"

    monkeypatch.setattr(compressed_bodies, "unpack", slow)

    class Request:
        headers, client_max_size, protocol = {"Content-Encoding": "gzip"}, 10, None
        _read_bytes, config_dict = b"packed", {BODIES: BodyBudget()}

    async def handler(request):
        return request._read_bytes

    monkeypatch.setattr(compressed_bodies, "_replace_body", lambda request, plain: setattr(request, "_read_bytes", plain))
    answer = asyncio.create_task(make_compressed_bodies()(Request(), handler))
    while not running.is_set():
        await asyncio.sleep(0)
    proceed.set()
    assert await answer == b"plain"
