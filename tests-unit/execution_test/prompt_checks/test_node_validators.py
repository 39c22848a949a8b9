"""Validators that node classes bring: what they are given, what they stand for, and what their failures mean."""

import logging

import pytest
from checked_prompts import CLASSES, check, declare, errors_of, node

from comfy_execution.utils import get_executing_context


class Asked:
    """Remembers what its validator was given."""

    RETURN_TYPES = ("T",)
    OUTPUT_NODE = True
    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {"x": ("INT", {"max": 3}), "y": ("FLOAT", {"max": 3.0})},
            "optional": {"t": ("T",)},
            "hidden": {"me": "UNIQUE_ID"},
        }
    )


def with_validator(function, **attributes):
    return {**CLASSES, "Asked": type("Asked", (Asked,), {"VALIDATE_INPUTS": function, **attributes})}


def test_a_validator_gets_the_inputs_it_names_and_these_skip_the_limits():
    seen = []

    def judge(cls, x, t, me):
        seen.append((x, t, me, get_executing_context()))
        return True

    prompt = {"m": node("Make", x=1), "1": node("Asked", x=9, y=1.0, t=("m", 0))}
    assert check(prompt, classes=with_validator(classmethod(judge)))[0]
    assert seen == [(9, None, "1", ("p", "1", None))], "links are None"
    prompt["1"]["inputs"]["y"] = 9.0
    (error,) = errors_of(prompt, classes=with_validator(classmethod(judge)))
    assert error["type"] == "value_bigger_than_max"


def test_a_validator_of_all_inputs_skips_all_limits_and_may_be_async():
    async def judge(cls, **inputs):
        return "too much" if inputs["y"] > 50 else True

    assert check({"1": node("Asked", x=9, y=9)}, classes=with_validator(classmethod(judge)))[0]
    found = errors_of({"1": node("Asked", x=9, y=99)}, classes=with_validator(classmethod(judge)))
    assert {one["type"] for one in found} == {"custom_validation_failed"}
    assert [one["details"] for one in found] == [f"{name} - too much" for name in ("x", "y", "me")]


def test_a_validator_may_judge_types_instead_of_the_server():
    seen = []
    classes = with_validator(staticmethod(lambda input_types: seen.append(input_types) or True))
    classes["Odd"] = declare({}, returns=("ODD",))
    prompt = {"m": node("Odd"), "1": node("Asked", x=1, y=1, t=("m", 0))}
    assert check(prompt, classes=classes)[0] and seen == [{"t": "ODD"}]
    refusing = {**classes, **with_validator(staticmethod(lambda input_types: False))}
    refusing["Odd"] = classes["Odd"]
    (error,) = errors_of(prompt, classes=refusing)
    assert (error["type"], error["details"]) == ("custom_validation_failed", "input_types")


def test_list_nodes_are_judged_by_lists():
    seen = []
    classes = with_validator(staticmethod(lambda x, input_types: seen.append((x, input_types)) or True), INPUT_IS_LIST=True)
    assert check({"1": node("Asked", x=1, y=1)}, classes=classes)[0] and seen == [([1], [{}])]


def leaving(error):
    def leave(cls, **inputs):
        raise error

    return classmethod(leave)


@pytest.mark.parametrize("error", [SystemExit(1), GeneratorExit(), BaseExceptionGroup("all", [SystemExit()])])
def test_a_class_cannot_end_the_process(error, caplog):
    caplog.set_level(logging.ERROR, "comfy_execution")
    declaring = {**CLASSES, "Asked": type("Asked", (Asked,), {"INPUT_TYPES": leaving(error)})}
    for classes in (with_validator(leaving(error)), declaring):
        (found,) = errors_of({"1": node("Asked", x=1, y=1)}, classes=classes)
        assert found["extra_info"]["exception_type"] == f"builtins.{type(error).__name__}"


class Mute(BaseException):
    """An error that tells nothing about itself."""

    def refuse(self):
        raise SystemExit

    __str__ = __repr__ = refuse
    __class__ = __traceback__ = property(refuse)


def test_an_error_that_cannot_be_shown_is_reported_by_its_name():
    (found,) = errors_of({"1": node("Asked", x=1, y=1)}, classes=with_validator(leaving(Mute())))
    assert found["extra_info"]["exception_type"].endswith(".Mute") and "cannot be printed" in found["details"]


def failing(cls, **inputs):
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    "classes",
    [with_validator(classmethod(failing)), {**CLASSES, "Asked": type("Asked", (Asked,), {"INPUT_TYPES": classmethod(failing)})}],
    ids=["validator", "declaration"],
)
def test_a_class_that_fails_is_an_error_of_the_node(classes, caplog):
    caplog.set_level(logging.ERROR, "comfy_execution")
    (error,) = errors_of({"1": node("Asked", x=1, y=1)}, classes=classes)
    assert (error["type"], error["details"]) == ("exception_during_validation", "the disk is gone")
    assert error["extra_info"] == {"exception_type": "builtins.OSError", "traceback": []}, "the traceback is for the log"
    assert "disk is gone" in caplog.text and "Traceback" in caplog.text
