"""Damaged workflows: a prompt or this package's own error, never anything else, and never for long."""

import json
import random

import pytest
from mutation import damaged
from page_samples import SAMPLES

from app.workflow_conversion import WorkflowFormatError, to_prompt
from app.workflow_pages.conversion import page_to_prompt

SEED = 20261129
COUNT = 2000


@pytest.fixture(scope="module")
def workflows():
    return [json.loads(path.read_text(encoding="utf-8"))["workflow"] for path in sorted(SAMPLES.glob("[0-9]*.json"))]


def test_two_thousand_damaged_workflows_end_in_a_prompt_or_in_our_own_error(workflows, classes):
    chance = random.Random(SEED)
    refused = 0
    for number in range(COUNT):
        document = damaged(workflows[number % len(workflows)], chance, chance.randint(1, 6))
        try:
            prompt = page_to_prompt(document, classes.get) if isinstance(document, dict) else {}
            json.dumps(prompt, allow_nan=False)
        except WorkflowFormatError as error:
            refused += 1
            assert len(str(error)) > 10
        except Exception as error:
            shown = json.dumps(document)[:2000]
            raise AssertionError(f"seed {SEED}, document {number}: {type(error).__name__}: {error}\n{shown}") from error
    assert 0.02 * COUNT < refused < 0.9 * COUNT


def test_odd_node_classes_of_packs_do_not_break_the_conversion(workflows, classes):
    chance = random.Random(SEED + 1)
    for number in range(600):
        document = workflows[number % len(workflows)]
        used = {node["type"] for node in document["nodes"]} & classes.keys()
        odd = {name: info for name in used if isinstance(info := damaged(classes[name], chance, 2), dict)}
        try:
            page_to_prompt(document, (classes | odd).get)
        except WorkflowFormatError:
            pass
        except Exception as error:
            raise AssertionError(f"seed {SEED + 1}, document {number}: {type(error).__name__}: {error}") from error


def nested_subgraphs(levels, width):
    """Subgraphs that hold *width* instances of the next."""
    kinds = [f"{level:08d}-0000-4000-8000-000000000000" for level in range(levels)]
    inner = [
        {
            "id": kind,
            "name": kind,
            "inputs": [],
            "outputs": [],
            "links": [],
            "nodes": [{"id": 1000 * level + number, "type": (*kinds[1:], "Picture")[level]} for number in range(width)],
        }
        for level, kind in enumerate(kinds)
    ]
    return {"nodes": [{"id": 1, "type": kinds[0]}], "links": [], "definitions": {"subgraphs": inner}}


def test_subgraphs_that_multiply_are_refused_before_they_fill_the_memory(classes):
    assert len(to_prompt(nested_subgraphs(3, 4), classes.get)) == 64
    with pytest.raises(WorkflowFormatError, match="subgraph"):
        to_prompt(nested_subgraphs(12, 9), classes.get)


def test_a_subgraph_within_itself_is_named(classes):
    document = nested_subgraphs(2, 1)
    document["definitions"]["subgraphs"][1]["nodes"][0]["type"] = document["definitions"]["subgraphs"][0]["id"]
    with pytest.raises(WorkflowFormatError, match="contains itself"):
        to_prompt(document, classes.get)


def test_values_nested_a_hundred_thousand_deep_are_refused(classes):
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(WorkflowFormatError, match="nested"):
        to_prompt({"nodes": [{"id": 1, "type": "Picture", "widgets_values": [deep]}], "links": []}, classes.get)


def test_a_chain_of_ten_thousand_reroutes_is_followed(classes):
    length = 10_000
    nodes = [{"id": 1, "type": "Picture", "outputs": [{"type": "IMAGE"}]}]
    nodes += [
        {"id": number, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": number}], "outputs": [{"type": "*"}]}
        for number in range(2, length)
    ]
    nodes.append({"id": length, "type": "SaveImage", "inputs": [{"name": "images", "type": "IMAGE", "link": length}]})
    links = [[number, number - 1, 0, number, 0, "*"] for number in range(2, length + 1)]
    assert to_prompt({"nodes": nodes, "links": links}, classes.get)[str(length)]["inputs"]["images"] == ["1", 0]


def bypassed_chain(length, readers):
    """A picture behind *length* bypassed nodes, read by *readers* nodes."""
    nodes = [{"id": 1, "type": "Picture", "outputs": [{"type": "IMAGE"}]}]
    nodes += [
        {
            "id": number,
            "type": "Tint",
            "mode": 4,
            "inputs": [{"name": "image", "type": "IMAGE", "link": number}],
            "outputs": [{"type": "IMAGE"}],
        }
        for number in range(2, length + 2)
    ]
    nodes += [
        {"id": 10**6 + number, "type": "SaveImage", "inputs": [{"name": "images", "link": 10**6 + number}]} for number in range(readers)
    ]
    links = [[number, number - 1, 0, number, 0, "IMAGE"] for number in range(2, length + 2)]
    return {"nodes": nodes, "links": links + [[10**6 + number, length + 1, 0, 10**6 + number, 0, "IMAGE"] for number in range(readers)]}


def test_the_total_length_of_all_followed_links_is_bounded(classes, monkeypatch):
    monkeypatch.setattr("app.workflow_pages.tracing.MOST_STEPS", 1000)
    assert to_prompt(bypassed_chain(20, 10), classes.get)["1000009"]["inputs"]["images"] == ["1", 0]
    with pytest.raises(WorkflowFormatError, match="more than 1000 reroutes"):
        to_prompt(bypassed_chain(20, 100), classes.get)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"nodes": [{"id": 1, "type": "Many", "inputs": [{"name": "x"}] * 2001}]}, "more than 2000 inputs"),
        (
            {"nodes": [{"id": number, "type": "g", "properties": {"proxyWidgets": [["5", "width"]] * 100}} for number in range(21)]},
            "2100 inner widgets",
        ),
        (
            {"nodes": [{"id": number, "type": "Picture"} for number in range(50_000)], "links": [[1, 1, 0, 1, 0, "X"]] * 50_001},
            "100001 nodes and links",
        ),
    ],
)
def test_absurdly_large_files_are_refused_at_once(classes, document, named):
    with pytest.raises(WorkflowFormatError, match=named):
        to_prompt(document, classes.get)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"nodes": [{"id": 1}]}, r"nodes\[0\]\.type is missing"),
        ({"nodes": [3]}, r"nodes\[0\] is 3"),
        ({"nodes": [{"id": True, "type": "Picture"}]}, r"nodes\[0\]\.id"),
        ({"nodes": [{"id": 1, "type": "Picture", "inputs": [7]}]}, r"inputs\[0\]"),
        ({"nodes": [{"id": 1, "type": "Picture", "widgets_values": "abc"}]}, "widgets_values is 'abc'"),
        ({"nodes": [], "links": [[1, 2]]}, r"links\[0\] has 2 entries"),
        ({"nodes": [], "links": {"1": []}}, "links is"),
        ({"nodes": [], "definitions": {"subgraphs": [{"id": None, "nodes": []}]}}, r"subgraphs\[0\]\.id"),
    ],
)
def test_the_entry_at_fault_is_named(classes, document, named):
    with pytest.raises(WorkflowFormatError, match=named):
        to_prompt(document, classes.get)
