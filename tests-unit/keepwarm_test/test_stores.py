"""One contract for every place results can be kept: a folder, a real Redis server, and S3 as moto's server speaks it."""

import asyncio
import gzip
import json
import os
import pathlib
import pickle
import shutil
import socket
import subprocess
import sys
import time
import tracemalloc
import urllib.request

import pytest

from comfy_execution.cache_provider import CacheContext, CacheValue
from custom_nodes.keepwarm.activation import ServerTraits, make_provider
from custom_nodes.keepwarm.entry_format import INLINE_BYTES, MAGIC, Sealer
from custom_nodes.keepwarm.settings import Settings
from custom_nodes.keepwarm.store_urls import parse_url

torch = pytest.importorskip("torch")
START_TIMEOUT_S = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Redis:
    """A redis-server of our own without persistence."""

    def __init__(self, *flags):
        self.port = free_port()
        self.flags = flags
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self.flags], stdout=subprocess.DEVNULL
        )
        wait_for_port(self.port, self.process)

    def stop(self):
        self.process.kill()
        self.process.wait()


def wait_for_port(port, process):
    began = time.monotonic()
    while time.monotonic() - began < START_TIMEOUT_S and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}; exit status {process.poll()}")


@pytest.fixture(scope="module")
def redis_server():
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Redis()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3_server():
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for_port(port, process)
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT"), timeout=20).close()
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture(params=["file", "redis", "s3"])
def url(request, tmp_path, monkeypatch):
    if request.param == "file":
        return f"file://{tmp_path}/store?max_value_mb=64"
    if request.param == "redis":
        return f"redis://127.0.0.1:{request.getfixturevalue('redis_server').port}?prefix={tmp_path.name}&max_value_mb=64"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    endpoint = request.getfixturevalue("s3_server")
    return f"s3://bucket/{tmp_path.name}?endpoint={endpoint}&region=us-east-1&max_value_mb=64"


def provider(url, key=None):
    return make_provider(parse_url(url), Settings((), key, "", False), ServerTraits(guards=True, covers_machine=True))


def context(number=0):
    return CacheContext("1", "Node", f"{number:064x}")


def value(size=100_000, fill=1.0):
    return CacheValue([[{"samples": torch.full((size,), fill)}], [3, "x"]], {"output": {"text": ["a"]}, "meta": {"node_id": "1"}})


def same(first, second):
    return (
        torch.equal(first.outputs[0][0]["samples"], second.outputs[0][0]["samples"])
        and first.outputs[1] == second.outputs[1]
        and first.ui == second.ui
    )


def run(*steps):
    async def all_steps():
        return [await step for step in steps]

    return asyncio.run(all_steps())


