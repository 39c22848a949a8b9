"""How much clients may send over their sockets, and what happens to those that send more."""

import aiohttp
import pytest

from app.sockets import inbound_budget
from app.sockets.hub import MAX_INBOUND_BYTES
from app.sockets.inbound_budget import InboundBudget


def test_frames_and_bytes_grow_back_with_time():
    now_s = [0.0]
    budget = InboundBudget(lambda: now_s[0])
    assert all(budget.spend(0) for _ in range(1000)) and not budget.spend(0)
    now_s[0] = 1.0
    assert all(budget.spend(0) for _ in range(99)) and not budget.spend(0)
    assert not InboundBudget(lambda: 0.0).spend(17 << 20)


FLOODS = {
    "text": lambda socket: socket.send_str("junk"),
    "binary": lambda socket: socket.send_bytes(b"x"),
    "ping": lambda socket: socket.ping(),
}


@pytest.mark.parametrize("send", list(FLOODS.values()), ids=list(FLOODS))
async def test_a_client_that_floods_is_cut_off_and_logged_once(connect, client, monkeypatch, caplog, send):
    monkeypatch.setattr(inbound_budget, "MOST_FRAMES", 20.0)
    monkeypatch.setattr(inbound_budget, "FRAMES_PER_S", 0.0)
    for name in ("first", "second"):
        socket = (await connect(name)).socket
        try:
            for _ in range(40):
                await send(socket)
        except ConnectionError:
            pass
        while (message := await socket.receive()).type not in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
            assert message.type in (aiohttp.WSMsgType.PONG, aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.CLOSING)
    assert caplog.text.count("far too many messages") == 1
    assert caplog.text.count("not JSON") <= 1


async def test_pings_are_answered(client):
    socket = await client.ws_connect("/ws", autoping=False)
    assert (await socket.receive()).type is aiohttp.WSMsgType.TEXT
    await socket.ping(b"are you there")
    message = await socket.receive()
    assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"are you there")


async def test_deep_junk_as_first_message_is_logged_and_features_still_work(connect, caplog):
    messages = await connect("me")
    await messages.socket.send_str("[" * (MAX_INBOUND_BYTES - 10))
    assert await messages.flags() is not None
    assert caplog.text.count("not JSON") == 1


async def test_an_overlong_client_id_is_refused(client):
    assert (await client.get("/ws", params={"clientId": "x" * 300})).status == 400
