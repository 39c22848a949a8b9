"""What a prompt is refused for, in which words, and that no prompt can break the validation itself."""

import asyncio

import pytest
from checked_prompts import CLASSES, check, declare, errors_of, node
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_execution.nodes_graph.schema_class import SchemaNode
from comfy_execution.prompt_checks.cycles import MAX_CYCLES
from comfy_execution.prompt_checks.failures import MIN_DEPENDENT_OUTPUTS
from comfy_execution.prompt_checks.walk import validate_prompt


def test_a_good_prompt_is_accepted_and_its_literals_are_converted():
    prompt = {"1": node("Words", i="5", f=3, s=7, b=1, c="x", m=["p"], n=2)}
    assert check({"1": node("Make", x=3), "2": node("Show", a=("1", 0))}) == (True, None, ["2"], {})
    assert check({"1": node("Words", i="5", f=3, s=7, b=1, c="x", n=2)})[0]
    wrapped = {"1": node("Words", m={"__value__": ["p", "q"]}, s={"__value__": "text"})}
    assert check(wrapped)[0] and wrapped["1"]["inputs"] == {"m": ["p", "q"], "s": "text"}
    del prompt["1"]["inputs"]["m"]
    check(prompt)
    converted = prompt["1"]["inputs"]
    assert [(type(converted[name]), converted[name]) for name in "ifsb"] == [(int, 5), (float, 3.0), (str, "7"), (bool, True)]


@pytest.mark.parametrize(
    ("inputs", "kind", "details"),
    [
        ({"i": "five"}, "invalid_input_type", "i, 'five'"),
        ({"f": None}, "invalid_input_type", "f, None"),
        ({"f": float("nan")}, "invalid_input_type", "nan"),
        ({"f": float("-inf")}, "invalid_input_type", "finite"),
        ({"f": -2}, "value_smaller_than_min", "f"),
        ({"c": "z"}, "value_not_in_list", "c: 'z' not in ['x', 'y']"),
        ({"long": "z"}, "value_not_in_list", "(list of length 30)"),
        ({"n": "1"}, "value_not_in_list", "n: '1'"),
        ({"remote": "z"}, "value_not_in_list", "remote: 'z' not in []"),
        ({"m": {"__value__": ["p", "z"]}}, "value_not_in_list", "m: 'z'"),
        ({"i": [1, 2, 3]}, "bad_linked_input", "i"),
        ({"i": []}, "bad_linked_input", "i"),
        ({"i": [5, 0]}, "bad_linked_input", "i"),
        ({"i": ["1", "0"]}, "bad_linked_input", "i"),
        ({"i": ["1", True]}, "bad_linked_input", "i"),
        ({"i": ["1", 0.0]}, "bad_linked_input", "i"),
        ({"i": ["1", -1]}, "exception_during_validation", "output -1"),
        ({"i": ["1", 10**400]}, "exception_during_validation", "bits"),
        ({"i": ["gone", 0]}, "exception_during_validation", "'gone'"),
        ({"i": 10**5000}, "invalid_input_type", "digits"),
        ({"undeclared": ["gone", 0]}, "bad_linked_input", "undeclared"),
    ],
)
def test_bad_inputs_are_named(inputs, kind, details):
    (error,) = errors_of({"1": node("Words", **inputs)})
    assert error["type"] == kind and details in error["details"], error
    assert set(error) == {"type", "message", "details", "extra_info"} and error["message"]


def test_long_lists_of_options_are_not_sent_back():
    (error,) = errors_of({"1": node("Words", long="z")})
    assert error["extra_info"] == {"input_name": "long", "input_config": None, "received_value": "z"}
    (error,) = errors_of({"1": node("Words", c="z")})
    assert error["extra_info"]["input_config"] == (["x", "y"], {})


def test_all_errors_of_a_node_are_listed_in_the_order_of_declaration():
    found = errors_of({"1": node("Words", c="z", f="z", i="z")})
    assert [one["extra_info"]["input_name"] for one in found] == ["i", "f", "c"]


def test_errors_are_listed_at_their_node_with_the_outputs_that_fail():
    prompt = {
        "m": node("Make"),
        "p": node("Pass", a=("m", 0)),
        "s": node("Show", a=("p", 0)),
        "s2": node("Show", a=("p", 0)),
        "g": node("Make", x=1),
        "ok": node("Show", a=("g", 0)),
    }
    good, error, outputs, node_errors = check(prompt)
    assert (good, error, outputs) == (True, None, ["ok"])
    assert list(node_errors) == ["m"]
    assert node_errors["m"]["dependent_outputs"] == ["s", "s2"] and node_errors["m"]["class_type"] == "Make"
    assert node_errors["m"]["errors"] == [
        {"type": "required_input_missing", "message": "Required input is missing", "details": "x", "extra_info": {"input_name": "x"}}
    ]


def test_an_inner_node_that_cannot_be_looked_at_names_the_link_that_leads_to_it():
    (error,) = errors_of({"1": node("Pass", a=("gone", 0)), "2": node("Show", a=("1", 0))})
    assert error["type"] == "exception_during_inner_validation" and "'gone'" in error["details"]
    assert set(error["extra_info"]) == {"input_name", "input_config", "exception_message", "exception_type", "traceback", "linked_node"}
    assert (error["extra_info"]["input_name"], error["extra_info"]["linked_node"]) == ("a", ["1", 0])


