"""Bodies are read as JSON under any content type, and what is not JSON is a 400."""

import asyncio

import pytest
from aiohttp import web

from app.files import body_budget, json_body
from app.files.body_budget import BODIES
from app.files.json_body import parse_strict, read_json_object


class Echo:
    def add_routes(self, routes):
        @routes.post("/echo")
        async def echo(request):
            return web.json_response(await read_json_object(request))


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", "a/b; charset=x"])
async def test_json_is_read_under_any_content_type(serve, content_type):
    client = await serve(Echo())
    answer = await client.post("/echo", data=b'{"a": 1}', headers={"Content-Type": content_type})
    assert (answer.status, await answer.json()) == (200, {"a": 1})


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\xfd", b'{"a": NaN}', b"[1]", b"null", b"[" * 100_000, b"1e999", b"[-1e400]"])
async def test_other_bodies_are_refused_with_the_reason(serve, body):
    client = await serve(Echo())
    answer = await client.post("/echo", data=body)
    assert answer.status == 400
    assert "JSON" in await answer.text()


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity"])
def test_numbers_that_browsers_cannot_read_are_refused(text):
    with pytest.raises(ValueError, match="not JSON"):
        parse_strict(text)


async def test_a_large_body_is_read_and_one_with_too_many_values_is_not(serve, monkeypatch):
    client = await serve(Echo())
    body = b'{"a": "' + b"x" * 200_000 + b'"}'
    assert len((await (await client.post("/echo", data=body)).json())["a"]) == 200_000
    monkeypatch.setattr(json_body, "MAX_VALUES", 50)
    for many in (b"[" + b"1," * 60 + b"1]", b"[" * 60 + b"]" * 60, b'["' + b"\\n" * 1000 + b'"]'):
        answer = await client.post("/echo", data=many)
        assert answer.status == 413 and "more than 50" in await answer.text()


async def test_a_body_that_does_not_end_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(body_budget, "BODY_LIMIT_S", 0.05)
    client = await serve(Echo())
    never = asyncio.Event()

    async def slowly():
        yield b"{"
        await never.wait()

    answer = await client.post("/echo", data=slowly())
    assert answer.status == 408
    never.set()


async def test_more_bodies_at_once_than_there_is_room_for_are_refused_and_room_is_given_back(serve, monkeypatch):
    monkeypatch.setattr(body_budget, "MOST_BYTES", 1000)
    client = await serve(Echo())
    arrived, proceed = asyncio.Event(), asyncio.Event()

    async def slowly():
        yield b'{"a": "' + b"x" * 600
        arrived.set()
        await proceed.wait()
        yield b'"}'

    first = asyncio.create_task(client.post("/echo", data=slowly()))
    await arrived.wait()
    while client.app[BODIES].taken_bytes < 600:
        await asyncio.sleep(0.001)
    answer = await client.post("/echo", data=b'{"b": "' + b"y" * 600 + b'"}')
    assert answer.status == 503 and "try again" in await answer.text()
    proceed.set()
    assert (await first).status == 200
    assert (await client.post("/echo", data=b'{"b": "' + b"y" * 5000 + b'"}')).status == 200  # alone, it may
    assert client.app[BODIES].taken_bytes == 0


async def test_bodies_of_one_server_take_no_room_of_another(serve, monkeypatch):
    monkeypatch.setattr(body_budget, "MOST_BYTES", 1000)
    busy, idle = await serve(Echo()), await serve(Echo())
    with busy.app[BODIES].share() as share:
        share.take(900)
        body = b'{"a": "' + b"x" * 600 + b'"}'
        assert ((await busy.post("/echo", data=body)).status, (await idle.post("/echo", data=body)).status) == (503, 200)
