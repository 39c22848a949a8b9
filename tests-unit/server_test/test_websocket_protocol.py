"""/ws: greeting, taking over, negotiating, addressing, order, frames."""

import asyncio
import contextlib
import json
import struct
import threading

import aiohttp
import pytest
from PIL import Image

from app.sockets import hub as websocket
from app.sockets import outbox
from app.sockets.hub import MAX_INBOUND_BYTES
from comfy_api import feature_flags
from protocol import BinaryEventTypes

PICTURE = ("JPEG", Image.new("RGB", (64, 32), (200, 10, 10)), 16)


@pytest.mark.parametrize("path", ["/ws", "/api/ws"])
async def test_first_frame_is_the_status_with_a_made_id(connect, path):
    socket = await connect(None, greeted=False, path=path)
    text = await socket.text()
    assert text.startswith('{"type":"status"')
    data = json.loads(text)["data"]
    assert data["status"] == {"exec_info": {"queue_remaining": 0}}
    assert len(data["sid"]) == 32 and int(data["sid"], 16) >= 0


async def test_first_frame_repeats_a_given_id(connect):
    socket = await connect("mine", greeted=False)
    assert (await socket.next())["data"]["sid"] == "mine"


async def test_the_owner_of_the_running_prompt_gets_the_node_after_reconnecting(server, connect):
    server.client_id, server.last_node_id, server.last_prompt_id = "mine", "7", "p"
    socket = await connect("mine")
    assert await socket.next() == {"type": "executing", "data": {"node": "7", "prompt_id": "p"}}
    other = await connect("other")
    await server.send("probe", {}, "other")
    assert (await other.next())["type"] == "probe"


async def test_old_socket_that_closes_does_not_disconnect_its_successor(server, connect):
    old = await connect("me")
    new = await connect("me")
    current = server.sockets["me"]
    await old.socket.close()
    await server.send("probe", {"n": 1}, "me")
    assert await new.next() == {"type": "probe", "data": {"n": 1}}
    assert server.sockets["me"] is current


async def test_closing_forgets_the_client(server, connect):
    socket = await connect("me")
    await socket.socket.close()
    while "me" in server.sockets:
        await asyncio.sleep(0)
    assert server.sockets_metadata == {}


async def test_features_are_exchanged_on_request_only(server, connect):
    socket = await connect("me")
    await server.send("probe", {}, "me")
    assert (await socket.next())["type"] == "probe"
    assert await socket.flags(supports_preview_metadata=True, other="x") == feature_flags.get_server_features()
    assert server.sockets_metadata["me"]["feature_flags"] == {"supports_preview_metadata": True, "other": "x"}


async def test_only_the_first_message_can_tell_features(server, connect):
    socket = await connect("me")
    await socket.socket.send_json({"type": "hello"})
    await socket.socket.send_json({"type": "feature_flags", "data": {"late": True}})
    await socket.socket.ping()
    await server.send("probe", {}, "me")
    assert (await socket.next())["type"] == "probe"
    assert server.sockets_metadata["me"]["feature_flags"] == {}


async def test_a_message_that_is_not_json_does_not_use_up_the_first(connect):
    socket = await connect("me")
    await socket.socket.send_str("{nonsense")
    await socket.socket.send_str("[" * 100_000)
    await socket.socket.send_bytes(b"binary is ignored")
    assert await socket.flags(a=True)


@pytest.mark.parametrize("data", [None, [1], "text", 3])
async def test_features_that_are_not_an_object_count_as_none(server, connect, data):
    socket = await connect("me")
    await socket.socket.send_json({"type": "feature_flags", "data": data})
    assert (await socket.next())["type"] == "feature_flags"
    assert server.sockets_metadata["me"]["feature_flags"] == {}


async def test_a_message_over_the_limit_ends_the_connection(server, connect):
    socket = await connect("me")
    with contextlib.suppress(ConnectionError):
        await socket.socket.send_str("x" * (MAX_INBOUND_BYTES + 1))
    while "me" in server.sockets:
        await asyncio.sleep(0)
    with contextlib.suppress(ConnectionError):
        assert (await asyncio.wait_for(socket.socket.receive(), 5)).type is not aiohttp.WSMsgType.TEXT


