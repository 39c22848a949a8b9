"""Nodes for pictures give upstream's results: same images, same settings.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_picture_nodes_against_upstream.py

Upstream's Python needs kornia, and both need PyAV and OpenEXR.
"""

from both_trees import against_upstream, results_of_both

# The share of values that may differ by more than TOLERANCE: edges are where rounding decides, labels have another font.
TOLERANCE = 1e-4
SHARES = {"canny": 1e-3, "drawn": 0.0, "colours histogram": 5e-3}

pytestmark = against_upstream(600)


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
    ours, theirs = results_of_both("picture_node_runs.py", tmp_path)
    assert ours.keys() == theirs.keys() and len(ours) >= 59
    found = {case: difference(case, ours[case], theirs[case]) for case in theirs}
    assert not {case: told for case, told in found.items() if told}
