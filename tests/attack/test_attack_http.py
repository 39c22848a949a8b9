"""Every HTTP route under fire: hostile names, bodies, uploads, settings and other users' data."""

import concurrent.futures
import http.client
import time

import pytest
from hostile_requests import SECRET, Hostile, hostile_requests

MIB = 1 << 20
SENDERS = 4
RSS_GROWTH_BYTES = 700 * MIB


def send(port: int, request: Hostile) -> tuple[int, bytes]:
    """(status, body) of the answer to one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(request.method, request.path, skip_accept_encoding=True)
        for name, value in {"Content-Length": str(len(request.body)), **request.headers}.items():
            connection.putheader(name, value)
        connection.endheaders(request.body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def fire(port, result, requests, seconds):
    """Send *requests* from several senders until they or the time are used up, and judge each answer."""
    ends_s = time.monotonic() + seconds

    def one(request):
        if time.monotonic() > ends_s:
            return
        result.tries += 1
        shown = f"{request.why}: {request.method} {request.path[:120]} {request.body[:120]!r}"
        try:
            status, body = send(port, request)
        except (http.client.HTTPException, ConnectionError, ValueError) as error:
            result.wrong_results.append(f"{shown}: no answer ({type(error).__name__})")
            return
        if SECRET.encode() in body or b"root:x:0" in body:
            result.escapes.append(shown)
        if status >= 500 or b"Traceback" in body:
            result.wrong_results.append(f"{shown}: {status} {body[:200]!r}")

    with concurrent.futures.ThreadPoolExecutor(SENDERS) as senders:
        list(senders.map(one, requests))


def plant_secrets(base):
    """A file outside every folder, and links that lead to it."""
    (base.parent / "secret.txt").write_text(SECRET)
    for folder in ("input", "output", "user/default"):
        (base / folder).mkdir(parents=True, exist_ok=True)
        (base / folder / "link").symlink_to(base.parent)


def test_a_sample_of_hostile_requests(attacked, dice, seconds):
    server = attacked("http sample")
    plant_secrets(server.server.base)
    with server.watch() as result:
        requests = list(hostile_requests(dice.randrange(1 << 30)))
        fire(server.server.port, result, dice.sample(requests, 400), seconds)
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)


@pytest.mark.attack
@pytest.mark.timeout(300)
def test_every_route_with_hostile_requests(attacked, dice, seconds):
    server = attacked("http routes")
    plant_secrets(server.server.base)
    with server.watch() as result:
        ends_s = time.monotonic() + seconds
        while (left_s := ends_s - time.monotonic()) > 0:
            fire(server.server.port, result, hostile_requests(dice.randrange(1 << 30)), left_s)
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)
