"""V3 node classes as the executor sees them: clones, V1 names, optional methods and results."""

import abc
import asyncio

import pytest

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker


class Adder(io.ComfyNode):
    """Adds."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Adder",
            display_name="Add",
            category="math",
            description="adds numbers",
            inputs=[io.Int.Input("a"), io.Int.Input("b", lazy=True)],
            outputs=[io.Int.Output(display_name="sum"), io.String.Output()],
            hidden=[io.Hidden.unique_id],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, a, b):
        return io.NodeOutput(a + b, cls.hidden.unique_id)


class Bare(io.ComfyNode):
    returned = None

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Bare", outputs=[io.Int.Output(), io.Int.Output()])

    @classmethod
    def execute(cls):
        return cls.returned


def bare_returning(value, **schema):
    class One(Bare):
        returned = value

        @classmethod
        def define_schema(cls):
            return io.Schema(node_id="One", outputs=[io.Int.Output(), io.Int.Output()], **schema)

    return One.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED()


def test_v1_attributes_come_from_the_schema():
    assert (Adder.CATEGORY, Adder.DESCRIPTION, Adder.FUNCTION) == ("math", "adds numbers", "EXECUTE_NORMALIZED")
    assert (Adder.RETURN_TYPES, Adder.RETURN_NAMES, Adder.OUTPUT_IS_LIST) == (["INT", "STRING"], ["sum", "STRING"], [False, False])
    assert Adder.INPUT_IS_LIST is True and Adder.OUTPUT_NODE is False and Adder.ACCEPT_ALL_INPUTS is False
    assert Adder.INPUT_TYPES()["required"]["b"] == ("INT", {"lazy": True})
    assert Adder().CATEGORY == "math"


def test_subclass_has_v1_attributes_of_its_own():
    class Child(Adder):
        @classmethod
        def define_schema(cls):
            schema = super().define_schema()
            schema.node_id, schema.category = "Child", "other"
            return schema

    assert Adder.CATEGORY == "math" and Child.CATEGORY == "other" and Child.GET_SCHEMA().node_id == "Child"


def test_input_types_reads_the_schema_each_time():
    files = ["one"]

    class Lister(Bare):
        @classmethod
        def define_schema(cls):
            return io.Schema(node_id="Lister", inputs=[io.Combo.Input("file", options=list(files))])

    assert Lister.INPUT_TYPES()["required"]["file"][1]["options"] == ["one"]
    files.append("two")
    assert Lister.INPUT_TYPES()["required"]["file"][1]["options"] == ["one", "two"]


def test_clone_carries_hidden_values_and_refuses_changes():
    clone = Adder.PREPARE_CLASS_CLONE({"unique_id": "7", "prompt": {"x": 1}})
    assert clone.hidden.unique_id == "7" and clone.hidden.prompt == {"x": 1} and clone.hidden.anything is None
    assert (clone.__name__, clone.__module__, clone.__doc__) == ("Adder", __name__, "Adds.")
    with pytest.raises(AttributeError, match="Adder.cache cannot be set"):
        clone.cache = 1
    with pytest.raises(AttributeError, match="deleted"):
        del clone.hidden
    assert Adder.hidden is None
    Adder.free = 1
    del Adder.free


@pytest.mark.parametrize("given", [{io.Hidden.prompt: 1}, {"PROMPT": 1}, {"prompt": 1}, {"hidden_inputs": {"PROMPT": 1}}])
def test_hidden_values_are_found_under_each_kind_of_key(given):
    assert Adder.PREPARE_CLASS_CLONE(given).hidden.prompt == 1
    assert Adder.PREPARE_CLASS_CLONE(None).hidden.prompt is None


def test_clone_runs_super_and_state_of_the_real_class_stays():
    class Counting(Adder):
        @classmethod
        def execute(cls, a, b):
            cls.calls = 1
            return super().execute(a, b)

    class Mixed(Adder, abc.ABC):
        @classmethod
        def execute(cls, a, b):
            return super().execute(a, b)

    with pytest.raises(AttributeError, match="calls cannot be set"):
        Counting.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(a=1, b=2)
    assert Mixed.PREPARE_CLASS_CLONE({"unique_id": "u"}).EXECUTE_NORMALIZED(a=1, b=2).args == (3, "u")


def test_clone_of_a_clone_starts_from_the_real_class():
    first = Adder.PREPARE_CLASS_CLONE({"unique_id": "1"})
    assert first.PREPARE_CLASS_CLONE({}).__mro__[1] is Adder
    assert first.GET_SCHEMA().node_id == "Adder" and first.CATEGORY == "math"


def test_async_execute_is_named_and_awaited():
    class Slow(Bare):
        @classmethod
        async def execute(cls):
            await asyncio.sleep(0)
            return 1, 2

    assert Slow.FUNCTION == "EXECUTE_NORMALIZED_ASYNC"
    assert asyncio.run(Slow.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED_ASYNC()).args == (1, 2)


def test_optional_methods_are_there_only_when_overridden():
    class Full(Adder):
        @classmethod
        def fingerprint_inputs(cls, **kwargs):
            return "f"

        @classmethod
        def validate_inputs(cls, a):
            return a > 0

        @classmethod
        def check_lazy_status(cls, a=None, b=None):
            return [*super().check_lazy_status(a=a, b=b), "more"]

    for name in ("IS_CHANGED", "VALIDATE_INPUTS", "check_lazy_status"):
        assert not hasattr(Adder, name) and hasattr(Full, name)
    clone = Full.PREPARE_CLASS_CLONE({})
    assert (clone.IS_CHANGED(a=1), clone.VALIDATE_INPUTS(a=1), clone.check_lazy_status(a=1)) == ("f", True, ["b", "more"])

    class Inheriting(Full):
        pass

    assert Inheriting.IS_CHANGED() == "f"


@pytest.mark.parametrize("missing", ["define_schema", "execute"])
def test_missing_method_is_named(missing):
    methods = {"define_schema": classmethod(lambda cls: io.Schema("X")), "execute": classmethod(lambda cls: None)}
    methods.pop(missing)
    broken = type("Broken", (io.ComfyNode,), methods)
    with pytest.raises(TypeError, match=f"Broken must define the class method {missing}"):
        broken.GET_SCHEMA()


def test_plain_method_is_refused_with_what_to_write():
    class Plain(Bare):
        def execute(self):
            return None

    with pytest.raises(TypeError, match="Plain.execute must be a @classmethod"):
        Plain.GET_SCHEMA()


def test_define_schema_must_return_a_schema():
    broken = type("Broken", (Bare,), {"define_schema": classmethod(lambda cls: {})})
    with pytest.raises(TypeError, match="must return an io.Schema, not dict"):
        broken.INPUT_TYPES()


@pytest.mark.parametrize(
    ("returned", "values"),
    [
        (None, ()),
        (io.NodeOutput(1, 2), (1, 2)),
        ((1, 2), (1, 2)),
        ({"result": (1, 2)}, (1, 2)),
        ({"ui": {"text": ["t"]}}, ()),
        ({"result": None}, ()),
    ],
)
def test_results_of_every_form_are_one_form(returned, values):
    output = bare_returning(returned)
    assert isinstance(output, io.NodeOutput) and output.args == values and output.block_execution is None
    assert output.result == (values or None)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (io.NodeOutput(block_execution="stop"), "stop"),
        (ExecutionBlocker("stop"), "stop"),
        ({"result": ExecutionBlocker("stop")}, "stop"),
        (ExecutionBlocker(None), None),
    ],
)
def test_block_without_values_blocks_every_output(returned, message):
    output = bare_returning(returned)
    assert output.block_execution == message
    assert len(output.args) == 2 and all(isinstance(value, ExecutionBlocker) and value.message == message for value in output.args)


def test_ui_objects_become_dicts():
    class Shown(io._UIOutput):
        def as_dict(self):
            return {"text": ["t"]}

    output = bare_returning(io.NodeOutput(1, ui=Shown()))
    assert output.ui == {"text": ["t"]} and output[0] == 1


def test_expansion_needs_the_schemas_permission():
    graph = {"1": {"class_type": "X", "inputs": {}}}
    with pytest.raises(ValueError, match="One.*enable_expand=True"):
        bare_returning(io.NodeOutput(1, expand=graph))
    assert bare_returning(io.NodeOutput(1, expand=graph), enable_expand=True).expand == graph


def test_unknown_result_is_refused_by_type():
    with pytest.raises(TypeError, match="node One returned int"):
        bare_returning(5)


def test_node_info_uses_the_module_that_the_loader_sets():
    class Packed(Bare):
        RELATIVE_PYTHON_MODULE = "custom_nodes.pack"

    assert Packed.GET_NODE_INFO_V1()["python_module"] == "custom_nodes.pack"