def test_types_of_links_must_fit():
    assert check({"1": node("Two"), "2": node("Take", a=("1", 1))})[0]
    (error,) = errors_of({"1": node("Two"), "2": node("Take", a=("1", 0))}, "2")
    assert (error["type"], error["details"]) == ("return_type_mismatch", "a, received_type(T) mismatch input_type(V)")
    assert error["extra_info"] == {"input_name": "a", "input_config": ("V", {}), "received_type": "T", "linked_node": ["1", 0]}


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (None, "invalid_prompt"),
        ([], "invalid_prompt"),
        ("{}", "invalid_prompt"),
        ({1: node("Show")}, "invalid_prompt"),
        ({None: node("Show")}, "invalid_prompt"),
        ({"i" * 1001: node("Show")}, "invalid_prompt"),
        ({}, "prompt_no_outputs"),
        ({"1": node("Make", x=1)}, "prompt_no_outputs"),
        ({"1": None}, "missing_node_type"),
        ({"1": {}}, "missing_node_type"),
        ({"1": {"class_type": ["Show"]}}, "missing_node_type"),
        ({"1": {"class_type": ""}}, "missing_node_type"),
        ({"1": node("Nobody")}, "missing_node_type"),
        ({"1": "Show"}, "missing_node_type"),
        ({"1": {"class_type": 3, "_meta": "x"}}, "missing_node_type"),
    ],
)
def test_malformed_prompts_are_refused_as_a_whole(prompt, kind):
    good, error, outputs, node_errors = check(prompt)
    assert (good, error["type"], outputs, node_errors) == (False, kind, [], {})


def test_an_unknown_class_is_reported_by_title_even_if_nothing_depends_on_it():
    prompt = {"1": node("Make", x=1), "2": node("Show", a=("1", 0)), "7": {**node("Gone"), "_meta": {"title": "My node"}}}
    _, error, _, _ = check(prompt)
    assert error["type"] == "missing_node_type" and "'My node'" in error["message"]
    assert error["extra_info"] == {"node_id": "7", "class_type": "Gone", "node_title": "My node"}


@pytest.mark.parametrize("depth", [150, 100_000])
def test_endlessly_nested_values_are_refused(depth):
    value = "x"
    for _ in range(depth):
        value = {"a": value}
    good, error, _, _ = check({"1": node("Words", undeclared=value)})
    assert (good, error["type"]) == (False, "invalid_prompt")


@pytest.mark.parametrize("inputs", [None, [], "x", 3])
def test_a_node_without_inputs_is_refused_where_it_is_needed_and_emptied_elsewhere(inputs):
    (error,) = errors_of({"1": {"class_type": "Show", "inputs": inputs}})
    assert error["type"] == "exception_during_validation"
    prompt = {"1": node("Make", x=1), "2": node("Show", a=("1", 0))}
    prompt |= {"3": {"class_type": "Pass", "inputs": inputs}, "4": {"class_type": "Make"}}
    assert check(prompt)[0] and prompt["3"]["inputs"] == prompt["4"]["inputs"] == {}


def test_only_targets_are_roots():
    prompt = {"1": node("Make", x=1), "2": node("Show", a=("1", 0)), "3": node("Show", a=("1", 0)), "4": node("Show")}
    assert check(prompt, ["3", "1", "nobody", 5, None]) == (True, None, ["3"], {})
    assert check(prompt, [])[1]["type"] == check(prompt, ["1"])[1]["type"] == "prompt_no_outputs"
    assert check(prompt, None)[2] == ["2", "3"]
    for junk in (5, "23", {"2": 1}, True):
        assert check(prompt, junk)[1]["type"] == "invalid_prompt"


def test_a_link_that_no_class_declares_must_still_lead_somewhere():
    prompt = {
        "1": node("Make", x=1, extra=("2", 0)),
        "2": node("Make", x=99, more=("gone", 0)),
        "3": node("Show", a=("1", 0)),
        "4": node("Make", x=1),
        "5": node("Show", a=("4", 0)),
    }
    good, _, outputs, node_errors = check(prompt)
    assert (good, outputs) == (True, ["5"])
    assert node_errors["2"]["dependent_outputs"] == ["3"] and node_errors["2"]["errors"][0]["details"] == "more"
    del prompt["2"]["inputs"]["more"]
    assert check(prompt) == (True, None, ["3", "5"], {}), "what only undeclared links lead to is not checked further"


@pytest.mark.parametrize("size", [1, 2, 3, 500])
def test_a_circle_is_reported_at_all_its_nodes(size):
    ring = {str(index): node("Pass", a=(str((index + 1) % size), 0)) for index in range(size)}
    good, error, _, node_errors = check({**ring, "s": node("Show", a=("0", 0))})
    assert not good and "Dependency cycle detected" in error["details"] and set(node_errors) == set(ring)
    (fault,) = node_errors["0"]["errors"]
    assert (fault["type"], fault["extra_info"]["node_id"], fault["extra_info"]["cycle_nodes"]) == ("dependency_cycle", "0", list(ring))
    assert fault["details"].startswith("0 (Pass) -> ") and fault["details"].endswith("0 (Pass)")
    assert node_errors["0"]["dependent_outputs"] == ["s"]


