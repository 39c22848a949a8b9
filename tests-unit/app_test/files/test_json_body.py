"""Bodies are read as JSON under any content type, and what is not JSON is a 400."""

import pytest
from aiohttp import web

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


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\xfd", b'{"a": NaN}', b"[1]", b"null", b"[" * 100_000])
async def test_other_bodies_are_refused_with_the_reason(serve, body):
    client = await serve(Echo())
    answer = await client.post("/echo", data=body)
    assert answer.status == 400
    assert "JSON" in await answer.text()


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity"])
def test_numbers_that_browsers_cannot_read_are_refused(text):
    with pytest.raises(ValueError, match="not JSON"):
        parse_strict(text)
