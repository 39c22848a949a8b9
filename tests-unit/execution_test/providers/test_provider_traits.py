"""Which node classes share their results, and which values can be results of theirs."""

import pytest

from comfy_execution.cache_provider import CacheValue
from comfy_execution.providers.traits import names_files, read_traits


def node_class(returns=("INT",), hidden=None, **attributes):
    sections = {"required": {}, **({"hidden": hidden} if hidden else {})}
    return type("Node", (), {"RETURN_TYPES": returns, "INPUT_TYPES": classmethod(lambda cls: sections), **attributes})


@pytest.mark.parametrize(
    ("made", "shared"),
    [
        (node_class(), True),
        (node_class(hidden={"me": "UNIQUE_ID"}), True),
        (node_class((["a", "b"], "*")), True),
        (node_class(OUTPUT_NODE=True), False),
        (node_class(HAS_INTERMEDIATE_OUTPUT=True), False),
        (node_class(NOT_IDEMPOTENT=True), False),
        (node_class(()), False),
        (node_class(("IMAGE", "MODEL")), False),
        (node_class(hidden={"key": "API_KEY_COMFY_ORG"}), False),
        (node_class(hidden={"prompt": ("PROMPT",)}), False),
    ],
)
def test_only_nodes_that_compute_from_their_inputs_alone_are_shared(made, shared):
    assert read_traits(made).is_shareable is shared


@pytest.mark.parametrize(
    ("returns", "outputs", "fits"),
    [
        (("INT",), [[1]], True),
        (("INT",), [[1, 2]], True),
        (("INT",), ([1],), True),
        (("INT",), [[None]], True),
        (("ANY",), [[object]], True),
        (("INT",), [["1"]], False),
        (("INT",), [[]], False),
        (("INT",), [], False),
        (("INT",), [[1], [2]], False),
        (("INT",), [1], False),
        (("INT",), 7, False),
        (("STRING", "FLOAT"), [["a"], [1]], True),
        (("STRING", "FLOAT"), [["a"], ["b"]], False),
        (("IMAGE",), [["not a tensor"]], False),
        (("LATENT",), [[{"samples": 3}]], False),
        (("CONDITIONING",), [[[]]], True),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_values_are_checked_against_the_declared_outputs(returns, outputs, fits):
    assert read_traits(node_class(returns)).accepts(CacheValue(outputs)) is fits


def test_an_empty_list_fits_an_output_that_is_a_list():
    assert read_traits(node_class(OUTPUT_IS_LIST=(True,))).accepts(CacheValue([[]]))


def test_tensors_fit_images():
    torch = pytest.importorskip("torch")
    traits = read_traits(node_class(("IMAGE", "LATENT")))
    assert traits.accepts(CacheValue([[torch.zeros(1, 8, 8, 3)], [{"samples": torch.zeros(1, 4, 8, 8)}]]))
    assert not traits.accepts(CacheValue([[torch.zeros(1)], [{"samples": torch.zeros(1, 4, 8, 8)}]]))


@pytest.mark.parametrize(
    ("ui", "fits"),
    [
        (None, True),
        ({"output": {"text": ["x"]}, "meta": {}}, True),
        ({"output": {}}, True),
        ({"images": []}, False),
        ("ui", False),
        ({"output": 3}, False),
        ({"output": {}, "meta": []}, False),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_the_ui_must_have_the_known_shape(ui, fits):
    assert read_traits(node_class()).accepts(CacheValue([[1]], ui)) is fits


def test_files_are_found_at_any_depth():
    assert names_files({"output": {"images": [{"filename": "a.png"}]}})
    assert not names_files({"output": {"text": ["filename"]}}) and not names_files(None)


def test_what_contains_itself_is_looked_through_once():
    ui = {"output": {}}
    ui["output"]["again"] = ui
    assert not names_files(ui)
