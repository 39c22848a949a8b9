"""What lookups may take into memory, and entries that claim to be more than they are."""

import asyncio
import gc
import json
import os
import time
import weakref
from types import SimpleNamespace

import psutil
import pytest
from stored_values import context, provider, run, same, torch, value

from comfy_execution.cache_provider import CacheValue
from custom_nodes.keepwarm import entry_format
from custom_nodes.keepwarm.entry_format import INLINE_BYTES, MAGIC, MAX_ENTRY_BYTES, MAX_HEADER_BYTES, Rejected, Sealer, check_start
from custom_nodes.keepwarm.free_memory import free_bytes
from custom_nodes.keepwarm.intake import LARGE_AT_ONCE, SMALL_BYTES, SPARE_BYTES, IntakeGate
from custom_nodes.keepwarm.value_codec import Malformed, NotRepresentable, decode

MIB = 1 << 20


def sealed(document, more=b"", sealer=None):
    header = json.dumps(document).encode() if isinstance(document, dict) else document
    parts = [MAGIC + len(header).to_bytes(4, "big") + header, more]
    return b"".join([*parts, (sealer or Sealer())._seal(parts)])


def document(tree, described):
    return {"format": 1, "key": context().cache_key_hash, "class": "Node", "value": tree, "tensors": described}


def test_large_lookups_take_turns_and_small_ones_do_not_wait():
    async def scenario():
        gate, now, most = IntakeGate(lambda: 1 << 40), 0, 0

        async def look_up(size):
            nonlocal now, most
            async with gate.lookup(1 << 40) as intake:
                await intake.expect_entry(size)
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.01)
                await intake.expect(size)
                now -= 1

        await asyncio.gather(*(look_up(SMALL_BYTES + 1) for _ in range(5 * LARGE_AT_ONCE)))
        assert most == LARGE_AT_ONCE and gate.promised_bytes == 0
        most = 0
        await asyncio.gather(*(look_up(100) for _ in range(5 * LARGE_AT_ONCE)))
        assert most == 5 * LARGE_AT_ONCE

    for _ in range(2):
        asyncio.run(scenario())


def test_what_is_not_free_or_too_large_is_rejected():
    async def scenario():
        gate = IntakeGate(lambda: SPARE_BYTES + 10 * MIB)
        async with gate.lookup(8 * MIB) as first, gate.lookup(8 * MIB) as second:
            with pytest.raises(Rejected, match="may have"):
                await first.expect_entry(8 * MIB + 1)
            await first.expect_entry(8 * MIB)
            with pytest.raises(Rejected, match="are free"):
                await second.expect_entry(8 * MIB)
            first.end()
            await second.expect_entry(8 * MIB)
        assert gate.promised_bytes == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("version", [1, 2])
def test_the_control_group_counts(tmp_path, version):
    (tmp_path / "proc/self").mkdir(parents=True)
    controllers, top = (("4:memory,x", "sys/fs/cgroup/memory"), ("0:", "sys/fs/cgroup"))[version - 1]
    (tmp_path / "proc/self/cgroup").write_text(f"3:cpu:/\n{controllers}:/a/b\n")
    group = tmp_path / top / "a"
    (group / "b").mkdir(parents=True)
    names = (("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"), ("memory.max", "memory.current", "inactive_file"))
    limit, used, cached = names[version - 1]
    (group / "b" / limit).write_text("max\n" if version == 2 else f"{1 << 62}\n")
    (group / limit).write_text("1000\n")
    (group / used).write_text("900\n")
    (group / "memory.stat").write_text(f"anon 5\n{cached} 300\n")
    assert free_bytes(str(tmp_path)) == 400
    (group / limit).unlink()
    assert free_bytes(str(tmp_path)) == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.mark.parametrize(
    "start", [b"", b"KWE1", b"KWE2\0\0\0\1", MAGIC + b"\xff\xff\xff\xff", MAGIC + (MAX_HEADER_BYTES + 1).to_bytes(4, "big")]
)
def test_a_wrong_start_is_rejected(start):
    with pytest.raises(Rejected):
        check_start(start, 1 << 30)


