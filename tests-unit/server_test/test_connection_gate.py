"""Connections that never finish: they make way, they are closed in time, and those at work stay."""

import asyncio
import contextlib

import aiohttp
import pytest
from aiohttp import web

from app.sockets import connection_gate
from app.sockets.connection_gate import ConnectionGate, most_connections


@pytest.fixture
async def serve():
    """``await serve(gate)``: the port of a server that *gate* watches; ``/slow`` answers when ``proceed`` is set."""
    runners = []

    async def start(gate):
        proceed = asyncio.Event()

        async def slow(request):
            await proceed.wait()
            return web.Response(text="slow")

        async def body(request):
            return web.Response(body=await request.read())

        app = web.Application(middlewares=[gate.middleware])
        app.router.add_get("/", lambda request: asyncio.sleep(0, web.Response(text="here")))
        app.router.add_get("/slow", slow)
        app.router.add_post("/body", body)
        runner = web.AppRunner(app)
        await runner.setup()
        gate.guard(runner.server)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        return runner.addresses[0][1], proceed

    yield start
    for runner in runners:
        await runner.cleanup()


async def half_open(port, count, start=b"GET / HT"):
    opened = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start)
        opened.append((reader, writer))
    return opened


async def ends(reader):
    """Wait until the other side has closed the connection."""
    with contextlib.suppress(ConnectionError):
        while await asyncio.wait_for(reader.read(1000), 10):
            pass
    return True


async def get(port, path="/", session=None):
    async with contextlib.AsyncExitStack() as stack:
        session = session or await stack.enter_async_context(aiohttp.ClientSession())
        async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return await answer.text()


async def test_half_open_connections_do_not_keep_others_out(serve):
    port, _ = await serve(gate := ConnectionGate(limit=8))
    opened = await half_open(port, 30)
    assert await get(port) == "here"
    assert len(gate) <= 8
    assert await ends(opened[0][0])
    for _, writer in opened:
        writer.close()


async def test_only_so_many_connections_of_one_peer_may_wait(serve, monkeypatch, caplog):
    monkeypatch.setattr(connection_gate, "UNFINISHED_PER_PEER", 3)
    port, _ = await serve(gate := ConnectionGate(limit=100))
    opened = await half_open(port, 10)
    for reader, _ in opened[:7]:
        assert await ends(reader)
    assert len(gate) == 3


async def test_a_request_head_must_arrive_in_time(serve, monkeypatch):
    monkeypatch.setattr(connection_gate, "HANDSHAKE_LIMIT_S", 0.05)
    port, proceed = await serve(gate := ConnectionGate(limit=100))
    [(reader, _)] = await half_open(port, 1)
    slow = asyncio.create_task(get(port, "/slow"))
    assert await ends(reader)
    await asyncio.sleep(0.1)
    proceed.set()
    assert await slow == "slow" and len(gate) <= 1


async def test_busy_connections_stay_and_new_ones_are_closed_when_all_are_busy(serve, caplog):
    port, proceed = await serve(gate := ConnectionGate(limit=2))
    async with aiohttp.ClientSession() as session:
        busy = [asyncio.create_task(get(port, "/slow", session)) for _ in range(2)]
        while sum(one.request is not None for one in gate._connections.values()) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(aiohttp.ClientError):
            await get(port)
        proceed.set()
        assert await asyncio.gather(*busy) == ["slow", "slow"]
        assert await get(port) == "here"  # an idle one made way
    assert "All 2 connections are in use" in caplog.text


async def test_a_body_that_stalls_makes_way(serve, monkeypatch):
    monkeypatch.setattr(connection_gate, "STALLED_BODY_S", -1.0)
    port, _ = await serve(gate := ConnectionGate(limit=1))
    [(reader, _)] = await half_open(port, 1, b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
    while not any(one.was_asked for one in gate._connections.values()):
        await asyncio.sleep(0.01)
    assert await get(port) == "here"
    assert await ends(reader)


def test_the_number_goes_by_the_files_the_process_may_open(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 4096))
    assert most_connections() == 1024 - connection_gate.RESERVED_FILES
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (64, 64))
    assert most_connections() == 64
