"""Lookups at servers that mean no good: a miss or an error in time, and never more bytes than asked for."""

import asyncio
import json
import pathlib
import time

import pytest
from hostile_stores import HostileRedis, HostileS3
from stored_values import context, provider, same, value

from custom_nodes.keepwarm.bounded_connection import MAX_LINES, OVERHEAD_BYTES, AnswerTooLong, BoundedReader
from custom_nodes.keepwarm.entry_format import MAGIC, Sealer

MIB = 1 << 20
DEADLINE_S = 1.0
# What lies in sockets, and what libraries hold while it passes through them.
GROWTH_BYTES = 60 * MIB
SENT_BYTES = 300 * MIB


def resident_bytes():
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        pytest.skip("memory is measured through /proc")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def entry_with_a_blob(key=None, size=1_000_000):
    described = [{"dtype": "U8", "shape": [size], "blake3": "a" * 64}]
    header = json.dumps(
        {"format": 1, "key": key or context().cache_key_hash, "class": "Node", "value": ["x", 0], "tensors": described}
    ).encode()
    parts = [MAGIC + len(header).to_bytes(4, "big") + header]
    return b"".join([*parts, Sealer()._seal(parts)])


def look_up(url):
    """What eight lookups at once end with, each cut off after ``DEADLINE_S`` as the server does; and by how much memory grew meanwhile."""
    peak_bytes = before_bytes = resident_bytes()

    async def scenario():
        nonlocal peak_bytes
        one = provider(url)

        async def ask():
            return await asyncio.wait_for(one.on_lookup(context()), DEADLINE_S)

        lookups = asyncio.gather(*(ask() for _ in range(8)), return_exceptions=True)
        while not lookups.done():
            peak_bytes = max(peak_bytes, resident_bytes())
            await asyncio.wait({lookups}, timeout=0.02)
        await one.aclose()
        return lookups.result()

    began_s = time.monotonic()
    found = asyncio.run(scenario())
    assert time.monotonic() - began_s < DEADLINE_S + 5
    return found, peak_bytes - before_bytes


def check(server, url):
    found, growth_bytes = look_up(url)
    assert all(one is None or isinstance(one, Exception) for one in found), found
    assert growth_bytes < GROWTH_BYTES, f"{growth_bytes / MIB:.0f} MiB"
    if "flood" in server.mode:
        assert server.sent_bytes < SENT_BYTES, f"{server.sent_bytes / MIB:.0f} MiB were taken"
    return found


@pytest.mark.parametrize("mode", HostileRedis.MODES)
def test_a_hostile_redis_is_survived(mode):
    pytest.importorskip("redis")
    with HostileRedis(mode, entry_with_a_blob()) as server:
        found = check(server, f"redis://127.0.0.1:{server.port}?max_value_mb=64")
    if mode.startswith("wrong type") or mode == "nothing":
        assert found == [None] * 8


@pytest.mark.parametrize("mode", HostileS3.MODES)
def test_a_hostile_s3_is_survived(mode, monkeypatch):
    pytest.importorskip("obstore")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with HostileS3(mode, entry_with_a_blob()) as server:
        check(server, f"s3://bucket/x?endpoint=http://127.0.0.1:{server.port}&region=us-east-1&max_value_mb=64")


def test_a_bounded_reader_takes_as_much_as_it_may():
    async def scenario():
        stream = asyncio.StreamReader()
        stream.feed_data(b"line\n" + bytes(OVERHEAD_BYTES))
        reader = BoundedReader(stream)
        reader.allow(10)
        assert await reader.readline() == b"line\n" and await reader.readexactly(5) == bytes(5)
        assert not reader.at_eof()
        with pytest.raises(AnswerTooLong):
            await reader.readexactly(1)
        with pytest.raises(AnswerTooLong):
            await reader.read(100)
        reader.allow(1 << 20)
        await reader.readexactly(OVERHEAD_BYTES - 105)
        stream.feed_data(b"\n" * (MAX_LINES + 1))
        for _ in range(MAX_LINES):
            await reader.readline()
        with pytest.raises(AnswerTooLong):
            await reader.readline()

    asyncio.run(scenario())


WRONG = {
    "list": ("RPUSH", "x"),
    "hash": ("HSET", "a", "b"),
    "set": ("SADD", "x"),
    "sorted set": ("ZADD", "1", "x"),
    "stream": ("XADD", "*", "a", "b"),
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("which", ["e", "b"])
def test_redis_names_of_another_type_are_a_miss_and_are_stored_over(redis_server, tmp_path, words, which):

    async def scenario():
        one = provider(f"redis://127.0.0.1:{redis_server.port}?prefix={tmp_path.name}{which}")
        stored = value(2_000_000)
        await one.on_store(context(), stored)
        client = one.store._connected()
        for name in await client.keys(f"{tmp_path.name}{which}:{which}:*"):
            await client.delete(name)
            await client.execute_command(words[0], name, *words[1:])
        assert [await one.on_lookup(context()) for _ in range(4)] == [None] * 4
        assert one.measures.snapshot()["errors"] == 0
        await one.on_store(context(), stored)
        assert same(await one.on_lookup(context()), stored)
        await one.aclose()

    asyncio.run(scenario())