def test_what_was_stored_is_found_by_another_provider_and_nothing_else_is(url):
    async def scenario():
        first, second = provider(url), provider(url)
        for number, size in enumerate((0, 10, INLINE_BYTES // 4, 100_000)):
            stored = value(size, number)
            assert await second.on_lookup(context(number)) is None
            await first.on_store(context(number), stored)
            assert same(await second.on_lookup(context(number)), stored)
        assert await second.on_lookup(context(99)) is None
        await first.aclose()
        await second.aclose()
        assert second.measures.snapshot()["hits"] == 4 and first.measures.snapshot()["stores"] == 4

    asyncio.run(scenario())


def test_tensors_of_several_parts_come_back(url):
    async def scenario():
        one = provider(url)
        stored = CacheValue([[torch.randint(0, 256, (40 << 20,), dtype=torch.uint8)]])
        await one.on_store(context(), stored)
        await one.on_store(context(1), stored)
        assert torch.equal((await one.on_lookup(context(1))).outputs[0][0], stored.outputs[0][0])
        await one.aclose()

    asyncio.run(scenario())


def test_results_can_be_changed_without_changing_what_is_stored(url):
    async def scenario():
        one = provider(url)
        await one.on_store(context(), value())
        (await one.on_lookup(context())).outputs[0][0]["samples"].add_(5)
        assert same(await one.on_lookup(context()), value())
        await one.aclose()

    asyncio.run(scenario())


def test_too_large_values_are_neither_stored_nor_fetched(url):
    async def scenario():
        small, large = provider(url.replace("max_value_mb=64", "max_value_mb=0.1")), provider(url)
        assert not small.should_cache(context(), value()) and small.should_cache(context()) and large.should_cache(context(), value())
        await large.on_store(context(), value())
        assert await small.on_lookup(context()) is None and await large.on_lookup(context()) is not None
        await small.aclose()
        await large.aclose()

    asyncio.run(scenario())


def test_a_reader_does_not_write_and_other_keys_do_not_read(url):
    async def scenario():
        reader, signed = provider(url + "&mode=ro"), provider(url, b"secret")
        assert reader.read_only and not reader.should_cache(context(), value())
        await signed.on_store(context(), value())
        assert await reader.on_lookup(context()) is None
        assert await provider(url, b"wrong").on_lookup(context()) is None
        assert same(await provider(url, b"secret").on_lookup(context()), value())

    asyncio.run(scenario())


def test_what_has_no_exact_form_is_passed_over(url):
    async def scenario():
        one = provider(url)
        await one.on_store(context(), CacheValue([[object()]]))
        assert await one.on_lookup(context()) is None and one.measures.snapshot()["stores"] == 0

    asyncio.run(scenario())


class Liar:
    """Passes on to a store, but flips a bit in each blob that it fetches while ``lies``."""

    def __init__(self, store):
        self.store, self.lies = store, True

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def get_blobs(self, wanted):
        blobs = await self.store.get_blobs(wanted)
        for data in blobs.values() if self.lies and blobs else ():
            data[5] ^= 1
        return blobs


def test_a_damaged_tensor_is_a_miss_and_can_be_stored_again(url):
    async def scenario():
        one = provider(url)
        one.store = Liar(one.store)
        await one.on_store(context(), value())
        assert await one.on_lookup(context()) is None and one.measures.snapshot()["rejected"] == 1
        one.store.lies = False
        assert await one.on_lookup(context()) is None
        await one.on_store(context(), value())
        assert same(await one.on_lookup(context()), value())
        await one.aclose()

    asyncio.run(scenario())


def files(folder, kind):
    return [path for path in pathlib.Path(folder, "v1", kind).rglob("*") if path.is_file()]


def test_folder_the_same_tensor_is_kept_once(tmp_path):
    async def scenario():
        one = provider(f"file://{tmp_path}")
        await one.on_store(context(1), value())
        await one.on_store(context(2), value())

    asyncio.run(scenario())
    assert len(files(tmp_path, "blobs")) == 1 and len(files(tmp_path, "entries")) == 2 and not files(tmp_path, "tmp")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "grow", "gone"])
@pytest.mark.parametrize("kind", ["entries", "blobs"])
def test_folder_damage_is_a_miss_with_a_warning_and_can_be_stored_over(tmp_path, kind, damage, caplog):
    async def scenario():
        one = provider(f"file://{tmp_path}")
        await one.on_store(context(), value())
        (path,) = files(tmp_path, kind)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        contents = {"flip": bytes(data), "cut": bytes(data[:-9]), "empty": b"", "grow": bytes(data) + b"x"}
        path.unlink() if damage == "gone" else path.write_bytes(contents[damage])
        caplog.clear()
        assert await one.on_lookup(context()) is None
        assert damage == "gone" or len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
        await one.on_store(context(), value())
        assert same(await one.on_lookup(context()), value())

    asyncio.run(scenario())


def test_folder_the_cap_holds_and_the_least_used_goes(tmp_path):
    async def scenario():
        one = provider(f"file://{tmp_path}?max_gb=0.01")
        for number in range(60):
            await one.on_store(context(number), value(250_000, number))
        total = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert total <= 0.01 * 1024**3
        assert same(await one.on_lookup(context(59)), value(250_000, 59)) and await one.on_lookup(context(0)) is None

    asyncio.run(scenario())


def test_folder_a_value_larger_than_the_cap_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="max_gb"):
        run(provider(f"file://{tmp_path}?max_gb=0.0001").on_store(context(), value()))
    assert not files(tmp_path, "blobs") and not files(tmp_path, "tmp")


def test_folder_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    one = provider(f"file://{tmp_path}")
    run(one.on_store(context(1), value()))
    before = sorted(tmp_path.rglob("*"))

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        run(one.on_store(context(2), value(fill=2)))
    monkeypatch.undo()
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == [path for path in before if path.is_file()]


