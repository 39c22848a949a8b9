"""Thousands of damaged weight files: each is read, or refused with our own error that names the file."""

import io
import json
import logging
import os
import random
import struct

import pytest
import torch

import comfy.lora
from comfy.families.model_errors import ModelFileError
from comfy.loading.embeddings import load_embed
from comfy.utils import load_torch_file
from comfy.weight_files.header import read_header

FILES = int(os.environ.get("FUZZ_FILES", "300"))
JUNK = (-1, 0, 7, 2**31, 2**64, 1.5, None, True, "", "F32", "I9", [], [3], {}, {"a": 1}, "\ud800", [[1]])


def safetensors_bytes(header, data):
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def small_header():
    return {
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]},
        "a.bias": {"dtype": "F16", "shape": [4], "data_offsets": [32, 40]},
    }


def mutated_header(chance):
    """A whole file whose header is wrong in one to three fields."""
    header = small_header()
    for _ in range(chance.randint(1, 3)):
        entry = header.get(chance.choice(["a.weight", "a.bias"]))
        match chance.randrange(4):
            case 0:
                header[chance.choice(["__metadata__", "a.weight", "b"])] = chance.choice(JUNK)
            case 1 if isinstance(entry, dict):
                entry[chance.choice(["dtype", "shape", "data_offsets", "other"])] = chance.choice(JUNK)
            case 2 if isinstance(entry, dict):
                field = entry.get(chance.choice(["shape", "data_offsets"]))
                if isinstance(field, list) and field:
                    field[chance.randrange(len(field))] = chance.choice(JUNK)
            case _:
                header.pop(chance.choice(list(header)), None) if header else None
    return safetensors_bytes(header, bytes(40))


def mutated_bytes(chance, whole):
    """*whole* cut, lengthened or with some bytes changed."""
    content = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        if content:
            content[chance.randrange(len(content))] = chance.randrange(256)
    if chance.random() < 0.3:
        del content[chance.randrange(len(content) + 1) :]
    return bytes(content) + bytes(chance.choice([0, 0, 0, 1, 9]))


def pickled(content):
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def test_headers_are_read_or_refused_by_name(tmp_path):
    chance, path, refused = random.Random(1), str(tmp_path / "odd.safetensors"), 0
    whole = safetensors_bytes(small_header(), bytes(40))
    for number in range(FILES):
        (tmp_path / "odd.safetensors").write_bytes(mutated_header(chance) if number % 2 else mutated_bytes(chance, whole))
        try:
            header = read_header(path)
            assert all(0 <= entry.start <= entry.stop <= (tmp_path / "odd.safetensors").stat().st_size for entry in header.entries.values())
        except ModelFileError as error:
            assert "odd.safetensors" in str(error)
            refused += 1
    assert FILES // 4 < refused < FILES


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_embeddings_are_read_or_left_out_by_name(tmp_path, caplog, suffix):
    chance, path, left_out = random.Random(2), tmp_path / f"odd.{suffix}", 0
    header = {"emb_params": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}}
    whole = safetensors_bytes(header, bytes(32)) if suffix == "safetensors" else pickled({"string_to_param": {"*": torch.ones(2, 4)}})
    caplog.set_level(logging.WARNING)
    for _ in range(FILES):
        path.write_bytes(mutated_bytes(chance, whole))
        caplog.clear()
        vectors = load_embed("odd", str(tmp_path), 4)
        assert vectors is None or vectors.is_floating_point()
        if vectors is None:
            assert f"odd.{suffix}" in caplog.text
            left_out += 1
    assert left_out > FILES // 10


def test_pickled_files_are_read_or_refused_by_name(tmp_path):
    chance, path, refused = random.Random(3), tmp_path / "odd.ckpt", 0
    whole = pickled({"state_dict": {"a.weight": torch.ones(4, 2), "a.bias": torch.ones(4)}})
    for _ in range(FILES):
        path.write_bytes(mutated_bytes(chance, whole))
        try:
            assert isinstance(load_torch_file(str(path), safe_load=True), dict)
        except ModelFileError as error:
            assert "odd.ckpt" in str(error)
            refused += 1
    assert refused > FILES // 10


def odd_tensor(chance):
    shape = [chance.choice([0, 1, 2, 4, 5]) for _ in range(chance.randrange(5))]
    return torch.ones(shape, dtype=chance.choice([torch.float32, torch.float16, torch.int8, torch.bool, torch.complex64]))


@pytest.mark.filterwarnings("error")
def test_changes_of_damaged_loras_fit_or_are_named(caplog):
    chance, named = random.Random(4), 0
    caplog.set_level(logging.WARNING)
    kinds = {
        "lora_up.weight": (4, 2), "lora_down.weight": (2, 6), "alpha": (), "dora_scale": (4, 1), "lora_mid.weight": (2, 2), "diff": (4, 6),
        "hada_w1_a": (4, 2), "hada_w1_b": (2, 6), "hada_w2_a": (4, 2), "hada_w2_b": (2, 6), "lokr_w1": (2, 2), "lokr_w2": (2, 3),
        "a1.weight": (2, 6), "a2.weight": (2, 2), "b1.weight": (4, 2), "b2.weight": (2, 2), "oft_blocks": (2, 2, 2), "set_weight": (4, 6),
    }  # fmt: skip
    for _ in range(FILES):
        lora = {f"x.{kind}": torch.ones(shape) for kind, shape in kinds.items() if chance.random() < 0.4}
        for key in chance.sample(sorted(lora), min(len(lora), chance.randint(0, 3))):
            lora[key] = odd_tensor(chance)
        caplog.clear()
        patches = comfy.lora.load_lora(lora, {"x": "weight"})
        misfits = {target: comfy.lora.misfit(patch, (4, 6)) for target, patch in patches.items()}
        assert all(isinstance(reason, str) for reason in misfits.values())
        # What fits can be applied; whatever of the file is used by nothing is named.
        for target, patch in patches.items():
            if not misfits[target]:
                assert comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], torch.ones(4, 6), target).shape == (4, 6)
        named += bool(caplog.text) or any(misfits.values())
    assert named > FILES // 4
