"""Heads of safetensors files, and refusing those that are not what they claim."""

import json
import pathlib

import pytest
import safetensors.torch
import torch

from comfy.families.model_errors import ModelFileError
from comfy.weight_files.header import read_header


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
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8, "starts at byte"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4, "damaged"),
        ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, b"\0" * 4, "damaged"),
        (
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
            b"\0" * 4,
            "starts at byte",
        ),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 9, "after its last tensor"),
        ({"a": 3}, b"", "not understood"),
        ({"__metadata__": [1]}, b"", "not an object"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(tmp_path, header, data, message):
    path = str(tmp_path / "odd.safetensors")
    write(path, header, data)
    with pytest.raises(ModelFileError, match=message):
        read_header(path)
