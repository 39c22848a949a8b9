"""How nodes are called: lists, results, blockers, lazy and hidden inputs, undeclared links."""

import pytest
from executor_harness import Log, benches, make_node, node

import execution
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.nodes_graph.schema_class import SchemaNode


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def bench(monkeypatch, log):
    """A function that makes a bench from named classes, besides the usual ones."""
    yield from benches(monkeypatch, log)


def test_lists_are_mapped_and_shorter_ones_repeat_their_last_item(bench, log):
    pair = make_node(lambda self, a, b, c: ((a, b, c),), ["a", "b", "c"])
    made = bench(Pair=pair)
    made.run(
        {
            "1": node("Many", x=[1, 2, 3]),
            "2": node("Many", x=["x", "y"]),
            "3": node("Pair", a=("1", 0), b=("2", 0), c=True),
            "4": node("Sink", value=("3", 0)),
        }
    )
    assert log == [(1, "x", True), (2, "y", True), (3, "y", True)]
    assert made.outputs["4"] == {"value": ["(1, 'x', True)", "(2, 'y', True)", "(3, 'y', True)"]}


def test_output_lists_of_several_calls_are_joined(bench, log):
    twice = make_node(lambda self, value: ([value, value],), ["value"], OUTPUT_IS_LIST=(True,))
    bench(Twice=twice).run({"1": node("Many", x=[1, 2]), "2": node("Twice", value=("1", 0)), "3": node("Sink", value=("2", 0))})
    assert log == [1, 1, 2, 2]


def test_input_is_list_gets_everything_in_one_call(bench, log):
    made = bench(Whole=make_node(lambda self, value, k: ((value, k),), ["value", "k"], INPUT_IS_LIST=True))
    made.run({"1": node("Many", x=[1, 2]), "2": node("Whole", value=("1", 0), k=7), "3": node("Sink", value=("2", 0))})
    assert log == [([1, 2], [7])]


def test_all_lists_empty_is_one_call_without_arguments(bench, log):
    made = bench(Maybe=make_node(lambda self, value="default": (value,), ["value"]))
    made.run({"1": node("Many", x=[]), "2": node("Maybe", value=("1", 0)), "3": node("Sink", value=("2", 0))})
    assert log == ["default"]


def test_an_empty_list_beside_others_is_an_error(bench):
    made = bench(Pair=make_node(lambda self, a, b: (a,), ["a", "b"]))
    made.run({"1": node("Many", x=[]), "2": node("Pair", a=("1", 0), b=1), "3": node("Sink", value=("2", 0))})
    assert made.error()["exception_type"] == "IndexError" and "'a'" in made.error()["exception_message"]


@pytest.mark.parametrize(
    "returned, seen",
    [
        (("v",), ["v"]),
        (["v"], ["v"]),
        ({"result": ("v",)}, ["v"]),
        ({"result": ("v",), "ui": {"text": ["t"]}}, ["v"]),
        ({"ui": {"text": ["t"]}}, [None]),
        (None, [None]),
    ],
)
def test_forms_of_results(bench, log, returned, seen):
    made = bench(Form=make_node(lambda self: returned))
    made.run({"1": node("Form"), "2": node("Sink", value=("1", 0))})
    assert made.executor.success and log == seen
    assert ("1" in made.outputs) == (isinstance(returned, dict) and "ui" in returned)


def test_a_result_that_is_not_a_sequence_is_an_error_that_says_so(bench):
    made = bench(Form=make_node(lambda self: 5))
    made.run({"1": node("Form"), "2": node("Sink", value=("1", 0))})
    assert "returned int" in made.error()["exception_message"] and made.error()["node_id"] == "1"


class NodeOutput:
    """A result object as schema classes return it."""

    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args, self.ui, self.expand, self.block_execution = args, ui, expand, block_execution


def test_node_output_objects_are_read_by_their_attributes(bench, log):
    class Ui:
        def as_dict(self):
            return {"images": [{"filename": "a.png"}]}

    made = bench(Out=make_node(lambda self: NodeOutput("v", ui=Ui())))
    made.run({"1": node("Out"), "2": node("Sink", value=("1", 0))})
    assert log == ["v"] and made.outputs["1"] == {"images": [{"filename": "a.png"}]}


BLOCKING = {
    "whole result": lambda: ExecutionBlocker("stop"),
    "in a dict": lambda: {"result": ExecutionBlocker("stop")},
    "one output": lambda: (ExecutionBlocker("stop"), "b"),
    "node output, without values": lambda: NodeOutput(block_execution="stop"),
    "node output, with values": lambda: NodeOutput("a", "b", block_execution="stop"),
    "node output of a blocker": lambda: NodeOutput(ExecutionBlocker("stop")),
}


