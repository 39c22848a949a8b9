"""Nodes that change numbers give upstream's: the same small UNet, weights, conditioning and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_nodes_against_upstream.py
"""

import torch
from both_trees import against_upstream, run_here, run_there

BOUND = 1e-4
NO_EFFECT = {"none", "RenormCFG", "ModelAttentionBackend"}

pytestmark = against_upstream(1200)


def distance(one, other):
    return ((one - other).norm() / other.norm()).item() if one.shape == other.shape else f"{one.shape} and {other.shape}"


def test_every_node_gives_upstreams_numbers(tmp_path):
    run_there("node_runs.py", tmp_path / "weights.safetensors", tmp_path / "theirs.pt")
    run_here("node_runs.py", tmp_path / "weights.safetensors", tmp_path / "ours.pt")
    ours, theirs = torch.load(tmp_path / "ours.pt"), torch.load(tmp_path / "theirs.pt")
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
