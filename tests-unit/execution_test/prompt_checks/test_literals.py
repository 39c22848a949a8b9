"""Options and types that packs define by classes of their own decide for themselves."""

import pytest
from checked_prompts import CLASSES, check, declare, errors_of, node

from comfy_execution.prompt_checks.literals import check_literal, conversion_error, needs_link, plain_type


class TakesAll(list):
    """A list of options that holds whatever is asked for."""

    def __contains__(self, value):
        return True


class AnyType(str):
    """Equal to every type, and without a hash."""

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False


class Flexible(dict):
    """Optional inputs of any name."""

    def __contains__(self, name):
        return True

    def __getitem__(self, name):
        return (AnyType("*"),)


class Bypass(tuple):
    """Outputs of any number, each of the first one's type."""

    def __getitem__(self, index):
        return super().__getitem__(0)


@pytest.mark.parametrize("options", [TakesAll(), TakesAll(["a"]), TakesAll(["a"] * 50)])
@pytest.mark.parametrize("value", ["z", 5, None])
def test_a_list_of_options_says_itself_what_it_holds(options, value):
    assert check_literal("c", (options, {}), value) is None
    assert check_literal("c", ("COMBO", {"options": options}), value) is None
    assert check_literal("c", ("COMBO", {"options": options, "multiselect": True}), [value] * 100) is None


def test_many_chosen_options_are_looked_up_one_by_one_in_short_time():
    options = [f"o{index}" for index in range(20_000)]
    config = ("COMBO", {"options": options, "multiselect": True})
    assert check_literal("m", config, options * 5) is None
    found = check_literal("m", config, [*options, 5, [], *["z"] * 50_000])
    assert found["details"].startswith("m: 5, [], 'z'") and len(found["details"]) < 200


def test_a_type_equal_to_everything_takes_any_constant_and_link():
    kind = AnyType("*")
    config, inputs = (kind, {}), {"a": "five"}
    assert plain_type(kind) == "*" and type(plain_type(kind)) is str and plain_type(["x"]) is None
    assert conversion_error("a", config, inputs) is check_literal("a", config, "five") is needs_link("a", config, "five") is None
    classes = {**CLASSES, "Any": declare({"a": (kind,)}, returns=(kind,), OUTPUT_NODE=True)}
    prompt = {"1": node("Any", a=5), "2": node("Any", a=("1", 0)), "m": node("Make", x=1), "3": node("Any", a=("m", 0))}
    assert check(prompt, classes=classes)[0]
    assert check({"1": node("Any", a="x"), "2": node("Show", a=("1", 0))}, classes=classes)[0]


def test_inputs_of_any_name_and_outputs_of_any_number():
    classes = {**CLASSES, "Free": declare({}, Flexible(), returns=Bypass(("T",)))}
    prompt = {"1": node("Free", anything=5), "2": node("Free", more=("1", 7)), "3": node("Show", a=("2", 12))}
    assert check(prompt, classes=classes)[0]
    (error,) = errors_of({"1": node("Free"), "3": node("Show", a=("1", -1))}, "3", classes)
    assert "output -1" in error["details"]


def test_a_long_reason_is_cut():
    inputs = {"f": "x" * 100_000}
    found = conversion_error("f", ("FLOAT", {}), inputs)
    assert len(found["details"]) < 1000 and all(len(str(part)) < 1000 for part in found["extra_info"].values())


def test_a_huge_constant_is_not_sent_back():
    big = {"__value__": [1] * 500_000}
    _, error, _, node_errors = check({"1": node("Words", i=big, f=[1] * 500_000)})
    assert len(str(node_errors)) < 5000 and len(error["details"]) < 2000