@pytest.mark.parametrize("form", BLOCKING)
def test_blockers_keep_downstream_nodes_from_being_called(bench, log, form):
    made = bench(Block=make_node(lambda self: BLOCKING[form](), returns=("*", "*")))
    made.run({"1": node("Block"), "2": node("Pass", value=("1", 0)), "3": node("Sink", value=("2", 0)), "4": node("Sink", value=("1", 1))})
    assert made.executor.success
    assert log == (["b"] if form == "one output" else [])
    messages = made.data("execution_error")
    assert {message["node_id"] for message in messages} == ({"2"} if form == "one output" else {"2", "4"})
    assert messages[0]["exception_message"] == "Execution Blocked: stop" and messages[0]["exception_type"] == "ExecutionBlocked"
    assert messages[0]["traceback"] == [] and "timestamp" not in messages[0]
    assert [name for name, _ in made.executor.status_messages] == ["execution_start", "execution_cached", "execution_success"]


def test_a_blocked_item_of_a_list_blocks_only_its_call(bench, log):
    def go(self, value):
        return (ExecutionBlocker(None) if value == 2 else value,)

    made = bench(Filter=make_node(go, ["value"]))
    made.run(
        {
            "1": node("Many", x=[1, 2, 3]),
            "2": node("Filter", value=("1", 0)),
            "3": node("Pass", value=("2", 0)),
            "4": node("Sink", value=("3", 0)),
        }
    )
    assert log == [1, 3] and made.data("execution_error") == []


def test_a_blocked_item_blocks_a_node_that_wants_the_list(bench, log):
    made = bench(Whole=make_node(lambda self, value: (value,), ["value"], INPUT_IS_LIST=True))
    made.run({"1": node("Many", x=[1, ExecutionBlocker(None)]), "2": node("Whole", value=("1", 0)), "3": node("Sink", value=("2", 0))})
    assert log == []


def lazy_choice(asked):
    """A class that needs ``first``, then ``second`` only if the first is falsy."""

    def check(self, first=None, second=None):
        asked.append((first, second))
        if first is None:
            return ["first"]
        return [] if first else ["second"]

    return make_node(
        lambda self, first=None, second=None: (first or second,),
        {"first": ("*", {"lazy": True}), "second": ("*", {"lazy": True})},
        check_lazy_status=check,
    )


def test_lazy_inputs_run_only_when_asked_for(bench, log):
    asked = []
    made = bench(Choice=lazy_choice(asked))
    made.run(
        {
            "a": node("Value", x=1),
            "b": node("Value", x=2),
            "c": node("Choice", first=("a", 0), second=("b", 0)),
            "d": node("Sink", value=("c", 0)),
        }
    )
    assert log == [1] and made.executed() == ["c", "a", "c", "d"] and asked == [(None, None), (1, None)]


def test_lazy_inputs_are_asked_for_until_nothing_new_is_needed(bench, log):
    made = bench(Choice=lazy_choice([]))
    made.run(
        {
            "a": node("Value", x=0),
            "b": node("Value", x=2),
            "c": node("Choice", first=("a", 0), second=("b", 0)),
            "d": node("Sink", value=("c", 0)),
        }
    )
    assert log == [2] and made.executed() == ["c", "a", "c", "b", "c", "d"]


def test_async_check_lazy_status_and_the_union_over_items(bench, log):
    async def check(self, mask, one=None, two=None):
        return ["two"] if mask and two is None else ["one"] if not mask and one is None else []

    lazy = make_node(
        lambda self, mask, one=None, two=None: (two if mask else one,),
        {"mask": ("*", {}), "one": ("*", {"lazy": True}), "two": ("*", {"lazy": True})},
        check_lazy_status=check,
    )
    made = bench(Lazy=lazy)
    made.run(
        {
            "m": node("Many", x=[0, 1]),
            "a": node("Value", x="a"),
            "b": node("Value", x="b"),
            "c": node("Lazy", mask=("m", 0), one=("a", 0), two=("b", 0)),
            "d": node("Sink", value=("c", 0)),
        }
    )
    assert log == ["a", "b"]


def test_asking_lazily_for_an_input_that_is_not_there_is_an_error(bench):
    made = bench(Odd=make_node(lambda self: (1,), check_lazy_status=lambda self: ["nothing"]))
    made.run({"1": node("Odd"), "2": node("Sink", value=("1", 0))})
    assert made.error()["node_id"] == "1" and "nothing" in made.error()["exception_message"]


def test_undeclared_links_are_passed_and_undeclared_constants_dropped(bench, log):
    made = bench(Open=make_node(lambda self, **inputs: (inputs,)))
    made.run({"1": node("Value", x=1), "2": node("Open", extra=("1", 0), constant=5), "3": node("Sink", value=("2", 0))})
    assert log == [{"extra": 1}]


def test_a_link_past_the_last_result_delivers_none(bench, log):
    bench().run({"1": node("Value", x=1), "2": node("Pass", value=("1", 7)), "3": node("Sink", value=("2", 0))})
    assert log == [None]


