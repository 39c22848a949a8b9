"""Values in answers and log lines: small ones whole, large ones cut without being written out first."""

import json

import pytest

from comfy_execution.prompt_checks.shown_values import MOST_ECHOED, MOST_SHOWN, brief, echo, shown, weight


class Unspeakable(list):
    """A list that must not be written out."""

    def __repr__(self):
        raise AssertionError("it was")

    def __iter__(self):
        raise AssertionError("it was gone through")


@pytest.mark.parametrize("value", [None, True, 5, -1.5, "text", [1, 2], ["5", 0], {"a": [1, {"b": None}]}, [], "x" * 150])
def test_small_values_are_shown_and_echoed_as_they_are(value):
    assert shown(value) == repr(value) and echo(value) == value


@pytest.mark.parametrize("value", [[1] * 10**6, ["x" * 10**6], {str(index): index for index in range(10**5)}, "x" * 10**7, [[[0] * 10**5]]])
def test_large_values_are_cut(value):
    assert len(shown(value)) <= MOST_SHOWN + 1 and ("…" in shown(value) or "..." in shown(value))
    assert echo(value) == shown(value)


def test_a_huge_list_is_weighed_without_walking_it():
    huge = Unspeakable([0] * MOST_ECHOED)
    assert weight(huge, MOST_ECHOED) > MOST_ECHOED
    assert weight([huge, huge], MOST_ECHOED) > MOST_ECHOED


def test_depth_does_not_matter():
    value = "x"
    for _ in range(100_000):
        value = [value]
    assert weight(value, 10**9) > 100_000 and len(shown(value)) <= MOST_SHOWN + 1


def test_numbers_that_json_cannot_carry_become_text():
    assert echo(float("inf")) == "inf" and echo(["a", float("nan")]) == ["a", "nan"]
    assert echo(10**5000) == shown(10**5000) == "a number of 16610 bits"


@pytest.mark.parametrize("value", [["1", 0], {"a": "b" * 50, "c": [1.5, None, True]}, "text", 10**50])
def test_the_weight_is_close_to_the_length_of_the_json(value):
    length = len(json.dumps(value))
    assert length / 3 - 5 < weight(value, 10**6) < 2 * length + 10


def test_brief_marks_what_it_cut():
    assert brief("abc", 3) == "abc" and brief("abcd", 3) == "abc…"
