"""Nodes for sound give upstream's results: same samples, same settings.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_audio_nodes_against_upstream.py

Upstream's Python needs torchaudio, and both need PyAV.
"""

from both_trees import against_upstream, results_of_both

# Upstream counts the taps of changed rates and the filters of its equalizer in single precision; here they are made in double.
TOLERANCE, TOLERANCES = 1e-6, {"bands": 2e-4, "rates": 1e-4}

pytestmark = against_upstream(600)


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
    ours, theirs = results_of_both("audio_node_runs.py", tmp_path)
    assert ours.keys() == theirs.keys() and len(ours) >= 50
    found = {case: difference(case, ours[case], theirs[case]) for case in theirs}
    assert not {case: told for case, told in found.items() if told}
