"""Canonical ids: the same for the same workflow, different for different nodes, and back again."""

import functools
import json
import random
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workflow_shapes import large_shapes, node, rewritten, ring_edges, text_to_image, without_notes

from serverless.workflow_normalization import (
    classes_that_search_the_page_workflow,
    classes_told_their_id,
    is_api_workflow,
    is_page_workflow,
    normalize_workflow_for_caching,
)

QUICK = ("random", "equal pairs", "a ring of links")
shapes_of_ten_thousand = functools.cache(lambda: large_shapes(10_000, random.Random(1)))


def canonical(workflow, **more):
    return without_notes(normalize_workflow_for_caching(workflow, **more).workflow)


@pytest.mark.parametrize("seed", range(20))
def test_ids_orders_and_notes_do_not_matter(seed):
    assert canonical(rewritten(text_to_image(), random.Random(seed))) == canonical(text_to_image())


def test_ids_are_the_same_in_every_process_and_under_every_hash_seed():
    code = (
        "import json, sys; from serverless.workflow_normalization import normalize_workflow_for_caching as n;"
        "print(json.dumps(n(json.loads(sys.argv[1])).workflow))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(text_to_image())],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert texts == {json.dumps(normalize_workflow_for_caching(text_to_image()).workflow) + "\n"}


def test_normalization_can_be_undone():
    workflow = rewritten(text_to_image(), random.Random(3))
    names = normalize_workflow_for_caching(workflow)
    assert names.restore() == workflow
    assert {names.original_id(new): new for new in names.workflow} == names.canonical_ids()


def test_ids_made_while_running_and_unknown_ids_are_mapped_back_too():
    names = normalize_workflow_for_caching({"sampler": node("KSampler")})
    (new,) = names.workflow
    assert names.original_id(f"{new}.0.0.inner") == "sampler.0.0.inner"
    assert names.original_id(f"{new}:4") == "sampler:4"
    assert names.original_id("999.1") == "999.1"
    assert names.original_text(f"Node '#{new}' of 3 failed, x{new}") == f"Node '#sampler' of 3 failed, x{new}"


def test_other_values_change_no_id():
    first, second = (normalize_workflow_for_caching(text_to_image(seed)) for seed in (1, 2))
    assert list(first.workflow) == list(second.workflow)


def test_a_node_added_at_the_end_changes_no_id():
    longer = {**text_to_image(), "10": node("ImageInvert", image=["8", 0]), "11": node("SaveImage", images=["10", 0], filename_prefix="y")}
    before, after = (normalize_workflow_for_caching(workflow).canonical_ids() for workflow in (text_to_image(), longer))
    sampling = [node_id for node_id in before if node_id not in ("6", "7")]
    assert {node_id: after[node_id] for node_id in sampling} == {node_id: before[node_id] for node_id in sampling}


@pytest.mark.parametrize(
    "change",
    [
        lambda workflow: workflow["3"]["inputs"].update(positive=["7", 0], negative=["6", 0], model=["4", 1]),
        lambda workflow: workflow["8"]["inputs"].update(vae=["4", 1]),
        lambda workflow: workflow["9"].update(class_type="PreviewImage"),
        lambda workflow: workflow["3"]["inputs"].update(denoise=1.0),
    ],
)
def test_another_graph_is_another_workflow(change):
    other = text_to_image()
    change(other)
    assert set(normalize_workflow_for_caching(other).workflow) != set(normalize_workflow_for_caching(text_to_image()).workflow)


def test_equal_twins_stay_two_nodes_with_their_own_links():
    twins = {
        "a1": node("A"),
        "a2": node("A"),
        "b1": node("B", x=["a1", 0]),
        "b2": node("B", x=["a2", 0]),
        "join": node("Join", left=["b2", 0], right=["b1", 0]),
    }
    result = normalize_workflow_for_caching(twins)
    assert len(result.workflow) == 5
    assert result.restore() == twins
    for seed in range(10):
        assert canonical(rewritten(twins, random.Random(seed))) == without_notes(result.workflow)


def test_twins_without_anything_that_tells_them_apart():
    twins = {f"{kind}{i}": node(kind, **({"x": [f"A{i}", 0]} if kind == "B" else {})) for kind in "AB" for i in range(4)}
    result = normalize_workflow_for_caching(twins)
    assert result.restore() == twins and len(result.workflow) == 8
    assert all(canonical(rewritten(twins, random.Random(seed))) == without_notes(result.workflow) for seed in range(10))


def test_nodes_that_refinement_alone_cannot_tell_apart():
    """A ring of six and two rings of three: every node sees the same, however far it looks."""
    mixed = ring_edges(6, 3, 3)
    reference = canonical(mixed)
    assert all(canonical(rewritten(mixed, random.Random(seed))) == reference for seed in range(10))


def test_lists_that_are_values_stay_as_they_are():
    values = {
        "size": [1, 2],
        "pair": ["other", 1],
        "named": ["4", "x"],
        "long": ["4", 0, 1],
        "nested": [["4", 0]],
        "deep": {"in": ["4", 0]},
        "wrapped": {"__value__": ["4", 0]},
        "text": "4",
    }
    workflow = {"4": node("Loader"), "9": node("Strange", model=["4", 0], **values)}
    result = normalize_workflow_for_caching(workflow)
    strange = result.workflow[result.canonical_ids()["9"]]["inputs"]
    assert {name: strange[name] for name in values} == values
    assert strange["model"] == [result.canonical_ids()["4"], 0]


def test_the_order_of_a_nodes_inputs_stays():
    workflow = {"1": node("Concat", text_2="b", text_10="c", text_1="a")}
    (found,) = normalize_workflow_for_caching(workflow).workflow.values()
    assert list(found["inputs"]) == ["text_2", "text_10", "text_1"]


def test_unknown_and_malformed_nodes_survive():
    odd = {
        "1": node("NobodyKnowsThis", x=float("nan")),
        "2": {"inputs": {}},
        "3": "text",
        "4": None,
        "5": {"class_type": "A"},
        "6": {"class_type": ["B"], "inputs": [1]},
        "": node("Empty", y=["", 0]),
    }
    result = normalize_workflow_for_caching(odd)
    assert len(result.workflow) == len(odd)
    restored = result.restore()
    assert {key: restored[key] for key in odd if key != "1"} == {key: odd[key] for key in odd if key != "1"}


def test_no_id_makes_a_broken_reference_valid():
    (given_id,) = normalize_workflow_for_caching({"a": node("Loader")}).workflow
    workflow = {"a": node("Loader"), "b": node("Use", x=[given_id, 0])}
    result = normalize_workflow_for_caching(workflow)
    assert given_id not in result.workflow
    assert result.workflow[result.canonical_ids()["b"]]["inputs"]["x"] == [given_id, 0]


def test_links_in_a_circle_survive():
    circle = {"1": node("A", x=["2", 0]), "2": node("A", x=["1", 0]), "3": node("B", x=["1", 0])}
    result = normalize_workflow_for_caching(circle)
    assert result.restore() == circle
    assert all(canonical(rewritten(circle, random.Random(seed))) == without_notes(result.workflow) for seed in range(10))


def test_twins_that_are_told_their_id_do_not_swap_ids_when_a_value_changes():
    """Each has its id in its cache key: the one whose value stays must keep its id."""

    def ids(first, second):
        workflow = {"a": node("Told", value=first), "b": node("Told", value=second)}
        return normalize_workflow_for_caching(workflow, told_classes={"Told"}).canonical_ids()

    changed = [ids(value, "stays")["b"] for value in range(50)]
    assert len(set(changed)) == 1


def test_a_node_told_its_id_keeps_it_when_another_seed_leads_to_it():
    def told_id(seed):
        workflow = {**text_to_image(seed), "10": node("Told", image=["8", 0])}
        return normalize_workflow_for_caching(workflow, told_classes={"Told"}).canonical_ids()["10"]

    assert told_id(1) == told_id(2)


def test_kept_ids_stay_and_no_other_node_gets_them():
    wanted = normalize_workflow_for_caching(text_to_image()).canonical_ids()["5"]
    workflow = {**text_to_image(), wanted: node("ShowText", text=["6", 0])}
    result = normalize_workflow_for_caching(workflow, keep_ids=[wanted, "not there"])
    assert result.canonical_ids()[wanted] == wanted
    assert len(result.workflow) == len(workflow) and result.restore() == workflow


def test_classes_that_get_their_id_are_found():
    info = {
        "Told": {"input": {"required": {}, "hidden": {"unique_id": "UNIQUE_ID"}}},
        "V3": {"input": {"hidden": {"unique_id": ["UNIQUE_ID"]}}},
        "Page": {"input": {"hidden": {"me": "UNIQUE_ID", "extra_pnginfo": "EXTRA_PNGINFO"}}},
        "Plain": {"input": {"required": {}}},
        "Odd": {"input": {"hidden": [1]}},
        "Odder": None,
    }
    assert classes_told_their_id(info) == {"Told", "V3", "Page"}
    assert classes_that_search_the_page_workflow(info) == {"Page"}


def test_api_and_page_workflows_are_distinguished():
    assert is_api_workflow(text_to_image()) and not is_page_workflow(text_to_image())
    assert is_page_workflow({"nodes": [], "links": []}) and not is_api_workflow({"nodes": [], "links": []})
    assert not is_api_workflow({}) and not is_api_workflow([]) and not is_page_workflow(None)


@st.composite
def workflows(draw):
    count = draw(st.integers(0, 9))
    built = {}
    for position in range(count):
        sources = draw(st.lists(st.integers(0, max(position - 1, 0)), max_size=2 if position else 0))
        links = {f"in{k}": [str(source), draw(st.integers(0, 1))] for k, source in enumerate(sources)}
        built[str(position)] = node(draw(st.sampled_from("AB")), **links, **draw(st.sampled_from([{}, {"value": 1}, {"value": 2}])))
    return built


@given(workflows(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_any_small_workflow_has_one_form(workflow, rng):
    result = normalize_workflow_for_caching(workflow)
    assert len(result.workflow) == len(workflow)
    assert result.restore() == workflow
    assert canonical(rewritten(workflow, rng)) == without_notes(result.workflow)
    assert canonical(result.workflow) == without_notes(result.workflow)
    seen = set()
    for node_id, content in result.workflow.items():
        assert all(value[0] in seen for value in content["inputs"].values() if isinstance(value, list)), "sources come first"
        seen.add(node_id)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in large_shapes(20, random.Random(0))]
)
def test_ten_thousand_nodes_take_less_than_a_second(name):
    workflow = shapes_of_ten_thousand()[name]
    costs_s = []
    # Time of this process, and the best of three, so that others on the machine do not count.
    while len(costs_s) < 3 and min(costs_s, default=1.0) >= 1.0:
        began_s = time.process_time()
        result = normalize_workflow_for_caching(workflow)
        costs_s.append(time.process_time() - began_s)
    assert min(costs_s) < 1.0
    assert len(result.workflow) == len(workflow)
    if name != "a closed zigzag":
        assert canonical(rewritten(workflow, random.Random(2))) == without_notes(result.workflow)
