"""Values, texts, numbers and types as the page's JavaScript has them."""

import json
import math
from datetime import datetime

import pytest

from app.workflow_pages.errors import WorkflowFormatError
from app.workflow_pages.input_specs import InputSpec
from app.workflow_pages.numbers import merged_range, rounded
from app.workflow_pages.page_file import SavedNode
from app.workflow_pages.texts import Replacements, resolve_choices
from app.workflow_pages.tracing import accepts
from app.workflow_pages.values import UNSET, as_input, as_sent, as_text, is_same, is_truthy


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (20.0, "20"),
        (0.5, "0.5"),
        (-0.0, "0"),
        (2**53, "9007199254740992"),
        (2**53 + 1, "9007199254740992"),
        (2**64 - 1, "18446744073709552000"),
        (10**400, "null"),
        (math.nan, "null"),
        (-math.inf, "null"),
        (True, "true"),
        (None, "null"),
        ([1.0, UNSET, {"a": UNSET, "b": 2.0}], '[1, null, {"b": 2}]'),
    ],
)
def test_numbers_go_out_as_the_page_writes_them(value, sent):
    assert json.dumps(as_sent(value)) == sent


def test_a_list_is_wrapped_so_that_it_is_not_read_as_a_link():
    assert as_input(["3", 0]) == {"__value__": ["3", 0]}
    assert as_input({"points": [1.0]}) == {"points": [1]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (5, "5"),
        (5.0, "5"),
        (None, "null"),
        (True, "true"),
        (UNSET, "undefined"),
        ({}, "[object Object]"),
        ([1, None, "a"], "1,,a"),
    ],
)
def test_text_of_a_value(value, text):
    assert as_text(value) == text


def test_truth_and_sameness_are_javascripts():
    assert is_truthy([]) and is_truthy({}) and not is_truthy("") and not is_truthy(0) and not is_truthy(math.nan) and not is_truthy(UNSET)
    assert is_same(1, 1.0) and not is_same(1, True) and not is_same("1", 1)


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("plain", "plain"),
        ("{a|b} c", "a c"),
        ("{a|b} {|c}", "a "),
        ("{x{a|b}|c}", "xa"),
        (r"\{a\|b\}", "{a|b}"),
        ("a /* b\nc */ d // e\nf", "a  d \nf"),
        ("{open|end", "open"),
        ("stray }", "stray }"),
        ("", ""),
    ],
)
def test_choices_are_resolved_and_comments_removed(text, resolved):
    assert resolve_choices(text, lambda options: options[0]) == resolved


def test_the_chooser_decides_which_option_is_taken():
    seen = []
    assert resolve_choices("{a|b|c}", lambda options: seen.append(list(options)) or options[-1]) == "c"
    assert seen == [["a", "b", "c"]]


def test_endlessly_nested_choices_are_refused():
    with pytest.raises(WorkflowFormatError, match="choices within choices"):
        resolve_choices("{" * 5000, lambda options: options[0])


def test_a_long_text_of_choices_is_resolved_quickly():
    assert resolve_choices("{a|b} " * 20_000, lambda options: options[0]) == "a " * 20_000


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("%date:yyyy-MM-dd%", "2026-01-02"),
        ("%date:hh-mm-ss d M yy%", "03-04-05 2 1 26"),
        ("%width%", "%width%"),
        ("100%", "100%"),
        ("%No.x%", "%No.x%"),
        ("%date%", "%date%"),
    ],
)
def test_placeholders_are_filled(text, filled):
    assert Replacements([], lambda: datetime(2026, 1, 2, 3, 4, 5)).apply(text) == filled


@pytest.mark.parametrize(
    ("value", "kind", "options", "result"),
    [
        (7, "INT", {}, 7),
        (7.5, "INT", {}, 8),
        (-0.5, "INT", {}, 0),
        (13, "INT", {"step": 8}, 16),
        (13, "INT", {"step": 8, "min": 4}, 12),
        (0.12345, "FLOAT", {"step": 0.01}, 0.12),
        (5.0, "FLOAT", {"step": 0.01, "max": 2.0}, 2.0),
        (0.126, "FLOAT", {"round": 0.05, "step": 0.01}, 0.15),
        (3.7, "FLOAT", {"step": 1.0}, 3.7),
        ("x", "INT", {}, "x"),
        (True, "INT", {}, True),
        (2**60 + 1, "INT", {}, 2**60 + 1),
    ],
)
def test_a_number_handed_to_a_widget_is_rounded(value, kind, options, result):
    assert rounded(value, InputSpec("x", kind, options=options)) == pytest.approx(result)


def test_ranges_are_joined_only_where_the_rest_agrees():
    first, second = (InputSpec("x", "INT", options={"min": low, "max": high, "display": "slider"}) for low, high in ((0, 10), (5, 20)))
    assert merged_range([first, second]) == (5, 10)
    assert merged_range([first, InputSpec("x", "INT", options={"min": 11, "display": "slider"})]) is None
    assert merged_range([first, InputSpec("x", "INT", options={"min": 0})]) is None
    assert merged_range([first, InputSpec("x", "FLOAT", options=first.options)]) is None


@pytest.mark.parametrize(
    ("left", "right", "fit"),
    [
        ("IMAGE", "IMAGE", True),
        ("IMAGE", "MASK", False),
        ("*", "MASK", True),
        ("IMAGE,MASK", "MASK", True),
        ("image", "IMAGE,X", True),
        ("A,B", "C,D", False),
        ("image", "IMAGE", True),
        ("A,*", "Z", True),
    ],
)
def test_types_that_may_be_connected(left, right, fit):
    assert accepts(left, right) is fit


def test_a_saved_node_is_not_shared_between_two():
    assert SavedNode("1", "A").inputs is not SavedNode("2", "A").inputs


@pytest.mark.parametrize("kind", ["INT", "FLOAT"])
@pytest.mark.parametrize(
    "options", [{"step": math.inf}, {"round": math.inf}, {"step": math.nan, "min": -math.inf}], ids=["step", "round", "both"]
)
def test_endless_steps_in_a_specification_do_not_stop_rounding(kind, options):
    assert math.isfinite(rounded(1.25, InputSpec("x", kind, options=options)))