def test_outputs_on_the_far_side_of_a_circle_fail_too():
    prompt = {
        "1": node("Pass", a=("2", 0)),
        "2": node("Pass", a=("1", 0)),
        "x": node("Show", a=("1", 0)),
        "y": node("Show", a=("2", 0)),
        "m": node("Make", x=1),
        "z": node("Show", a=("m", 0)),
    }
    good, _, outputs, node_errors = check(prompt)
    assert good and outputs == ["z"]
    assert all(sorted(entry["dependent_outputs"]) == ["x", "y"] for entry in node_errors.values())


def test_a_chain_of_ten_thousand_nodes_is_walked_once():
    count = 10_000
    classes = {**CLASSES, "Pass": declare({"a": ("T",)})}
    prompt = {str(index): node("Pass", a=(str(index - 1), 0)) for index in range(1, count)}
    prompt |= {"0": node("Make", x=1)} | {f"s{index}": node("Show", a=(str(count - 1), 0)) for index in range(5)}
    assert check(prompt, classes=classes) == (True, None, [f"s{index}" for index in range(5)], {})
    assert len(classes["Pass"].calls) == 1
    prompt["0"]["inputs"]["x"] = 99
    _, _, _, node_errors = check(prompt, classes=classes)
    assert list(node_errors) == ["0"] and node_errors["0"]["dependent_outputs"] == [f"s{index}" for index in range(5)]


def test_thousands_of_circles_and_failing_outputs_are_answered_in_bounds():
    count = 2000
    prompt = {str(index): node("Pass", a=(str(index + 1), 0), b=("0", 0)) for index in range(count)} | {str(count): node("Pass")}
    prompt |= {f"s{index}": node("Show", a=("0", 0)) for index in range(count)}
    good, _, _, node_errors = check(prompt)
    assert not good and len(node_errors) == count + 1 > MAX_CYCLES
    assert all(len(entry["errors"]) <= 2 for entry in node_errors.values())
    assert all(MIN_DEPENDENT_OUTPUTS <= len(entry["dependent_outputs"]) <= 50 for entry in node_errors.values())


def test_groups_of_the_newer_api_are_checked_by_their_flat_names():
    class Grow(SchemaNode):
        RETURN_TYPES = ("T",)
        OUTPUT_NODE = True
        seen: list = []

        @classmethod
        def INPUT_TYPES(cls, live_inputs=None):
            return {"required": {f"g.{index}": ("T",) for index in range(max(2, len(live_inputs or ())))}}

        @classmethod
        def NEST_INPUTS(cls, flat):
            return {"g": {name.partition(".")[2]: value for name, value in flat.items()}}

        @classmethod
        def PREPARE_CLASS_CLONE(cls, hidden):
            return type("Clone", (cls,), {"hidden": hidden})

        @classmethod
        def VALIDATE_INPUTS(cls, **inputs):
            cls.seen.append((inputs, cls.hidden))
            return True

    classes = {**CLASSES, "Grow": Grow}
    good = {"m": node("Make", x=1), "1": node("Grow", **{f"g.{index}": ("m", 0) for index in range(3)})}
    assert check(good, classes=classes)[0]
    assert Grow.seen == [({"g": {"0": None, "1": None, "2": None}}, {})]
    (error,) = errors_of({"m": node("Make", x=1), "1": node("Grow", **{"g.0": ("m", 0)})}, classes=classes)
    assert (error["type"], error["details"], error["extra_info"]) == ("required_input_missing", "1", {"input_name": "g.1"})


JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from([*CLASSES, "0", "1", 10**400])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.tuples(st.sampled_from("0123"), st.sampled_from([0, 1, -1, 0.0, True])).map(list),
    ),
    max_leaves=6,
)
INPUTS = st.dictionaries(st.sampled_from(["a", "b", "x", "i", "f", "s", "c", "m", "late", "z"]), JUNK, max_size=4)
NODES = st.one_of(JUNK, st.fixed_dictionaries({"class_type": st.sampled_from(sorted(CLASSES)), "inputs": st.one_of(INPUTS, INPUTS, JUNK)}))


@settings(max_examples=300)
@given(st.one_of(JUNK, st.dictionaries(st.sampled_from("0123"), NODES, max_size=4)), st.one_of(st.none(), st.none(), JUNK))
def test_no_prompt_breaks_the_validation(prompt, targets):
    good, error, outputs, node_errors = asyncio.run(validate_prompt("p", prompt, targets, CLASSES))
    assert good is (error is None) is bool(outputs)
    assert good or set(error) == {"type", "message", "details", "extra_info"}
    for entry in node_errors.values():
        assert entry["errors"] and entry["dependent_outputs"] and not set(entry["dependent_outputs"]) & set(outputs)
