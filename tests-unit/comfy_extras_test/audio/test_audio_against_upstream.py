"""Nodes for sound give upstream's results: same samples, same settings.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest …/test_audio_against_upstream.py

Upstream's Python needs torchaudio, and both need PyAV.
"""

import os
import pathlib
import subprocess
import sys

import pytest
import torch

CHECKOUT = os.environ.get("KEEPWARM_UPSTREAM_CHECKOUT")
PYTHON = os.environ.get("KEEPWARM_UPSTREAM_PYTHON")
PROJECT = pathlib.Path(__file__).resolve().parents[3]
SCRIPT = pathlib.Path(__file__).with_name("audio_node_runs.py")
# Upstream counts the taps of changed rates and the filters of its equalizer in single precision; here they are made in double.
TOLERANCE, TOLERANCES = 1e-6, {"bands": 2e-4, "rates": 1e-4}

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
        return None if ours == theirs else f"ours: {ours}; upstream's: {theirs}"
    if ours.shape != theirs.shape:
        return f"ours {tuple(ours.shape)}, upstream's {tuple(theirs.shape)}"
    largest = (ours.double() - theirs.double()).abs().max().item()
    print(case, largest)
    return None if largest <= TOLERANCES.get(case.partition(" ")[0], TOLERANCE) else f"samples differ by up to {largest:.2e}"


def test_every_node_for_sound_gives_upstreams_result(tmp_path):
    ours, theirs = results(sys.executable, PROJECT, tmp_path / "ours.pt"), results(PYTHON, CHECKOUT, tmp_path / "theirs.pt")
    assert ours.keys() == theirs.keys() and len(ours) >= 50
    found = {case: difference(case, ours[case], theirs[case]) for case in theirs}
    assert not {case: told for case, told in found.items() if told}