@pytest.mark.parametrize("kind", ["pipe", "link", "socket"])
@pytest.mark.parametrize("where", ["entries", "blobs"])
def test_folder_what_is_no_plain_file_is_a_miss_at_once(tmp_path, kind, where, caplog):
    async def scenario():
        one = provider(f"file://{tmp_path}/store")
        await one.on_store(context(), value())
        (path,) = files(tmp_path / "store", where)
        data = path.read_bytes()
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "link":
            (tmp_path / "elsewhere").write_bytes(data)
            path.symlink_to(tmp_path / "elsewhere")
        else:
            before = os.getcwd()
            os.chdir(path.parent)  # a socket's path may not be long
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path.name)
            os.chdir(before)
        assert await asyncio.wait_for(one.on_lookup(context()), 5) is None
        assert any("removed" in record.getMessage() for record in caplog.records)
        await one.on_store(context(), value())
        assert same(await one.on_lookup(context()), value())

    asyncio.run(scenario())


def forged(described, tree=None, sealer=None, **header):
    """An entry for ``context()`` with a right seal and any content."""
    document = {"format": 1, "key": context().cache_key_hash, "class": "Node", "value": tree, "tensors": described, **header}
    raw = json.dumps(document).encode()
    parts = [MAGIC + len(raw).to_bytes(4, "big") + raw]
    return b"".join([*parts, (sealer or Sealer())._seal(parts)])


