"""Reads past the page cache give the file's bytes, whatever the range, and where there are none, ordinary reads do."""

import errno
import os
import random

import pytest
import safetensors.torch
import torch

from comfy.families.model_errors import ModelFileError
from comfy.weight_files import reader as reader_module
from comfy.weight_files.block_layout import ALIGNMENT_BYTES
from comfy.weight_files.direct_reads import BLOCK_BYTES, DirectReads
from comfy.weight_files.page_cache import absent_by_mincore, can_drop_pages
from comfy.weight_files.reader import CHUNK_BYTES, WeightReader

SIZE_BYTES = 5 * BLOCK_BYTES + 77


@pytest.fixture
def path(tmp_path):
    name = tmp_path / "bytes.bin"
    name.write_bytes(os.urandom(SIZE_BYTES))
    with open(name, "rb") as file:
        os.fsync(file.fileno())
    return str(name)


@pytest.fixture
def file(path):
    """The file's number."""
    number = os.open(path, os.O_RDONLY)
    yield number
    os.close(number)


@pytest.fixture
def direct(path, file):
    found = DirectReads(path, file, SIZE_BYTES)
    if not found.are_possible or found.read(0, 1) is None:
        pytest.skip("this system or file system has no reads past the page cache")
    yield found
    found.close()


RANGES = [(0, 1), (1, 2), (0, BLOCK_BYTES), (BLOCK_BYTES - 1, BLOCK_BYTES + 1), (3, SIZE_BYTES - 3), (2 * BLOCK_BYTES, SIZE_BYTES)]


@pytest.mark.parametrize(("start", "stop"), RANGES)
def test_any_range_is_read(path, direct, start, stop):
    with open(path, "rb") as file:
        assert bytes(direct.read(start, stop)) == file.read()[start:stop]


@pytest.mark.parametrize("start", [0, SIZE_BYTES - 5, SIZE_BYTES, SIZE_BYTES + BLOCK_BYTES])
def test_beyond_the_end_there_are_fewer_bytes(path, direct, start):
    with open(path, "rb") as file:
        assert bytes(direct.read(start, start + SIZE_BYTES)) == file.read()[start:]


def test_reads_that_give_less_than_asked_go_on(path, direct, monkeypatch):
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, views, position: whole(file, [views[0][:BLOCK_BYTES]], position))
    with open(path, "rb") as file:
        assert bytes(direct.read(9, SIZE_BYTES - 9)) == file.read()[9:-9]


def test_a_refusal_holds_for_all_that_come_after(direct, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "preadv", refuse)
    assert direct.read(0, 10) is None and not direct.are_possible


def test_a_disk_that_fails_is_no_refusal(direct, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError, match="Input/output"):
        direct.read(0, 10)
    assert direct.are_possible


@pytest.mark.parametrize("reason", [errno.EINVAL, errno.ENOENT])
def test_where_the_file_cannot_be_opened_so_there_are_none(path, file, monkeypatch, reason):
    def refuse(*_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "open", refuse)
    assert not DirectReads(path, file, SIZE_BYTES).are_possible