async def test_a_message_within_the_limit_is_read(server, connect):
    socket = await connect("me")
    await socket.socket.send_json({"type": "feature_flags", "data": {"big": "x" * (MAX_INBOUND_BYTES - 1000)}})
    assert (await socket.next())["type"] == "feature_flags"


async def test_messages_reach_one_client_or_all_and_for_unknown_ids_none(server, connect):
    one, two = await connect("one"), await connect("two")
    server.send_sync("secret", {}, "nobody")
    server.send_sync("private", {}, "two")
    server.send_sync("public", {})
    assert (await one.next())["type"] == "public"
    assert [(await two.next())["type"] for _ in range(2)] == ["private", "public"]


async def test_order_is_that_of_the_calls_from_any_thread(server, connect):
    socket = await connect("me")

    def report():
        for number in range(20):
            if number % 5 == 0:
                server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, PICTURE, "me")
            server.send_sync("count", number, "me")

    thread = threading.Thread(target=report)
    thread.start()
    got = [(await asyncio.wait_for(socket.socket.receive(), 5)).data for _ in range(24)]
    thread.join()
    assert [None if isinstance(item, bytes) else json.loads(item)["data"] for item in got] == [
        item for number in range(20) for item in ([None, number] if number % 5 == 0 else [number])
    ]


async def test_what_json_cannot_hold_is_described_and_never_stops_the_messages(server, connect):
    socket = await connect("me")
    endless: list = []
    endless.append(endless)
    server.send_sync("endless", endless, "me")
    server.send_sync(object(), b"an event that is not a number", "me")
    server.send_sync("odd", {"nan": float("nan"), "object": threading.Lock(), 3: (1, 2)}, ["unhashable"])
    server.send_sync("odd", {"nan": float("nan"), "object": object(), 3: (1, 2)}, "me")
    assert await socket.next() == {"type": "odd", "data": {"nan": None, "object": "<builtins.object>", "3": [1, 2]}}


def split(frame, count):
    """The first *count* numbers of a binary frame and the rest."""
    return (*struct.unpack(f">{count}I", frame[: 4 * count]), frame[4 * count :])


async def test_preview_is_a_scaled_picture_of_kind_one(server, connect):
    socket = await connect("me")
    server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, PICTURE, "me")
    kind, number, content = split(await socket.binary(), 2)
    assert (kind, number, content[:2]) == (1, 1, b"\xff\xd8")


async def test_full_png_is_kind_one_number_two(server, connect):
    socket = await connect("me")
    server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, ("PNG", Image.new("RGBA", (64, 32)), None), "me")
    kind, number, content = split(await socket.binary(), 2)
    assert (kind, number, content[:4]) == (1, 2, b"\x89PNG")


async def test_metadata_goes_only_to_clients_that_said_true(server, connect):
    rich, poor, nearly = await connect("rich"), await connect("poor"), await connect("nearly")
    await rich.flags(supports_preview_metadata=True)
    await nearly.flags(supports_preview_metadata="true")
    server.send_sync(BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, (PICTURE, {"node_id": "4", "prompt_id": "p"}))
    kind, length, rest = split(await rich.binary(), 2)
    assert kind == 4
    assert json.loads(rest[:length]) == {"node_id": "4", "prompt_id": "p", "image_type": "image/jpeg"}
    assert rest[length : length + 2] == b"\xff\xd8"
    for socket in (poor, nearly):
        assert split(await socket.binary(), 2)[:2] == (1, 1)


async def test_a_preview_that_cannot_be_encoded_is_passed_over(server, connect, caplog):
    socket = await connect("me")
    server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, ("JPEG", "no picture", 16), "me")
    server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, ("JPEG", Image.new("RGBA", (8, 8)), 16), "me")
    assert split(await socket.binary(), 2)[:2] == (1, 1)
    assert "could not be sent" in caplog.text


