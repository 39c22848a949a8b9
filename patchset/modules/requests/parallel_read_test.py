"""Files read by several threads give what the usual reader gives."""

import json
import os

import pytest
import safetensors.torch
import torch

from comfy.cli_args import args

if not torch.cuda.is_available():
    args.cpu = True

import comfy.memory_management
from comfy import parallel_read
from comfy.parallel_read import TYPES, read_in_parallel, reads_in_parallel


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(1)
    tensors = {f"t{number}": torch.randn(300, 301).to(kind) for number, kind in enumerate(TYPES.values())}
    tensors |= {"empty": torch.zeros(0, 3), "one": torch.tensor(2.5), "large": torch.randn(1500, 1500)}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", metadata={"about": "it"})
    return str(tmp_path / "a.safetensors")


@pytest.mark.parametrize("threads", [1, 4])
def test_every_tensor_is_equal_to_the_bit(path, threads, monkeypatch):
    monkeypatch.setattr(parallel_read, "PIECE_BYTES", 1 << 16)
    found, metadata = read_in_parallel(path, threads)
    usual = safetensors.torch.load_file(path)
    assert metadata == {"about": "it"} and found.keys() == usual.keys()
    for name, tensor in usual.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert found[name].reshape(-1).view(torch.uint8).equal(tensor.reshape(-1).view(torch.uint8))


def test_tensors_share_memory_of_their_own(path):
    found, _ = read_in_parallel(path, 2)
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values() if tensor.numel()}) == 1
    before = found["one"].clone()
    found["large"].fill_(1)
    assert found["one"].equal(before) and not safetensors.torch.load_file(path)["large"].equal(found["large"])


BROKEN = [b"", b"text", (10).to_bytes(8, "little") + b"not json!!", (1 << 40).to_bytes(8, "little") + b"{}"]


def file_of(header, content):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


BROKEN += [
    file_of({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
    file_of({"t": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"12345678"),
    file_of({"t": {"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}}, b"12345678"),
    file_of({"t": {"dtype": "F16", "shape": [1], "data_offsets": [1, 3]}}, b"123"),
    file_of({}, b""),
]


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_what_it_cannot_read_is_left_to_the_usual_reader(tmp_path, content, monkeypatch):
    monkeypatch.setattr(args, "parallel_read", 2, raising=False)
    (tmp_path / "a.safetensors").write_bytes(content)
    assert read_in_parallel(tmp_path / "a.safetensors", 2) is None
    load = reads_in_parallel(lambda ckpt, safe_load, device, return_metadata: "as ever")
    assert load(str(tmp_path / "a.safetensors")) == "as ever"


def test_a_file_that_becomes_shorter_meanwhile_is_an_error(path, monkeypatch):
    monkeypatch.setattr(parallel_read.os, "preadv", lambda *arguments: 0)
    with pytest.raises(EOFError, match="became shorter"):
        read_in_parallel(path, 2)


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs preadv")
def test_which_files_it_reads(path, monkeypatch):
    monkeypatch.setattr(args, "parallel_read", 0, raising=False)
    assert reads_in_parallel(len) is len
    monkeypatch.setattr(args, "parallel_read", 2)
    load = reads_in_parallel(lambda ckpt, safe_load, device, return_metadata: "as ever")
    assert set(load(path)) == set(safetensors.torch.load_file(path)) and load(path, return_metadata=True)[1] == {"about": "it"}
    assert load(path[:-12] + ".ckpt") == load(path, device="meta") == "as ever"
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
    assert load(path) == "as ever"
