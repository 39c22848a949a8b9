"""Reading chosen tensors of safetensors files, and refusing files that are not what they claim."""

import json
import pathlib

import pytest
import safetensors.torch
import torch

from comfy.families.model_errors import ModelFileError
from comfy.weight_reader import CHUNK_BYTES, WeightReader, plain_memory, read_header

TENSORS = {"half": torch.randn(300, 7).half(), "whole": torch.arange(12).view(3, 4), "single": torch.randn(5, 5),
           "scalar": torch.tensor(2.5), "none": torch.empty(0), "brain": torch.randn(9).bfloat16()}


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


def test_the_callers_memory_is_used(path):
    blocks = []

    def allocate(size_bytes):
        blocks.append(plain_memory(size_bytes))
        return blocks[-1]

    with WeightReader(path) as reader:
        needed = reader.arena_bytes(["half", "single"], torch.float32)
        read = reader.read(["half", "single"], torch.float32, allocate)
        own = torch.empty(5, 5)
        reader.read_into({"single": own})
    assert blocks[0].numel() == needed
    assert read["half"].untyped_storage().data_ptr() == blocks[0].untyped_storage().data_ptr()
    assert torch.equal(own, TENSORS["single"])


def test_unfit_destinations_and_unknown_keys_are_refused(path):
    with WeightReader(path) as reader:
        with pytest.raises(ValueError, match="contiguous"):
            reader.read_into({"single": torch.empty(5, 10)[:, ::2]})
        with pytest.raises(ValueError, match="allocator"):
            reader.read(["half"], None, lambda size: torch.empty(1, dtype=torch.uint8))
        with pytest.raises(KeyError):
            reader.read(["absent"])


def test_a_file_cut_short_says_so(path):
    content = pathlib.Path(path).read_bytes()
    for length in (0, 5, 60, len(content) - 1):
        with open(path, "wb") as file:
            file.write(content[:length])
        with pytest.raises(ModelFileError, match="weights.safetensors.*cut short"):
            read_header(path)


def test_a_file_that_shrinks_while_it_is_read_says_so(path):
    with WeightReader(path) as reader:
        with open(path, "r+b") as file:
            file.truncate(reader.header.entries["half"].start + 10)
        with pytest.raises(ModelFileError, match="ended inside"):
            reader.read(["half"])


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(("header", "data", "message"), [
    (b"not json", b"", "not JSON"),
    ([1], b"", "not an object"),
    ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4, "damaged"),
    ({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4, "not understood"),
    ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8, "starts at byte"),
    ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4, "damaged"),
    ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, b"\0" * 4, "damaged"),
    ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
     b"\0" * 4, "starts at byte"),
    ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 9, "after its last tensor"),
    ({"a": 3}, b"", "not understood"),
    ({"__metadata__": [1]}, b"", "no object"),
])
def test_headers_that_contradict_themselves_are_refused(tmp_path, header, data, message):
    path = str(tmp_path / "odd.safetensors")
    write(path, header, data)
    with pytest.raises(ModelFileError, match=message):
        read_header(path)