HOSTILE = {
    "a pickle": lambda: pickle.dumps({"outputs": [print]}),
    "a zip": lambda: b"PK\x03\x04" + bytes(5000),
    "a gzip bomb": lambda: gzip.compress(bytes(10_000_000)),
    "a safetensors file": lambda: (2).to_bytes(8, "little") + b"{}" + bytes(100),
    "a header longer than the entry": lambda: MAGIC + b"\xff\xff\xff\xff" + bytes(60),
    "a path for a digest": lambda: forged([{"dtype": "F32", "shape": [100_000], "blake3": "../../../../etc/passwd"}], ["x", 0]),
    "a path of the right length": lambda: forged([{"dtype": "F32", "shape": [100_000], "blake3": "../" * 21 + "a"}], ["x", 0]),
    "a huge shape": lambda: forged([{"dtype": "F64", "shape": [1 << 40, 1 << 20], "blake3": "a" * 64}], ["x", 0]),
    "a huge shape in the entry": lambda: forged([{"dtype": "F64", "shape": [1 << 60], "at": 0}], ["x", 0]),
    "many tensors of one byte": lambda: forged([{"dtype": "U8", "shape": [1], "blake3": f"{number:064x}"} for number in range(5000)]),
    "a place outside the entry": lambda: forged([{"dtype": "F32", "shape": [4], "at": 1 << 50}], ["l", [["l", [["x", 0]]], None]]),
    "deep nesting": lambda: forged([], None, value="@").replace(b'"@"', b"[" * 100_000 + b"]" * 100_000),
    "structure without end": lambda: forged([], ["l", [["l", [["q", "os.system"]]], None]]),
    "no pair of outputs and ui": lambda: forged([], ["l", [1]]),
    "no list": lambda: forged([], 7),
    "another format": lambda: forged([], ["l", [["l", []], None]], format=2),
    "an entry of another key": lambda: forged([], ["l", [["l", []], None]], key="b" * 64),
    "a number of many digits": lambda: forged([], ["l", [["l", [["l", [["i", "f" * 3_000_000]]]]], ["x", 9]]]),
    "nothing": lambda: b"",
    "one byte": lambda: b"K",
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_entries_that_nobody_wrote_are_a_miss_with_one_warning_and_little_memory(url, make, caplog, tmp_path):
    """The same through every kind of place, as bytes that another client could have put there."""
    data = make()
    if data.startswith(MAGIC) and b"[[[[[" in data:
        body = data[:-33]
        header = body[8:]
        parts = [MAGIC + len(header).to_bytes(4, "big") + header]
        data = b"".join([*parts, Sealer()._seal(parts)])

    async def scenario():
        one = provider(url)
        await one.store.put(context().cache_key_hash, [data], [])
        tracemalloc.start()
        try:
            assert await one.on_lookup(context()) is None
            assert tracemalloc.get_traced_memory()[1] < 40 << 20
        finally:
            tracemalloc.stop()
        if data:
            assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
            assert one.measures.snapshot()["rejected"] == 1
        await one.on_store(context(), value())
        assert same(await one.on_lookup(context()), value())
        await one.aclose()

    asyncio.run(scenario())


def test_redis_a_reader_needs_no_more_rights_than_documented(redis_server, monkeypatch, tmp_path):
    async def scenario():
        writer = provider(f"redis://127.0.0.1:{redis_server.port}?prefix=keepwarm")
        await writer.on_store(context(), value())
        await writer.store._connected().execute_command(
            "ACL", "SETUSER", "worker", "on", ">pass", "~keepwarm:*", "resetchannels", "-@all", "+getrange"
        )
        monkeypatch.setenv("KEEPWARM_REDIS_USERNAME", "worker")
        monkeypatch.setenv("KEEPWARM_REDIS_PASSWORD", "pass")
        reader = provider(f"redis://127.0.0.1:{redis_server.port}?prefix=keepwarm&mode=ro")
        assert same(await reader.on_lookup(context()), value()) and await reader.on_lookup(context(1)) is None
        with pytest.raises(Exception, match="(?i)permission"):
            await reader.store.put(context(1).cache_key_hash, [b"x"], [])
        await writer.aclose()
        await reader.aclose()

    asyncio.run(scenario())


WRITER = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import torch
from comfy_execution.cache_provider import CacheContext, CacheValue
from custom_nodes.keepwarm.activation import ServerTraits, make_provider
from custom_nodes.keepwarm.settings import Settings
from custom_nodes.keepwarm.store_urls import parse_url
async def main():
    one = make_provider(parse_url(sys.argv[2]), Settings((), None, "", False), ServerTraits(True, True))
    for number in range(int(sys.argv[3]), 100000):
        key = f"{number % 50:064x}"
        await one.on_store(CacheContext("1", "Node", key), CacheValue([[torch.full((300_000,), float(number % 50))]]))
        print(number % 50, flush=True)
asyncio.run(main())
"""


def test_folder_writers_killed_at_any_moment_leave_no_wrong_entry(tmp_path):
    """Two processes write the same keys; both are killed in the middle; what they said to be stored is right, and nothing is wrong."""
    root = str(pathlib.Path(__file__).resolve().parents[2])
    for round_number in range(2):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, root, f"file://{tmp_path}", str(round_number * 25 + start)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for start in (0, 10)
        ]
        stored = {int(writer.stdout.readline()) for writer in writers for _ in range(8)}
        for writer in writers:
            writer.kill()
        for writer in writers:
            stored |= {int(line) for line in writer.stdout.read().split("\n")[:-1]}
            writer.wait()
            writer.stdout.close()

        async def check(stored=stored):
            one = provider(f"file://{tmp_path}")
            for number in range(50):
                found = await one.on_lookup(context(number))
                assert found is not None or number not in stored
                assert found is None or torch.equal(found.outputs[0][0], torch.full((300_000,), float(number)))
            assert one.measures.snapshot()["rejected"] == 0

        asyncio.run(check())


def test_redis_expires_and_reconnects(redis_server, tmp_path):
    async def scenario():
        one = provider(f"redis://127.0.0.1:{redis_server.port}?ttl=1000&prefix={tmp_path.name}")
        await one.on_store(context(), value(2_000_000))
        client = one.store._connected()
        assert all([0 < await client.ttl(name) <= 1000 for name in await client.keys(f"{tmp_path.name}:*")])
        redis_server.stop()
        with pytest.raises(Exception, match="(?i)connect|refused|closed"):
            await one.on_lookup(context())
        with pytest.raises(Exception, match="(?i)connect|refused|closed"):
            await one.on_store(context(), value())
        redis_server.start()
        assert await one.on_lookup(context()) is None
        await one.on_store(context(), value())
        assert same(await one.on_lookup(context()), value())
        await one.aclose()

    asyncio.run(scenario())


def test_redis_takes_the_password_from_the_environment_or_a_file(tmp_path, monkeypatch):
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Redis("--requirepass", "pass word")
    (tmp_path / "password").write_text("pass word\n")
    try:
        for name, content in (("KEEPWARM_REDIS_PASSWORD", "pass word"), ("KEEPWARM_REDIS_PASSWORD_FILE", str(tmp_path / "password"))):
            monkeypatch.setenv(name, content)
            one = provider(f"redis://127.0.0.1:{server.port}")
            monkeypatch.delenv(name)
            assert run(one.on_store(context(), value()), one.on_lookup(context()))[1] is not None
        with pytest.raises(Exception, match="(?i)auth"):
            run(provider(f"redis://127.0.0.1:{server.port}").on_lookup(context()))
    finally:
        server.stop()


def test_redis_speaks_through_a_socket(tmp_path):
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Redis("--unixsocket", str(tmp_path / "r.sock"))
    try:
        one = provider(f"unix://{tmp_path}/r.sock?db=3")
        assert run(one.on_store(context(), value()), one.on_lookup(context()))[1] is not None
    finally:
        server.stop()
