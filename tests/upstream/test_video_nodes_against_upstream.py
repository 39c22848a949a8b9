"""Nodes for videos give upstream's results: what upstream saves is read the same, and what they save has upstream's pixels.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_video_nodes_against_upstream.py
"""

import os

import torch
from both_trees import against_upstream, run_here, run_there

pytestmark = against_upstream(600)


def test_what_is_saved_and_read_is_what_upstream_saves_and_reads(tmp_path):
    savers = {"ours": run_here, "theirs": run_there}
    for name, run in savers.items():
        (tmp_path / "saved" / name).mkdir(parents=True)
        run("video_node_runs.py", "save", tmp_path / "saved" / name)
    names = [sorted(os.listdir(tmp_path / "saved" / name)) for name in savers]
    assert names[0] == names[1] and len(names[0]) == 9
    read = {}
    for reader, run in savers.items():
        run("video_node_runs.py", "read", tmp_path / "saved", tmp_path / "read.pt")
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
