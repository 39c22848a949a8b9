"""Builds CustomCombo, a list whose choices are the node's own text boxes: the filled ones, and one more that is empty."""

from typing import Any

from app.workflow_pages.graph import FIXED, Node, Widget
from app.workflow_pages.values import is_same, is_truthy

INDEX = "index"
_BEFORE_OPTIONS = 2


def add_options(node: Node) -> None:
    """Add the hidden index and the first, empty choice."""
    if node.widgets:
        node.widgets.append(Widget(INDEX, FIXED, -1))
        _add_option(node)


def chosen_index(node: Node, choice: Any) -> int:
    """Where *choice* stands among the filled text boxes, or -1."""
    options = node.widgets[_BEFORE_OPTIONS:]
    return next((index for index, one in enumerate(options) if is_same(one.value, choice)), -1)


def _add_option(node: Node) -> None:
    node.widgets.append(Widget(f"option{len(node.widgets) - 1}", "string", "", changed=lambda widget, value: _grow(node, widget, value)))


def _grow(node: Node, widget: Widget, value: Any) -> None:
    last = node.widgets[-1]
    if last is widget:
        if is_truthy(value):
            _add_option(node)
    elif not is_truthy(value) and node.widgets[-2] is widget and not is_truthy(last.value):
        node.widgets.pop()


def refresh_choices(node: Node) -> None:
    """Let the list offer what the text boxes hold."""
    texts = [one.value for one in node.widgets if one.name.startswith("option") and is_truthy(one.value)]
    node.widgets[0].choices = tuple(str(text) for text in texts)
