"""Merging JSON-like values."""

import pytest

from utils.json_util import merge_json_recursive


@pytest.mark.parametrize(
    ("base", "update", "merged"),
    [
        ({"a": 1, "b": {"x": 1}}, {"b": {"y": 2}, "c": 3}, {"a": 1, "b": {"x": 1, "y": 2}, "c": 3}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 1, 2]}),
        ({"a": [1]}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": None}, {"a": None}, {"a": None}),
        (1, 2, 2),
        ({}, {}, {}),
    ],
)
def test_dicts_are_merged_recursively(base, update, merged):
    assert merge_json_recursive(base, update) == merged


def test_inputs_are_left_alone():
    base, update = {"a": {"x": [1]}}, {"a": {"x": [2]}}
    merge_json_recursive(base, update)["a"]["x"].append(3)
    assert (base, update) == ({"a": {"x": [1]}}, {"a": {"x": [2]}})
