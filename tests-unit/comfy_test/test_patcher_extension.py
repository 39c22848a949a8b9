"""Wrappers and callbacks in options."""

import pytest

from comfy.patcher_extension import (
    WrapperExecutor,
    WrappersMP,
    add_callback_with_key,
    add_wrapper,
    add_wrapper_with_key,
    copy_nested_dicts,
    get_all_callbacks,
    get_all_wrappers,
    get_wrappers_with_key,
    merge_nested_dicts,
)


def test_wrappers_run_from_the_outside_in_and_see_the_object():
    def wrapper(name):
        def wrapped(executor, value):
            return (name, executor.class_obj, executor(value + 1))

        return wrapped

    owner = object()
    executor = WrapperExecutor.new_class_executor(lambda value: value, owner, [wrapper("outer"), wrapper("inner")])
    assert executor.execute(1) == ("outer", owner, ("inner", owner, 3))
    assert WrapperExecutor.new_executor(lambda value, *, extra: value + extra, []).execute(1, extra=2) == 3


def test_a_wrapper_may_call_inwards_more_than_once_but_not_past_the_function():
    def twice(executor, value):
        return executor(value) + executor(value)

    executor = WrapperExecutor.new_executor(lambda value: value, [twice])
    assert executor.execute(2) == 4 and executor.execute(3) == 6
    with pytest.raises(IndexError):
        WrapperExecutor.new_executor(lambda: None, [])()


def test_wrappers_are_found_in_either_kind_of_options():
    model_options = {}
    add_wrapper(WrappersMP.APPLY_MODEL, len, model_options, is_model_options=True)
    add_wrapper_with_key(WrappersMP.APPLY_MODEL, "k", max, model_options["transformer_options"])
    assert get_all_wrappers(WrappersMP.APPLY_MODEL, model_options, is_model_options=True) == [len, max]
    assert get_wrappers_with_key(WrappersMP.APPLY_MODEL, "k", model_options["transformer_options"]) == [max]
    assert get_all_wrappers(WrappersMP.OUTER_SAMPLE, model_options, is_model_options=True) == []
    add_callback_with_key("c", "k", len, model_options, is_model_options=True)
    assert get_all_callbacks("c", model_options["transformer_options"]) == [len]


def test_merging_appends_lists_and_leaves_the_sources_alone():
    one, two = {"a": {"b": [1]}, "x": 1}, {"a": {"b": [2], "c": [3]}, "x": 2}
    assert merge_nested_dicts(one, two) == {"a": {"b": [1, 2], "c": [3]}, "x": 2}
    assert one == {"a": {"b": [1]}, "x": 1} and two["a"]["b"] == [2]
    merged = merge_nested_dicts(one, two, copy_dict1=False)
    assert merged is one and one["a"]["b"] == [1, 2]
    merged["a"]["c"].append(4)
    assert two["a"]["c"] == [3]
    copy = copy_nested_dicts(one)
    copy["a"]["b"].append(9)
    assert one["a"]["b"] == [1, 2]
