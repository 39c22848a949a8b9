"""Reading chosen tensors of safetensors files, and refusing files that are not what they claim."""

import gc
import os
import sys
import threading
import weakref

import pytest
import safetensors.torch
import torch

from comfy.families.model_errors import ModelFileError
from comfy.weight_files import reader as weight_reader
from comfy.weight_files.block_layout import ALIGNMENT_BYTES
from comfy.weight_files.fresh_memory import FreshMemory
from comfy.weight_files.page_cache import can_drop_pages
from comfy.weight_files.reader import CAST_THREADS, CHUNK_BYTES, READ_THREADS, WeightReader

TENSORS = {
    "half": torch.randn(300, 7).half(),
    "whole": torch.arange(12).view(3, 4),
    "single": torch.randn(5, 5),
    "scalar": torch.tensor(2.5),
    "none": torch.empty(0),
    "brain": torch.randn(9).bfloat16(),
}


@pytest.fixture
def path(tmp_path):
    name = str(tmp_path / "weights.safetensors")
    safetensors.torch.save_file(TENSORS, name, metadata={"made": "here"})
    return name


def test_tensors_come_back_equal_and_in_one_block(path):
    with WeightReader(path) as reader:
        read = reader.read(TENSORS)
    for key, tensor in TENSORS.items():
        assert torch.equal(read[key], tensor) and read[key].dtype == tensor.dtype
    assert len({tensor.untyped_storage().data_ptr() for tensor in read.values() if tensor.numel()}) == 1
    assert reader.header.metadata == {"made": "here"}


@pytest.mark.parametrize("threads", [1, 3])
def test_floating_tensors_are_cast_while_reading_and_others_are_not(path, threads):
    with WeightReader(path) as reader:
        read = reader.read(TENSORS, torch.float32, threads=threads)
    assert torch.equal(read["half"], TENSORS["half"].float()) and torch.equal(read["brain"], TENSORS["brain"].float())
    assert read["whole"].dtype == torch.int64


def test_reading_under_inference_mode_gives_ordinary_tensors(path):
    with torch.inference_mode(), WeightReader(path) as reader:
        assert not reader.read(["half"], torch.float32)["half"].is_inference()


def test_a_tensor_larger_than_a_chunk_is_read_whole(tmp_path):
    big = torch.randn(CHUNK_BYTES // 4 + 1000)
    name = str(tmp_path / "big.safetensors")
    safetensors.torch.save_file({"big": big.half()}, name)
    with WeightReader(name) as reader:
        assert torch.equal(reader.read(["big"], torch.float32)["big"], big.half().float())


def test_tensors_of_one_read_share_a_block_that_holds_them_and_no_more(path):
    with WeightReader(path) as reader:
        read = reader.read(["half", "single"], torch.float32)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in read.values()}
    needed = sum(-(-tensor.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for tensor in read.values())
    assert list(storages.values()) == [needed]


def test_unknown_keys_are_refused(path):
    with WeightReader(path) as reader, pytest.raises(KeyError):
        reader.read(["absent"])


def test_a_file_that_shrinks_while_it_is_read_says_so(path):
    with WeightReader(path) as reader:
        with open(path, "r+b") as file:
            file.truncate(reader.header.entries["half"].start + 10)
        with pytest.raises(ModelFileError, match="ended inside"):
            reader.read(["half"])


@pytest.fixture
def large(tmp_path):
    """A file of 13 chunks: many small tensors, then large ones, of two dtypes in turn."""
    tensors = {f"small.{number:03d}": torch.randn(number % 7 * 11 + 1) for number in range(300)}
    tensors |= {f"middle.{number}": torch.randn(1 << 20).to(torch.float16 if number % 2 else torch.float32) for number in range(8)}
    tensors |= {"tall": torch.randn(9, 1 << 21), "wide": torch.arange(1 << 20)}
    name = str(tmp_path / "large.safetensors")
    safetensors.torch.save_file(tensors, name)
    return name, tensors


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_large_and_small_tensors_side_by_side_come_back_equal(large, dtype, threads):
    name, tensors = large
    with WeightReader(name) as reader:
        read = reader.read(reversed(tensors), dtype, threads=threads)
    for key, tensor in tensors.items():
        assert torch.equal(read[key], tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)), key
        assert read[key].data_ptr() % ALIGNMENT_BYTES == 0
    assert len({tensor.untyped_storage().data_ptr() for tensor in read.values()}) == 1


