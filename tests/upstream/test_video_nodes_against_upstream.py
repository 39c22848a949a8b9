"""Nodes for videos give upstream's results: what upstream saves is read the same, and what they save has upstream's pixels.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_video_nodes_against_upstream.py
"""

import os
import pathlib
import subprocess
import sys

import pytest
import torch

CHECKOUT = os.environ.get("KEEPWARM_UPSTREAM_CHECKOUT")
PYTHON = os.environ.get("KEEPWARM_UPSTREAM_PYTHON")
PROJECT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = pathlib.Path(__file__).with_name("video_node_runs.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no ComfyUI to test"),
]


def run(python, tree, *arguments):
    path = os.pathsep.join([str(tree), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([python, SCRIPT, *arguments], cwd=tree, env=environment, check=True)


def test_what_is_saved_and_read_is_what_upstream_saves_and_reads(tmp_path):
    savers = {"ours": (sys.executable, PROJECT), "theirs": (PYTHON, CHECKOUT)}
    for name, (python, tree) in savers.items():
        (tmp_path / "saved" / name).mkdir(parents=True)
        run(python, tree, "save", tmp_path / "saved" / name)
    names = [sorted(os.listdir(tmp_path / "saved" / name)) for name in savers]
    assert names[0] == names[1] and len(names[0]) == 9
    read = {}
    for reader, (python, tree) in savers.items():
        run(python, tree, "read", tmp_path / "saved", tmp_path / "read.pt")
        everything = torch.load(tmp_path / "read.pt")
        for saver in savers:
            start = f"{saver}/"
            read[reader, saver] = {key.removeprefix(start): value for key, value in everything.items() if key.startswith(start)}
    expected = read["theirs", "theirs"]
    assert sum(isinstance(value, torch.Tensor) for value in expected.values()) >= 40
    for pair, found in read.items():
        assert found.keys() == expected.keys(), pair
        wrong = {key: told for key, value in expected.items() if (told := difference(found[key], value))}
        assert not wrong, (pair, wrong)


def difference(ours, theirs):
    """What is wrong with *ours*, or None."""
    if isinstance(theirs, str):
        return None if ours == theirs else f"{ours}, upstream's {theirs}"
    if ours.shape != theirs.shape:
        return f"{tuple(ours.shape)}, upstream's {tuple(theirs.shape)}"
    largest = (ours.double() - theirs.double()).abs().max().item() if theirs.numel() else 0.0
    return f"differs by up to {largest:.4f}" if largest else None
