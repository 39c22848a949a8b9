"""Thousands of damaged ControlNet files: each is loaded, or refused with our own error that names the file."""

import json
import math
import os
import random
import struct

import pytest
from control_files import HEADS, diffusers_names, published_names

import comfy.controlnet
from comfy.cli_args import args
from comfy.families.model_errors import ModelFileError

FILES = int(os.environ.get("FUZZ_FILES", "300"))


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(args, "cpu", True)


def odd_shape(chance, shape):
    """*shape* with a length changed, left out or added."""
    lengths = list(shape) or [1]
    place = chance.randrange(len(lengths))
    match chance.randrange(4):
        case 0:
            lengths[place] = chance.choice([0, 1, 3, lengths[place] * 2, lengths[place] + 1])
        case 1:
            del lengths[place]
        case 2:
            lengths.insert(place, chance.choice([0, 1, 2]))
        case 3:
            lengths.reverse()
    return lengths


def damaged(chance, described):
    """Names to shapes, with one to three of them gone, reshaped, renamed or doubled."""
    changed = dict(described)
    for _ in range(chance.randint(0, 3)):
        name = chance.choice(sorted(changed))
        shape = changed.pop(name)
        match chance.randrange(4):
            case 0:
                changed[name] = odd_shape(chance, shape)
            case 1:
                changed[name.replace(".0", f".{chance.choice([7, 10**9, -1])}", 1)] = shape
            case 2:
                changed |= {name: shape, name + chance.choice([".weight", "_scale", ".alpha"]): [1]}
    return changed


def written(chance, path, described):
    """Make *path* a file of these shapes; its data is a hole of zeros. Two in three have bytes of their header changed as well."""
    header, end = {"__metadata__": HEADS}, 0
    for name, shape in described.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    raw = bytearray(json.dumps(header).encode())
    if chance.random() < 0.67:  # most of these are refused before a network is built, which takes long
        for _ in range(chance.randint(1, 8)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)


@pytest.mark.parametrize("names", [published_names, diffusers_names])
def test_damaged_files_are_loaded_or_refused_by_name(tmp_path, names):
    chance, path, refused = random.Random(7), str(tmp_path / "odd.safetensors"), 0
    whole = [{name: tuple(tensor.shape) for name, tensor in names(vector).items()} for vector in (False, True)]
    for _ in range(FILES // 2):
        written(chance, path, damaged(chance, chance.choice(whole)))
        try:
            assert isinstance(comfy.controlnet.load_controlnet(path), comfy.controlnet.ControlNet)
        except ModelFileError as error:
            assert "odd.safetensors" in str(error)
            refused += 1
    assert FILES // 8 < refused < FILES // 2
