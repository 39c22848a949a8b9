"""The form of stored parts: what is written is read, and nothing else is."""

import dataclasses
import random

import pytest

from comfy.ram_model_store.part_format import (
    HEAD,
    PAGE_BYTES,
    VERSION,
    Block,
    Head,
    PartTable,
    SourceFacts,
    StoredPartError,
    StoredTensor,
    encode,
    read_head,
    read_table,
)

FACTS = SourceFacts(
    "/models/a.safetensors", {"format": "pt"}, {"w": ("float16", (4, 8)), "b": ("float32", (3,)), "none": ("int64", (0, 7))}
)
SMALL = (StoredTensor(0, "w", "float16", PAGE_BYTES), StoredTensor(0, "b", "float32", PAGE_BYTES + 64))
LARGE = (StoredTensor(0, "w", "float32", 2 * PAGE_BYTES + 128), StoredTensor(0, "none", "int64", 2 * PAGE_BYTES))
BLOCKS = (Block(PAGE_BYTES, 100, SMALL, (1,)), Block(2 * PAGE_BYTES, 300, LARGE, (-(1 << 63),)))
TABLE = PartTable("a key", "model of a", (FACTS,), BLOCKS)
TABLE_START = 3 * PAGE_BYTES


def written(table=TABLE, table_start=TABLE_START):
    """(page, table, bytes of the file)"""
    page, raw = encode(table, table_start, 2.5)
    return page, raw, table_start + len(raw)


def read(page, raw, file_bytes):
    return read_table(raw, read_head(page, file_bytes))


def test_what_is_written_is_read():
    page, raw, file_bytes = written()
    assert len(page) == PAGE_BYTES
    head = read_head(page, file_bytes)
    assert (head.seconds, head.table_start, head.table_bytes, head.file_bytes) == (2.5, TABLE_START, len(raw), file_bytes)
    assert read_table(raw, head) == TABLE and TABLE.nbytes() == 400


def test_every_flipped_bit_of_the_first_page_is_noticed():
    page, raw, file_bytes = written()
    for number in range(8 * (HEAD.size + 32)):
        broken = bytearray(page)
        broken[number // 8] ^= 1 << number % 8
        with pytest.raises(StoredPartError):
            read(bytes(broken), raw, file_bytes)


def test_flipped_bits_of_the_table_are_noticed():
    page, raw, file_bytes = written()
    chance = random.Random(1)
    for _ in range(300):
        broken = bytearray(raw)
        broken[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        with pytest.raises(StoredPartError, match="damaged"):
            read(page, bytes(broken), file_bytes)


@pytest.mark.parametrize("change", [-1, 1, -len(written()[1]), -PAGE_BYTES])
def test_another_length_is_noticed(change):
    page, raw, file_bytes = written()
    with pytest.raises(StoredPartError, match="should have"):
        read(page, raw, file_bytes + change)
    with pytest.raises(StoredPartError, match="damaged"):
        read_table(raw[:-1], read_head(page, file_bytes))


def test_a_foreign_version_and_a_strange_file_are_refused_by_name():
    page, _, file_bytes = written()
    foreign = HEAD.pack(*[VERSION + 1 if number == 1 else value for number, value in enumerate(HEAD.unpack(page[: HEAD.size]))])
    with pytest.raises(StoredPartError, match=f"version {VERSION + 1}"):
        read_head(foreign + page[HEAD.size :], file_bytes)
    for strange in (b"", b"\0" * PAGE_BYTES, b"keepwarm"):
        with pytest.raises(StoredPartError, match="not a stored part"):
            read_head(strange, file_bytes)


def with_block(number, **changes):
    """A table with one block changed."""
    return dataclasses.replace(
        TABLE, blocks=tuple(dataclasses.replace(one, **changes) if at == number else one for at, one in enumerate(BLOCKS))
    )


def with_tensor(**changes):
    """A table whose first tensor is changed."""
    first, *rest = BLOCKS[0].tensors
    return with_block(0, tensors=(dataclasses.replace(first, **changes), *rest))


def with_facts(dtype, shape):
    """A table whose first tensor has *dtype* and *shape* in the file."""
    return dataclasses.replace(TABLE, sources=(dataclasses.replace(FACTS, tensors={**FACTS.tensors, "w": (dtype, shape)}),))


WRONG = {
    "a block over the first page": with_block(0, start=0),
    "a block behind the table": with_block(1, start=TABLE_START),
    "a block into the table": with_block(1, size=PAGE_BYTES + 1),
    "blocks that overlap": with_block(0, size=PAGE_BYTES + 1),
    "a block inside a page": with_block(1, start=2 * PAGE_BYTES + 512),
    "a tensor before its block": with_tensor(start=PAGE_BYTES - 64),
    "a tensor behind its block": with_tensor(start=PAGE_BYTES + 64),
    "tensors that overlap": with_tensor(start=PAGE_BYTES + 32),
    "a tensor inside an element": with_tensor(start=PAGE_BYTES - 1),
    "a dtype that there is not": with_tensor(dtype="float1"),
    "a wider dtype than there is room": with_tensor(dtype="float64"),
    "a tensor of no file": with_tensor(source=1),
    "a name of no tensor": with_tensor(key="x"),
    "a negative place": with_tensor(start=-PAGE_BYTES),
    "a place that is no number": with_tensor(start="1"),
    "a true place": with_tensor(start=True),
    "a strange dtype in the file": with_facts("object", (4, 8)),
    "a negative side": with_facts("float16", (-4, -8)),
    "a huge side": with_facts("float16", (1 << 60, 8)),
    "very many sides": with_facts("float16", (1,) * 100),
    "sides that are no numbers": with_facts("float16", ("4", 8)),
    "a larger shape": with_facts("float16", (40, 8)),
    "no sum": with_block(0, sums=()),
    "a sum too many": with_block(0, sums=(1, 2)),
    "a sum that is no number": with_block(0, sums=(1.0,)),
    "no text as the key": dataclasses.replace(TABLE, key=7),
}


@pytest.mark.parametrize("table", WRONG.values(), ids=WRONG)
def test_a_table_that_contradicts_itself_is_refused(table):
    page, raw, file_bytes = written(table)
    with pytest.raises(StoredPartError):
        read(page, raw, file_bytes)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"null", b'{"key":"a","label":"b","sources":3,"blocks":[]}', b"[" * 100_000])
def test_what_is_no_table_is_refused(raw):
    empty_page, _, _ = written()
    head = dataclasses.replace(read_head(empty_page, written()[2]), table_bytes=len(raw), file_bytes=TABLE_START + len(raw))
    from comfy.ram_model_store import part_format

    page = dataclasses.replace(head, table_digest=part_format._digest(raw)).encoded()
    with pytest.raises(StoredPartError):
        read(page, raw, TABLE_START + len(raw))


@pytest.mark.parametrize(
    "change", [{"table_start": 0}, {"table_start": PAGE_BYTES + 1}, {"table_bytes": 1 << 40}, {"seconds": float("nan")}]
)
def test_a_first_page_that_lies_is_refused(change):
    page, _, file_bytes = written()
    lying: Head = dataclasses.replace(read_head(page, file_bytes), **change)
    with pytest.raises(StoredPartError):
        read_head(lying.encoded(), file_bytes)
