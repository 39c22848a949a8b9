"""Results of node packs here against those of an upstream ComfyUI with the same packs; :mod:`pack_comparison` says how to run them."""

import os

import pack_models
import pytest
import torch
from pack_cases import CASES
from pack_cases.case_graphs import at, filled, keep, sample
from pack_cases.case_results import far, mean_levels
from pack_comparison import CHECKOUT, DOCUMENT, FOLDER, GROUPS, PYTHON, CaseResult, compared, servers, table, written_table

WANTED = os.environ.get("KEEPWARM_PACK_CASES", "")  # a part of the names of the cases to run: all without it
with_servers = pytest.mark.skipif(
    not (CHECKOUT and PYTHON and FOLDER),
    reason="KEEPWARM_NODE_PACKS, KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no packs and no ComfyUI to test",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of small models."""
    folder = tmp_path_factory.mktemp("models")
    pack_models.write_models(folder)
    return folder


def not_equal_in_the_table():
    """{pack: cases} that the document names as not equal."""
    rows = [line.split("|")[1:-1] for line in written_table(DOCUMENT.read_text(encoding="utf-8")).splitlines() if line.startswith("| ")]
    return {row[0].strip(): [case.strip() for case in row[3].split(";") if case.strip() != "-"] for row in rows[2:]}


@with_servers
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group[0] or 'none'} and {len(group) - 1} more")
def test_results_are_upstreams_but_for_those_in_the_table(group, models, tmp_path):
    here, upstream = servers(group, models, tmp_path)
    try:
        results = []
        for result in compared(group, here, upstream, WANTED):
            print(result.line(), flush=True)
            results.append(result)
    finally:
        here.stop()
        upstream.stop()
    named = not_equal_in_the_table()
    wrong = [one.line() for one in results if not one.upstream and one.equal == (one.case in named.get(one.pack or "no pack", []))]
    assert not wrong and (WANTED or any(not one.upstream for one in results))


def test_the_committed_table_counts_its_rows_and_holds_the_aim():
    text = written_table(DOCUMENT.read_text(encoding="utf-8"))
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")][2:]
    equal, run = sum(int(row[1]) for row in rows), sum(int(row[2]) for row in rows)
    assert text.startswith(f"{equal} of {run} cases that upstream runs give its numbers.")
    assert {row[0].strip() for row in rows} <= {pack or "no pack" for pack in CASES}
    assert all(int(row[1]) + len(not_equal_in_the_table()[row[0].strip()]) == int(row[2]) for row in rows)
    assert equal >= 0.95 * run


def test_a_case_that_upstream_cannot_run_does_not_count():
    results = [CaseResult("one", "a", equal=True), CaseResult("one", "b", "refused"), CaseResult("one", "c", apart="KSampler: …")]
    assert table(results).splitlines()[0] == "1 of 2 cases that upstream runs give its numbers."
    assert table(results).splitlines()[-1] == "| one | 1 | 2 | c |"


def test_widgets_that_a_case_leaves_out_take_their_defaults():
    inputs = {"a": ["INT", {"default": 3}], "b": [["x", "y"]], "c": ["COMBO", {"options": ["z"]}], "d": ["MODEL"]}
    described = {"Some": {"input": {"required": inputs}}}
    assert filled({"one": {"class_type": "Some", "inputs": {"b": "y"}}}, described)["one"]["inputs"] == {"a": 3, "b": "y", "c": "z"}


def test_nodes_that_lead_to_nothing_kept_are_left_out():
    graph = {"a": {"class_type": "A", "inputs": {}}, "b": {"class_type": "B", "inputs": {}}, "sampled": sample(at("a"))}
    assert set(keep(graph, at("sampled"))) == {"a", "sampled", "keep0"}


def test_pictures_are_equal_within_two_levels_in_the_mean():
    upstream = torch.arange(192).remainder(2).reshape(1, 8, 8, 3).float()
    for levels, is_far in ((1.9, False), (2.1, True)):  # both less than 0.04 of its standard deviation
        here = upstream + levels / 255
        assert far([here], [upstream]) is is_far
        assert mean_levels([here], [upstream]) == [pytest.approx(levels, rel=1e-3)]
    assert mean_levels("KSampler: …", [upstream]) == mean_levels([upstream[..., 0]], [upstream[..., 0]]) == []
