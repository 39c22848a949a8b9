"""Nodes for pictures give upstream's results: same images, same settings.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_picture_nodes_against_upstream.py

Upstream's Python needs kornia, and both need PyAV and OpenEXR.
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
SCRIPT = pathlib.Path(__file__).with_name("picture_node_runs.py")
# The share of values that may differ by more than TOLERANCE: edges are where rounding decides, labels have another font.
TOLERANCE = 1e-4
SHARES = {"canny": 1e-3, "drawn": 0.0, "colours histogram": 5e-3}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no ComfyUI to test"),
]


def results(python, tree, file):
    path = os.pathsep.join([str(tree), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([python, SCRIPT, file], cwd=tree, env=environment, check=True)
    return torch.load(file)


def difference(case, ours, theirs):
    """What is wrong with *ours*, or None."""
    if isinstance(theirs, str) or isinstance(ours, str):
        return None if ours == theirs and "Error: " not in ours else f"ours: {ours}; upstream's: {theirs}"
    if ours.shape != theirs.shape:
        return f"ours {tuple(ours.shape)}, upstream's {tuple(theirs.shape)}"
    share = ((ours.double() - theirs.double()).abs() > TOLERANCE * max(1.0, theirs.abs().max().item())).double().mean().item()
    allowed = next((share for start, share in SHARES.items() if case.startswith(start)), 0.0)
    print(case, share)
    return None if share <= allowed else f"{share:.2%} of the values differ, by up to {(ours.double() - theirs.double()).abs().max():.4f}"


def test_every_node_gives_upstreams_result(tmp_path):
    ours, theirs = results(sys.executable, PROJECT, tmp_path / "ours.pt"), results(PYTHON, CHECKOUT, tmp_path / "theirs.pt")
    assert ours.keys() == theirs.keys() and len(ours) >= 59
    found = {case: difference(case, ours[case], theirs[case]) for case in theirs}
    assert not {case: told for case, told in found.items() if told}
