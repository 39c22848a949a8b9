"""Only calls of classes that make a patched model of their inputs alone are remembered."""

import pytest

from comfy_api.latest import io
from comfy_execution.executor.memo_rules import may_be_remembered

MODEL = {"required": {"model": ("MODEL",), "strength": ("FLOAT", {})}}


def node_class(inputs=MODEL, returns=("MODEL",), module="custom_nodes.some_pack", **attributes):
    body = {
        "INPUT_TYPES": classmethod(lambda cls: inputs),
        "RETURN_TYPES": returns,
        "FUNCTION": "go",
        "RELATIVE_PYTHON_MODULE": module,
        **attributes,
    }
    return type("Node", (), body)


def test_nodes_of_the_core_and_of_named_packs_are_remembered():
    assert may_be_remembered(node_class(__module__="comfy_extras.nodes_x"), ())
    assert may_be_remembered(node_class(__module__="nodes"), ())
    assert may_be_remembered(node_class(), ["some_pack"])
    assert not may_be_remembered(node_class(), ())
    assert not may_be_remembered(node_class(), ["pack"])


def test_a_class_may_opt_in_or_out():
    assert may_be_remembered(node_class(PATCH_MEMO=True), ())
    assert not may_be_remembered(node_class(PATCH_MEMO=False), ["some_pack"])
    assert not may_be_remembered(node_class(PATCH_MEMO=False, __module__="nodes"), ())


@pytest.mark.parametrize(
    "attributes",
    [
        {"IS_CHANGED": classmethod(lambda cls, **inputs: 0)},
        {"check_lazy_status": lambda self, **inputs: []},
        {"OUTPUT_NODE": True},
        {"NOT_IDEMPOTENT": True},
        {"API_NODE": True},
        {"inputs": {**MODEL, "hidden": {"prompt": "PROMPT"}}},
        {"inputs": {"required": {"strength": ("FLOAT", {})}}},
        {"returns": ("IMAGE",)},
    ],
)
def test_what_depends_on_more_or_makes_no_model_is_never_remembered(attributes):
    assert not may_be_remembered(node_class(PATCH_MEMO=True, **attributes), ["some_pack"])


@pytest.mark.parametrize("hidden", [[], [io.Hidden.unique_id]])
def test_schema_nodes_follow_the_same_rules(hidden):
    class Patches(io.ComfyNode):
        PATCH_MEMO = True

        @classmethod
        def define_schema(cls):
            return io.Schema(node_id="Patches", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()], hidden=hidden)

        @classmethod
        def execute(cls, model):
            return io.NodeOutput(model)

    class Asked(Patches):
        @classmethod
        def fingerprint_inputs(cls, **inputs):
            return 0

    assert may_be_remembered(Patches, ()) is not bool(hidden)
    assert not may_be_remembered(Asked, ())