def test_raw_links_are_handed_over_as_they_are(bench, log):
    raw = make_node(lambda self, value: (value,), {"value": ("*", {"rawLink": True})})
    made = bench(Raw=raw)
    made.run({"1": node("Value", x=1), "2": node("Raw", value=("1", 0)), "3": node("Sink", value=("2", 0))})
    assert log == [["1", 0]] and made.executed() == ["2", "3"]


def test_hidden_inputs_are_filled_by_their_kind(bench, log):
    kinds = ("PROMPT", "DYNPROMPT", "EXTRA_PNGINFO", "UNIQUE_ID", "AUTH_TOKEN_COMFY_ORG", "API_KEY_COMFY_ORG", "COMFY_USAGE_SOURCE")
    hidden = {kind.lower(): kind for kind in kinds}
    made = bench(Hidden=make_node(lambda self, **inputs: (inputs,), sections={"hidden": {**hidden, "own": "OWN", "absent": "X"}}))
    prompt = {"1": node("Hidden", own="literal", unique_id="forged"), "2": node("Sink", value=("1", 0))}
    made.run(prompt, extra_pnginfo={"workflow": {}}, auth_token_comfy_org="t", api_key_comfy_org="k", comfy_usage_source="s")
    (seen,) = log
    assert seen.pop("dynprompt").get_original_prompt() is prompt and seen.pop("prompt") is prompt
    assert seen == {
        "extra_pnginfo": {"workflow": {}},
        "unique_id": "1",
        "auth_token_comfy_org": "t",
        "api_key_comfy_org": "k",
        "comfy_usage_source": "s",
        "own": "literal",
    }


class Described(SchemaNode):
    """A class with the names that schema classes provide."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE, ACCEPT_ALL_INPUTS = ("*",), "EXECUTE_NORMALIZED", False, False
    hidden = None

    @classmethod
    def GET_SCHEMA(cls):
        return "schema"

    @classmethod
    def INPUT_TYPES(cls, live_inputs=None):
        names = [name for name in live_inputs or () if name.startswith("group.")]
        return {"required": {name: ("*", {}) for name in ("x", *names)}, "hidden": {"unique_id": ["UNIQUE_ID"]}}

    @classmethod
    def NEST_INPUTS(cls, flat):
        nested = {"x": flat.get("x"), "group": {}}
        nested["group"].update({name.partition(".")[2]: value for name, value in flat.items() if "." in name})
        return nested

    @classmethod
    def PREPARE_CLASS_CLONE(cls, hidden):
        return type(cls.__name__, (cls,), {"hidden": hidden})

    @classmethod
    def EXECUTE_NORMALIZED(cls, x, group):
        return NodeOutput((x, group, cls.hidden))


def test_schema_classes_get_nested_inputs_and_their_hidden_values_on_a_clone(bench, log):
    bench(Schema=Described).run(
        {"1": {"class_type": "Schema", "inputs": {"x": 1, "group.a": 2, "other": 3}}, "2": node("Sink", value=("1", 0))}
    )
    assert log == [(1, {"a": 2}, {"unique_id": "1"})] and Described.hidden is None


def test_instances_are_kept_per_node_and_class_over_prompts(bench, log):
    class Counter:
        RETURN_TYPES, FUNCTION, CATEGORY = ("*",), "go", "test"
        made = 0

        def __init__(self):
            type(self).made += 1
            self.calls = 0

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"x": ("*", {})}}

        def go(self, x):
            self.calls += 1
            return (self.calls,)

    made = bench(Counter=Counter)
    for x in (1, 2, 3):
        made.run({"1": node("Counter", x=x), "2": node("Sink", value=("1", 0))})
    assert log == [1, 2, 3] and Counter.made == 1


@pytest.mark.parametrize("name", ["execute", "get_output_data", "_async_map_node_over_list", "get_input_data"])
def test_functions_that_packs_replace_are_called(bench, log, monkeypatch, name):
    calls, original = [], getattr(execution, name)

    def replacement(*arguments, **keywords):
        calls.append(name)
        return original(*arguments, **keywords)

    async def async_replacement(*arguments, **keywords):
        calls.append(name)
        return await original(*arguments, **keywords)

    monkeypatch.setattr(execution, name, replacement if name == "get_input_data" else async_replacement)
    bench().run({"1": node("Value", x=1), "2": node("Sink", value=("1", 0))})
    assert log == [1] and len(calls) == 2


def test_a_replaced_execute_of_the_executor_is_called(bench, log, monkeypatch):
    calls, original = [], execution.PromptExecutor.execute_async

    async def replacement(self, *arguments, **keywords):
        calls.append(1)
        return await original(self, *arguments, **keywords)

    monkeypatch.setattr(execution.PromptExecutor, "execute_async", replacement)
    bench().run({"1": node("Value", x=1), "2": node("Sink", value=("1", 0))})
    assert log == [1] and calls == [1]