def test_reads_that_give_less_than_asked_go_on_where_they_stopped(large, monkeypatch):
    name, tensors = large
    whole = WeightReader._read_at

    def short(self, views, position):
        some, left = [], 100_001
        for view in views:
            some.append(view[:left])
            left -= len(some[-1])
            if not left:
                break
        return whole(self, some, position)

    monkeypatch.setattr(WeightReader, "_read_at", short)
    with WeightReader(name) as reader:
        read = reader.read(tensors)
    assert all(torch.equal(read[key], tensor) for key, tensor in tensors.items())


def test_where_positional_reads_are_missing_the_file_is_seeked(large, monkeypatch):
    name, tensors = large
    monkeypatch.delattr("os.preadv")
    with WeightReader(name) as reader:
        read = reader.read(tensors, threads=3)
    assert all(torch.equal(read[key], tensor) for key, tensor in tensors.items())


@pytest.mark.parametrize("threads", [1, 4])
def test_a_check_between_chunks_ends_the_read_and_leaves_nothing_running(large, threads, monkeypatch):
    name, tensors = large
    calls, before = [], threading.active_count()
    main, whole, checked = threading.current_thread(), WeightReader._read_chunk, threading.Event()

    def check():
        calls.append(threading.current_thread())
        if len(calls) == 2:
            checked.set()
            raise KeyboardInterrupt("stop")

    def read(self, chunk, destinations):
        assert threading.current_thread() is main or checked.wait(20)  # else the helpers may have read everything by then
        whole(self, chunk, destinations)

    monkeypatch.setattr(WeightReader, "_read_chunk", read)
    with pytest.raises(KeyboardInterrupt, match="stop"), WeightReader(name, between_chunks=check) as reader:
        reader.read(tensors, threads=threads)
    assert calls == [threading.current_thread()] * 2 and threading.active_count() == before
    with WeightReader(name, between_chunks=lambda: None) as reader:
        assert torch.equal(reader.read(["wide"])["wide"], tensors["wide"])


def test_an_error_in_a_helper_thread_reaches_the_caller(large, monkeypatch):
    name, tensors = large
    main, whole = threading.current_thread(), WeightReader._read_chunk
    helping = threading.Event()

    def read(self, chunk, destinations):
        if threading.current_thread() is main:
            assert helping.wait(20)
            return whole(self, chunk, destinations)
        helping.set()
        raise OSError("a worker broke")

    monkeypatch.setattr(WeightReader, "_read_chunk", read)
    with pytest.raises(OSError, match="a worker broke"), WeightReader(name) as reader:
        reader.read(tensors, threads=2)


def test_memory_goes_at_once_when_every_thread_fails(large, monkeypatch):
    name, tensors = large
    both = threading.Barrier(2)

    def read(self, chunk, destinations):
        both.wait(20)
        raise OSError("every thread broke")

    def allocate(size_bytes):
        memory = FreshMemory(size_bytes)
        blocks.append(weakref.ref(memory))
        return memory

    blocks = []
    monkeypatch.setattr(WeightReader, "_read_chunk", read)
    monkeypatch.setattr(weight_reader, "FreshMemory", allocate)
    gc.collect()
    gc.disable()
    try:
        with WeightReader(name) as reader:
            reader.read(tensors, threads=2)
    except OSError as error:
        assert str(error) == "every thread broke"
    finally:
        gc.enable()
    assert blocks[0]() is None


