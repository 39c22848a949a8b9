"""One contract for every place results can be kept (``url`` in ``conftest.py``), and entries that nobody wrote."""

import asyncio
import gzip
import json
import pickle
import tracemalloc

import pytest
from stored_values import context, provider, same, torch, value

from comfy_execution.cache_provider import CacheValue
from custom_nodes.keepwarm.entry_format import INLINE_BYTES, MAGIC, Sealer


def test_another_provider_finds_exactly_what_was_stored(url):
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


def test_values_without_an_exact_form_are_not_stored(url):
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
def test_forged_entries_are_a_miss_with_one_warning_and_little_memory(url, make, caplog, tmp_path):
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
