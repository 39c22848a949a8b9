"""Code that a node calls can find out which node is running."""

import contextvars

import pytest

from comfy_execution.utils import CurrentNodeContext, ExecutionContext, get_executing_context


def test_the_running_call_is_known_inside_and_the_one_around_it_again_after():
    assert get_executing_context() is None
    with CurrentNodeContext("p", "1", 2) as outer:
        assert get_executing_context() == ("p", "1", 2) == outer.context
        with CurrentNodeContext("p", "2"):
            assert get_executing_context() == ExecutionContext("p", "2", None)
        assert get_executing_context().node_id == "1"
    assert get_executing_context() is None


def test_an_error_inside_ends_the_context_as_well():
    with pytest.raises(ValueError), CurrentNodeContext("p", "1"):
        raise ValueError
    assert get_executing_context() is None


def test_contexts_do_not_mix():
    with CurrentNodeContext("p", "1"):
        copied = contextvars.copy_context()
    assert copied.run(get_executing_context) == ("p", "1", None)