def test_a_header_must_fit_into_its_entry():
    start = MAGIC + (100).to_bytes(4, "big")
    assert check_start(start) == check_start(start, 8 + 100 + 33) == 100
    with pytest.raises(Rejected):
        check_start(start, 8 + 100 + 32)


def small(count, **more):
    return [{"dtype": "U8", "shape": [8], "at": 8 * number, **more} for number in range(count)]


FORGED = {
    "tensors that share their bytes": lambda: sealed(
        document(["x", 0], [{"dtype": "U8", "shape": [60_000], "at": 0}] * 1000), bytes(60_000)
    ),
    "bytes of no tensor": lambda: sealed(document(["x", 0], small(2)), bytes(17)),
    "tensors without bytes": lambda: sealed(document(["x", 0], small(3)), bytes(16)),
    "tensors in another order": lambda: sealed(document(["x", 0], small(2)[::-1]), bytes(16)),
    "a blob many times": lambda: sealed(document(["x", 0], [{"dtype": "U8", "shape": [30 * MIB], "blake3": "a" * 64}] * 100)),
    "many small lists": lambda: sealed(b'{"format":1,"key":"' + context().cache_key_hash.encode() + b'","value":[' + b"[]," * MIB + b"0]}"),
    "a long header": lambda: sealed(b'{"format":1,"key":"' + b"a" * (5 * MIB) + b'"}'),
    "numbers of one hash": lambda: sealed(
        document(["l", [["l", [["l", [["s", [["i", f"{number * ((1 << 61) - 1):x}"] for number in range(30_000)]]]]]], None]], [])
    ),
}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED.keys())
def test_forged_sizes_are_a_miss_at_once(tmp_path, make, caplog, request):
    async def scenario():
        one = provider(f"file://{tmp_path}?max_value_mb=64")
        await one.store.put(context().cache_key_hash, [make()], [])
        began_s = time.thread_time()
        assert await one.on_lookup(context()) is None
        assert time.thread_time() - began_s < 1
        assert one.measures.snapshot()["rejected"] == 1 and one.measures.snapshot()["errors"] == 0

    asyncio.run(scenario())
    assert len(caplog.records) == 1
    assert "small lists" not in request.node.name or "more than 250000 items" in caplog.text


def test_an_entry_with_a_wrong_seal_is_not_parsed(monkeypatch):
    entry = sealed(document(None, []), sealer=Sealer(b"another"))
    monkeypatch.setattr(entry_format.json, "loads", lambda text: pytest.fail("parsed"))
    with pytest.raises(Rejected, match="seal"):
        Sealer(b"secret").open(context().cache_key_hash, entry)


@pytest.mark.parametrize("start", [b"", MAGIC + (1000).to_bytes(4, "big")], ids=["zeros", "with a start"])
def test_sparse_files_take_no_memory(tmp_path, start, monkeypatch):
    """120 of them at once, with and without the beginning of an entry: at most some are read at a time, with a seal as well."""
    most, gate, open_entry = [], SimpleNamespace(), Sealer.open

    def watched(self, key, data):
        most.append(gate.promised_bytes)
        return open_entry(self, key, data)

    monkeypatch.setattr(Sealer, "open", watched)

    async def scenario():
        nonlocal gate
        one = provider(f"file://{tmp_path}?max_value_mb=64", b"secret")
        gate = one._gate
        for number in range(120):
            path = one.store._path("entries", context(number).cache_key_hash)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as stream:
                stream.write(start)
                stream.truncate(2 * MIB)
        assert await asyncio.gather(*(one.on_lookup(context(number)) for number in range(120))) == [None] * 120

    asyncio.run(scenario())
    assert len(most) == (120 if start else 0) and all(promised <= LARGE_AT_ONCE * 2 * MIB for promised in most)


