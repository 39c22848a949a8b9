"""V3 classes are those of the V3 base, whatever else a class may offer."""

import pytest

from app.packs.node_info import node_info
from app.packs.registry import PackRegistry
from comfy_api.latest import io
from comfy_execution.executor.inputs import declared_inputs, get_input_data
from comfy_execution.nodes_graph.declared_inputs import DeclaredInputs
from comfy_execution.nodes_graph.schema_class import is_schema_class
from comfy_execution.prompt_checks.node_check import NodeChecker


class Stub:
    """A V1 class with the V3 names that some packs give theirs, none of which can be called."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    OUTPUT_NODE = True
    GET_SCHEMA = GET_NODE_INFO_V1 = None

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a.b": ("INT",)}}

    @classmethod
    def VALIDATE_INPUTS(cls, **inputs):
        return True


class Real(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema("Real", inputs=[io.Int.Input("a")])

    @classmethod
    def execute(cls, a):
        return io.NodeOutput()


def test_the_base_class_decides():
    assert is_schema_class(Real) and is_schema_class(Real.PREPARE_CLASS_CLONE({})) and is_schema_class(io.ComfyNode)
    assert not any(map(is_schema_class, (Stub, Stub(), None, "Real", Real.GET_SCHEMA)))


@pytest.mark.parametrize("inputs", [{"a.b": 5}])
async def test_a_stub_of_the_newer_names_changes_nothing(inputs):
    assert DeclaredInputs().of_node(Stub, inputs) == declared_inputs(Stub, inputs) == Stub.INPUT_TYPES()
    assert get_input_data(inputs, Stub, "1") == ({"a.b": [5]}, {}, {"hidden_inputs": {}})
    assert node_info("Stub", Stub)["name"] == "Stub"
    checker = NodeChecker("p", {"1": {"class_type": "Stub", "inputs": inputs}, "2": {"class_type": "Stub", "inputs": {}}}, {"Stub": Stub})
    check = checker.check_inputs("1", None)
    await checker.ask_validator("1", check)
    assert check.errors == []
    (missing,) = checker.check_inputs("2", None).errors
    assert missing["details"] == "a.b", "the name of a V1 input is shown whole"


def test_only_classes_of_the_base_are_registered_as_such():
    registry = PackRegistry({}, {}, {}, {})
    (problem,) = registry.register_schemas([Stub, Real], "pack")
    assert "Stub" in problem and registry.node_classes == {"Real": Real}