class Refuses:
    """Raises when it is put into order."""

    def __init__(self, error):
        self.error = error

    def __str__(self):
        raise self.error

    __hash__ = object.__hash__


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError, ValueError])
async def test_a_message_may_raise_anything_when_it_is_written(server, connect, caplog, error):
    socket = await connect("me")
    server.send_sync("odd", {"values": {Refuses(error), Refuses(error)}})
    server.send_sync("after", {})
    assert (await socket.next())["type"] == "after" and "'odd' could not be sent" in caplog.text


async def test_bytes_go_out_after_the_number_of_their_kind(server, connect):
    socket = await connect("me")
    server.send_sync(BinaryEventTypes.PREVIEW_IMAGE, bytearray(b"abc"), "me")
    assert await socket.binary() == b"\0\0\0\1abc"


async def test_progress_text_goes_to_the_owner_only(server, connect):
    owner, other = await connect("owner"), await connect("other")
    server.send_progress_text("to nobody", "1")
    server.client_id = "owner"
    server.send_progress_text("hällo", 12)
    server.send_progress_text(b"to other", "3", "other")
    kind, length, rest = split(await owner.binary(), 2)
    assert (kind, rest[:length], rest[length:].decode()) == (3, b"12", "hällo")
    assert (await other.binary()).endswith(b"to other")


async def test_progress_text_names_the_prompt_when_both_sides_know_that(server, connect, monkeypatch):
    new, old = await connect("new"), await connect("old")
    monkeypatch.setitem(feature_flags.SERVER_FEATURE_FLAGS, "supports_progress_text_metadata", True)
    await new.flags(supports_progress_text_metadata=True)
    await old.flags()
    server.last_prompt_id = "prompt"
    server.send_progress_text("text", "12", "new")
    server.send_progress_text("text", "12", "old")
    assert await new.binary() == b"\0\0\0\3\0\0\0\6prompt\0\0\0\x0212text"
    assert await old.binary() == b"\0\0\0\3\0\0\0\x0212text"


async def test_a_socket_that_a_pack_put_there_is_served(server, client):
    class Foreign:
        def __init__(self):
            self.got = asyncio.Queue()

        async def send_str(self, text):
            self.got.put_nowait(text)

    foreign = server.sockets["foreign"] = Foreign()
    server.send_sync("probe", 1, "foreign")
    assert json.loads(await asyncio.wait_for(foreign.got.get(), 5)) == {"type": "probe", "data": 1}
    del server.sockets["foreign"]


async def test_a_client_that_never_reads_is_cut_off_and_the_others_go_on(server, connect, monkeypatch, caplog):
    monkeypatch.setattr(outbox, "MAX_BYTES", 4_000_000)
    await connect("stuck")
    reader = await connect("reader")
    for number in range(64):
        server.send_sync(BinaryEventTypes.PREVIEW_IMAGE, bytes(500_000), "stuck")
        server.send_sync("count", number, "reader")
        assert (await reader.next())["data"] == number
    while "stuck" in server.sockets:
        await asyncio.sleep(0)
    assert "stuck" in caplog.text and list(server.sockets) == ["reader"]


async def test_stopping_tells_the_clients(server, connect):
    socket = await connect("me")
    await server.app.shutdown()
    answer = await asyncio.wait_for(socket.socket.receive(), 5)
    assert (answer.type, answer.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)


async def test_stopping_does_not_wait_for_clients_that_never_answer(server, connect, monkeypatch):
    monkeypatch.setattr(websocket, "CLOSING_TIMEOUT_S", 0.05)
    for name in ("one", "two", "three"):
        await connect(name)
    await asyncio.wait_for(server.app.shutdown(), 5)
    assert all(socket.closed for socket in list(server.sockets.values()))


async def test_sending_after_the_loop_has_ended_does_nothing(server):
    loop = asyncio.new_event_loop()
    loop.close()
    server.loop, running = loop, server.loop
    server.send_sync("late", {})
    server.loop = running