def test_sparse_files_larger_than_an_entry_are_removed_unread(tmp_path):
    async def scenario():
        one = provider(f"file://{tmp_path}")
        path = one.store._path("entries", context().cache_key_hash)
        os.makedirs(os.path.dirname(path))
        for read_only in (True, False):
            with open(path, "wb") as stream:
                stream.truncate(1 << 40)
            assert await provider(f"file://{tmp_path}{'?mode=ro' if read_only else ''}").on_lookup(context()) is None
            assert os.path.exists(path) is read_only

    asyncio.run(scenario())


def test_a_value_too_large_for_memory_is_a_miss(tmp_path, caplog):
    async def scenario():
        one = provider(f"file://{tmp_path}")
        await one.on_store(context(), value(1_000_000))
        one._gate = IntakeGate(lambda: SPARE_BYTES + 100)
        assert await one.on_lookup(context()) is None and "are free" in caplog.text
        one._gate = IntakeGate(lambda: 1 << 40)

        async def none(wanted):
            raise MemoryError

        one.store.get_blobs, kept = none, one.store.get_blobs
        assert await one.on_lookup(context()) is None and "no memory" in caplog.text
        one.store.get_blobs = kept
        assert same(await one.on_lookup(context()), value(1_000_000)) and one.measures.snapshot()["errors"] == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "stored",
    [["a" * (MAX_HEADER_BYTES + 1)], [list(range(300_000))], [[torch.zeros(INLINE_BYTES, dtype=torch.uint8) + n for n in range(1100)]]],
    ids=["a long text", "many numbers", "many small tensors"],
)
def test_what_would_not_be_read_is_not_stored(tmp_path, stored):
    with pytest.raises(NotRepresentable):
        Sealer().seal("a" * 64, "Node", [[stored], None])
    assert sum(tensor.nbytes for tensor in stored[0] if isinstance(stored[0], list) and hasattr(tensor, "nbytes")) in (
        0,
        1100 * INLINE_BYTES,
    )
    assert 1100 * INLINE_BYTES > MAX_ENTRY_BYTES


def test_equal_tensors_do_not_share_memory(tmp_path):
    async def scenario():
        one = provider(f"file://{tmp_path}")
        await one.on_store(context(), CacheValue([[torch.zeros(100_000)], [torch.zeros(100_000)]]))
        first, second = (items[0] for items in (await one.on_lookup(context())).outputs)
        first.add_(1)
        assert float(second.sum()) == 0

    asyncio.run(scenario())


def test_a_value_that_cannot_be_written_is_not_the_stores_error(tmp_path, monkeypatch, caplog):
    async def scenario():
        one = provider(f"file://{tmp_path}")
        monkeypatch.setattr(Sealer, "seal", lambda *_: 1 / 0)
        await one.on_store(context(), value())
        assert one.measures.snapshot()["errors"] == 0 and "cannot be written" in caplog.text

    asyncio.run(scenario())


def test_ordinary_keys_spread():
    assert len(decode(["s", list(range(5000))], [])) == 5000
    with pytest.raises(Malformed, match="hash"):
        decode(["d", [[["i", f"{number * ((1 << 61) - 1):x}"], 1] for number in range(200)]], [])


@pytest.mark.parametrize("damage", [b"KWE1" + (1000).to_bytes(4, "big"), b"KWE1" + (4).to_bytes(4, "big") + b"{}{}"])
def test_the_bytes_of_a_refused_entry_are_let_go_before_garbage_is_collected(tmp_path, monkeypatch, damage):
    one = provider(f"file://{tmp_path}")
    run(one.on_store(context(), value()))
    (path,) = (path for path in (tmp_path / "v1" / "entries").glob("??/*"))
    path.write_bytes(damage + bytes(300_000))
    read, get_entry = [], one.store.get_entry

    async def watched(key, intake):
        entry = await get_entry(key, intake)
        read.append(weakref.ref(entry))
        return entry

    monkeypatch.setattr(one.store, "get_entry", watched)
    gc.collect()
    gc.disable()
    try:
        assert run(one.on_lookup(context()), one.on_lookup(context())) == [None, None]
        assert len(read) == 2 and read[0]() is None
    finally:
        gc.enable()