def test_helper_threads_do_not_keep_the_process_alive(large, monkeypatch):
    name, tensors = large
    whole, daemons, is_helped = WeightReader._read_chunk, [], threading.Event()

    def read_chunk(self, *chunk):
        if threading.current_thread() is threading.main_thread():
            assert is_helped.wait(20)
        else:
            daemons.append(threading.current_thread().daemon)
            is_helped.set()
        return whole(self, *chunk)

    monkeypatch.setattr(WeightReader, "_read_chunk", read_chunk)
    with WeightReader(name) as reader:
        reader.read(tensors, threads=2)
    assert daemons and all(daemons)


def test_a_disk_error_names_the_file(large, monkeypatch):
    name, tensors = large
    reader = WeightReader(name)

    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.preadv", broken, raising=False)
    with pytest.raises(ModelFileError, match="large.safetensors cannot be read at byte .*Input/output error"), reader:
        reader.read(tensors)


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_file_that_shrinks_while_it_is_read_says_so(large, threads, dtype, monkeypatch):
    name, tensors = large
    whole, shrunk = WeightReader._read_chunk, threading.Event()

    def shrink():
        with open(name, "r+b") as file:
            file.truncate(20 << 20)
        shrunk.set()

    def read(self, chunk, destinations):
        assert shrunk.wait(20)  # else the helper may have read everything by then
        whole(self, chunk, destinations)

    monkeypatch.setattr(WeightReader, "_read_chunk", read)
    with pytest.raises(ModelFileError, match="large.safetensors ended inside"), WeightReader(name, between_chunks=shrink) as reader:
        reader.read(tensors, dtype, threads=threads)


def test_a_refused_file_is_closed_again(tmp_path):
    name = tmp_path / "no.safetensors"
    name.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelFileError):
        WeightReader(str(name))
    if sys.platform.startswith("linux"):
        assert str(name) not in [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]


def test_too_little_memory_says_how_much_was_needed():
    with pytest.raises(MemoryError, match=str(1 << 60)):
        FreshMemory(1 << 60)


@pytest.mark.parametrize(("dtype", "threads"), [(torch.float32, CAST_THREADS), (None, READ_THREADS)], ids=["cast", "as it is"])
def test_fewer_threads_read_what_is_cast(tmp_path, monkeypatch, dtype, threads):
    path = tmp_path / "large.safetensors"
    safetensors.torch.save_file(
        {str(number): torch.zeros(CHUNK_BYTES // 4, dtype=torch.float16) for number in range(2 * READ_THREADS + 2)}, path
    )
    helpers, start = [], threading.Thread.start

    def noted_start(thread):
        helpers.append(thread.name)
        start(thread)

    with WeightReader(str(path)) as reader:
        monkeypatch.setattr(threading.Thread, "start", noted_start)
        reader.read(["0"], dtype)
        assert not helpers, "one chunk needs no helper"
        reader.read(reader.header.entries, dtype)
    assert helpers == ["weight-reader"] * (min(threads, READ_THREADS + 2) - 1)


@pytest.mark.parametrize(("dtype", "drop_pages"), [(torch.float32, False), (None, False), (torch.float32, True)])
def test_what_is_cast_and_stays_in_the_page_cache_is_fetched_chunk_by_chunk(tmp_path, monkeypatch, dtype, drop_pages):
    if not can_drop_pages():
        pytest.skip("asks Linux")
    safetensors.torch.save_file(
        {"weight": torch.ones(3 * CHUNK_BYTES // 2, dtype=torch.bfloat16)}, path := str(tmp_path / "one.safetensors")
    )
    fetched = []
    monkeypatch.setattr(weight_reader, "fetch", lambda file, start, stop: fetched.append((start, stop)))
    with WeightReader(path, drop_pages) as opened:
        found = opened.read(["weight"], dtype)
        entry = opened.header.entries["weight"]
    assert found["weight"].min() == found["weight"].max() == 1
    if dtype is None or drop_pages:
        assert fetched == []
    else:
        assert min(fetched)[0] == entry.start and max(fetched)[1] == entry.stop and len(fetched) == 4
