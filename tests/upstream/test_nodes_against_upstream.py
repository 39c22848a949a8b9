"""Nodes that change numbers give upstream's: the same small UNet, weights, conditioning and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_nodes_against_upstream.py
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
SCRIPT = pathlib.Path(__file__).with_name("node_runs.py")
BOUND = 1e-4
NO_EFFECT = {"none", "RenormCFG", "ModelAttentionBackend"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no ComfyUI to test"),
]


def results(python, tree, folder, name):
    path = os.pathsep.join([str(tree), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([python, SCRIPT, folder / "weights.safetensors", folder / name], cwd=tree, env=environment, check=True)
    return torch.load(folder / name)


def distance(one, other):
    return ((one - other).norm() / other.norm()).item() if one.shape == other.shape else f"{one.shape} and {other.shape}"


def test_every_node_gives_upstreams_numbers(tmp_path):
    theirs, ours = results(PYTHON, CHECKOUT, tmp_path, "theirs.pt"), results(sys.executable, PROJECT, tmp_path, "ours.pt")
    differences = {}
    for case, tensor in theirs.items():
        if isinstance(tensor, str) or isinstance(ours[case], str):
            differences[case] = f"ours: {ours[case]}; upstream's: {tensor}"
        else:
            differences[case] = distance(ours[case], tensor)
        print(case, differences[case])
    assert len(differences) > 50 and ours.keys() == theirs.keys()
    assert not {case: value for case, value in differences.items() if isinstance(value, str) or not value <= BOUND}
    plain = ours["none"]
    idle = {case for case, tensor in ours.items() if tensor.shape == plain.shape and distance(tensor, plain) < 100 * BOUND}
    assert idle == NO_EFFECT, "a node without effect shows nothing"