def test_a_file_that_took_its_place_is_not_read(path, file, direct, tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(bytes(SIZE_BYTES))
    os.replace(other, path)
    assert not DirectReads(path, file, SIZE_BYTES).are_possible


TENSORS = {
    "a.long": torch.arange(3 * CHUNK_BYTES // 4, dtype=torch.int32),
    "b.short": torch.arange(5, dtype=torch.int16),
    "c.half": torch.linspace(-3, 3, CHUNK_BYTES // 2 + 3).half(),
    "d.odd": torch.arange(7, dtype=torch.uint8),
}


def absent_file(name, padding=0):
    """A file *name* of weights, which begin *padding* bytes later than they could, none of it in the page cache."""
    safetensors.torch.save_file(TENSORS, name, {"padding": " " * padding})
    number = os.open(name, os.O_RDONLY)
    os.fsync(number)
    if not can_drop_pages():
        pytest.skip("this system has no page cache that takes advice")
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(number)
    if not is_absent(name):
        pytest.skip("this file system keeps its pages, or does not tell")
    return name


def is_absent(name):
    """Whether no page of the file is in the page cache."""
    with open(name, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        absent = absent_by_mincore(file.fileno(), size)
    return absent is not None and sum(stop - start for start, stop in absent) >= size


@pytest.fixture
def weights(tmp_path):
    """A file of weights, none of which is in the page cache."""
    return absent_file(str(tmp_path / "weights.safetensors"))


@pytest.fixture
def counted(monkeypatch):
    """How many chunks were read past the page cache."""
    done, whole = [], WeightReader._read_directly

    def read(self, chunk, into):
        found = whole(self, chunk, into)
        done.append(found)
        return found

    monkeypatch.setattr(WeightReader, "_read_directly", read)
    return done


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_weights_that_are_not_cached_leave_nothing_there(weights, counted, dtype):
    with WeightReader(weights, drop_pages=True) as reader:
        if not reader._direct.are_possible:
            pytest.skip("this file system has no reads past the page cache")
        found = reader.read(TENSORS, dtype)
    assert all(counted) and counted
    assert all(torch.equal(found[key], tensor.to(found[key].dtype)) for key, tensor in TENSORS.items())
    assert found["c.half"].dtype == (dtype or torch.float16)
    assert is_absent(weights), "what is cast goes through the page cache, and is dropped"


def test_large_weights_are_read_where_they_stay_and_the_rest_through_a_buffer(weights, monkeypatch):
    done, into, through = {"into": 0, "through": 0}, DirectReads.read_into, DirectReads.read

    def read_into(self, blocks, start, stop):
        done["into"] += stop - start
        return into(self, blocks, start, stop)

    def read(self, start, stop):
        done["through"] += stop - start
        return through(self, start, stop)

    monkeypatch.setattr(DirectReads, "read_into", read_into)
    monkeypatch.setattr(DirectReads, "read", read)
    with WeightReader(weights, drop_pages=True) as reader:
        if not reader._direct.are_possible:
            pytest.skip("this file system has no reads past the page cache")
        found = reader.read(reversed(TENSORS))
        assert reader._direct.are_possible
    assert all(torch.equal(found[key], tensor) for key, tensor in TENSORS.items())
    assert done["through"] == TENSORS["b.short"].nbytes + TENSORS["d.odd"].nbytes
    assert done["into"] == sum(tensor.nbytes for tensor in TENSORS.values())  # a buffer is read into, too


@pytest.mark.parametrize("padding", range(0, ALIGNMENT_BYTES, 8))
def test_wherever_weights_begin_in_the_file_they_end_up_aligned(tmp_path, padding):
    name = absent_file(str(tmp_path / "weights.safetensors"), padding)
    with WeightReader(name, drop_pages=True) as reader:
        found = reader.read(TENSORS)
    for key, tensor in TENSORS.items():
        assert torch.equal(found[key], tensor) and found[key].data_ptr() % ALIGNMENT_BYTES == 0


@pytest.mark.parametrize("seed", range(6))
def test_pieces_may_arrive_in_any_order_and_each_from_the_disk_or_from_the_cache(tmp_path, monkeypatch, seed):
    choose = random.Random(seed)
    monkeypatch.setattr(reader_module, "CHUNK_BYTES", BLOCK_BYTES)  # hundreds of pieces
    name = absent_file(str(tmp_path / "weights.safetensors"), 8 * choose.randrange(8))
    whole, plan = WeightReader._read_directly, WeightReader._chunks

    def some(self, chunk, into):
        return choose.random() < 0.5 and whole(self, chunk, into)

    def in_any_order(self, destinations):
        return choose.sample(found := plan(self, destinations), len(found))

    monkeypatch.setattr(WeightReader, "_read_directly", some)
    monkeypatch.setattr(WeightReader, "_chunks", in_any_order)
    with WeightReader(name, drop_pages=True) as reader:
        found = reader.read(["c.half", "a.long"])
    assert all(torch.equal(tensor, TENSORS[key]) for key, tensor in found.items())


def test_what_is_cached_is_read_from_there(weights, counted):
    with open(weights, "rb") as file:
        file.read()
    with WeightReader(weights, drop_pages=True) as reader:
        found = reader.read(TENSORS)
    assert counted and not any(counted)
    assert all(torch.equal(found[key], tensor) for key, tensor in TENSORS.items())


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_after_a_refusal_ordinary_reads_give_the_same(weights, monkeypatch, dtype):
    whole = os.preadv

    def refuse(file, views, position):
        if len(views) == 1 and len(views[0]) % BLOCK_BYTES == 0 and position % BLOCK_BYTES == 0 and file == direct._file:
            raise OSError(errno.EINVAL, "Invalid argument")
        return whole(file, views, position)

    with WeightReader(weights, drop_pages=True) as reader:
        direct = reader._direct
        monkeypatch.setattr(os, "preadv", refuse)
        found = reader.read(TENSORS, dtype)
        assert not direct.are_possible
    assert all(torch.equal(found[key], tensor.to(found[key].dtype)) for key, tensor in TENSORS.items())


def test_a_file_that_ends_early_and_a_disk_that_fails_are_named(weights, monkeypatch):
    monkeypatch.setattr(reader_module.DirectReads, "read_into", lambda self, blocks, start, stop: 16)
    with (
        WeightReader(weights, drop_pages=True) as reader,
        pytest.raises(ModelFileError, match=r"weights\.safetensors ended inside 'a.long'"),
    ):
        reader.read(TENSORS, threads=1)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(reader_module.DirectReads, "read_into", fail)
    with (
        WeightReader(weights, drop_pages=True) as reader,
        pytest.raises(ModelFileError, match="weights.safetensors cannot be read at byte"),
    ):
        reader.read(TENSORS, threads=1)
