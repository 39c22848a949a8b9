"""Listening: several addresses, free ports, taken ports, TLS."""

import socket
import ssl
import subprocess

import aiohttp
import pytest
from aiohttp import web

from app.running.listeners import Listener, ReservedPorts, listen, tls_context


@pytest.fixture
async def runner():
    async def hello(request):
        return web.Response(text=request.scheme)

    app = web.Application()
    app.router.add_get("/", hello)
    made = web.AppRunner(app)
    await made.setup()
    yield made
    await made.cleanup()


async def fetch(url, **options):
    async with aiohttp.ClientSession() as session, session.get(url, **options) as answer:
        return await answer.text()


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_free_ports_are_found_and_reported(runner):
    first, second = await listen(runner, [("127.0.0.1", 0), ("127.0.0.1", 0)], None)
    assert first.port != second.port
    for listener in (first, second):
        assert await fetch(listener.url) == "http"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_both_families(runner):
    four, six = await listen(runner, [("127.0.0.1", 0), ("::1", 0)], None)
    assert [await fetch(listener.url) for listener in (four, six)] == ["http", "http"]


async def test_a_taken_port_ends_the_program_with_advice(runner, caplog):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SystemExit) as ended:
            await listen(runner, [("127.0.0.1", other.getsockname()[1])], None)
    assert ended.value.code == 1
    assert "--port" in caplog.text


async def test_an_address_of_another_machine_is_passed_over(runner, caplog):
    (listener,) = await listen(runner, [("192.0.2.1", 0), ("127.0.0.1", 0)], None)
    assert listener.address == "127.0.0.1"
    assert "192.0.2.1" in caplog.text
    with pytest.raises(SystemExit):
        await listen(runner, [("192.0.2.1", 0)], None)


@pytest.mark.parametrize(("address", "url"), [("127.0.0.1", "https://127.0.0.1:80"), ("::", "https://[::]:80")])
def test_listeners_have_urls(address, url):
    assert Listener("https", address, 80).url == url


def test_tls_is_off_without_files():
    assert tls_context(None, None) is None and tls_context("key", None) is None


async def test_tls_is_served_with_a_certificate(runner, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    try:
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
                "-keyout",
                key,
                "-out",
                certificate,
            ],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")
    (listener,) = await listen(runner, [("127.0.0.1", 0)], tls_context(str(key), str(certificate)))
    trusted = ssl.create_default_context(cafile=str(certificate))
    trusted.check_hostname = False
    assert listener.scheme == "https"
    assert await fetch(listener.url, ssl=trusted) == "https"


async def test_reserved_ports_are_taken_but_do_not_answer_until_they_are_listened_on(runner):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    reserved = ReservedPorts()
    reserved.reserve([("127.0.0.1", port), ("127.0.0.1", 0), ("localhost", port)])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    [listener] = await listen(runner, [("127.0.0.1", port)], None, reserved)
    assert listener.port == port and await fetch(listener.url) == "http"


def test_a_port_that_is_taken_is_found_before_anything_is_done(caplog):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SystemExit):
            ReservedPorts().reserve([("127.0.0.1", other.getsockname()[1])])
    assert "is taken by another program" in caplog.text
