"""Heads of safetensors files, and refusing those that are not what they claim."""

import json
import pathlib

import pytest
import safetensors.torch
import torch

import comfy.utils
from comfy.families.model_errors import ModelFileError
from comfy.weight_files.header import read_header
from comfy.weight_files.reader import WeightReader


def test_a_header_says_what_the_file_holds(tmp_path):
    path = str(tmp_path / "weights.safetensors")
    tensors = {
        "half": torch.randn(300, 7).half(),
        "whole": torch.arange(12).view(3, 4),
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0),
    }
    safetensors.torch.save_file(tensors, path, metadata={"made": "here"})
    header = read_header(path)
    assert header.metadata == {"made": "here"} and header.path == path
    content = pathlib.Path(path).read_bytes()
    for key, tensor in tensors.items():
        entry = header.entries[key]
        assert (entry.dtype, entry.shape, entry.elements) == (tensor.dtype, tuple(tensor.shape), tensor.numel())
        assert content[entry.start : entry.stop] == tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def test_a_file_cut_short_says_so(tmp_path):
    path = str(tmp_path / "weights.safetensors")
    safetensors.torch.save_file({"half": torch.randn(300, 7).half()}, path)
    content = pathlib.Path(path).read_bytes()
    for length in (0, 5, 60, len(content) - 1):
        with open(path, "wb") as file:
            file.write(content[:length])
        with pytest.raises(ModelFileError, match="weights.safetensors.*cut short"):
            read_header(path)


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"not json", b"", "not JSON"),
        (b"[" * 200_000, b"", "odd.safetensors.*not JSON"),
        ([1], b"", "not an object"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4, "damaged"),
        ({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4, "not understood"),
        ({"a": {"dtype": [1], "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4, "not understood"),
        ({"a": {"dtype": "F32", "shape": [0, 1 << 70], "data_offsets": [0, 0]}}, b"", "damaged"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4, "damaged"),
        ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, b"\0" * 4, "damaged"),
        ({str(n): {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in range(100)}, b"\0" * 4, "share bytes"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 4, "cut short"),
        ({"a": 3}, b"", "not understood"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(tmp_path, header, data, message):
    path = str(tmp_path / "odd.safetensors")
    write(path, header, data)
    with pytest.raises(ModelFileError, match=message):
        read_header(path)


DATA = torch.arange(16, dtype=torch.float32).numpy().tobytes()


def entry(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("header", "data", "expected", "said"),
    [
        ({"a": entry([2, 4], 0, 32)}, DATA[:32] + b"!", {"a": range(8)}, "1 of its bytes belong to no tensor"),
        ({"a": entry([2], 0, 8), "b": entry([2], 32, 40)}, DATA[:40], {"a": range(2), "b": range(8, 10)}, "24 of its bytes"),
        ({"b": entry([2], 32, 40), "a": entry([2], 8, 16)}, DATA[:40], {"a": range(2, 4), "b": range(8, 10)}, "24 of its bytes"),
        ({"a": entry([4], 0, 16), "tied": entry([2], 8, 16)}, DATA[:16], {"a": range(4), "tied": range(2, 4)}, ""),
        ({"__metadata__": ["a list"], "a": entry([2], 0, 8)}, DATA[:8], {"a": range(2)}, "__metadata__ is a list"),
        ({"__metadata__": "text", "a": entry([2], 0, 8)}, DATA[:8], {"a": range(2)}, "__metadata__ is a str"),
        ({"__metadata__": None, "a": entry([2], 0, 8)}, DATA[:8], {"a": range(2)}, ""),
        ({"a": entry([0, 4], 0, 0), "b": entry([2], 0, 8)}, DATA[:8], {"a": (), "b": range(2)}, ""),
        ({"odd": entry([1], 0, 1, "U8"), "a": entry([1], 1, 5)}, b"\7" + DATA[:4], {"odd": [7], "a": [0]}, ""),
        ({}, b"", {}, ""),
    ],
    ids=["byte-behind", "gap", "unsorted", "shared", "metadata-list", "metadata-text", "metadata-null", "empty", "unaligned", "nothing"],
)
def test_whole_files_with_oddities_are_read_by_every_reader(tmp_path, caplog, header, data, expected, said):
    path = str(tmp_path / "odd.safetensors")
    write(path, json.dumps(header).encode() + b" " * 11, data)
    with caplog.at_level("INFO"), WeightReader(path) as reader:
        by_position = reader.read(reader.header.entries)
    assert said in caplog.text
    plain, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
    assert metadata is None and plain.path == path
    for tensors in (by_position, plain):
        assert {key: tensor.flatten().tolist() for key, tensor in tensors.items()} == {key: list(value) for key, value in expected.items()}


def test_metadata_values_other_than_texts_are_kept_as_json(tmp_path):
    path = str(tmp_path / "odd.safetensors")
    write(path, {"__metadata__": {"a": "b", "rank": 4, "nested": {"x": [1]}}})
    assert read_header(path).metadata == {"a": "b", "rank": "4", "nested": '{"x": [1]}'}
