"""Handles PrimitiveNode, which holds a value for the widgets that it is connected to."""

from typing import Any

from app.workflow_pages.graph import Graph, Link, Node, Socket, Widget
from app.workflow_pages.input_specs import InputSpec
from app.workflow_pages.numbers import merged_range, rounded
from app.workflow_pages.texts import Replacements
from app.workflow_pages.values import is_truthy
from app.workflow_pages.widget_kinds import MAKERS, makes_widget

_REPLACE = "Run widget replace on values"


def hand_out_values(graph: Graph, replacements: Replacements) -> None:
    """Put the value of every primitive node of *graph* into the widgets behind its links."""
    leaving: dict[str, list[Link]] = {}
    for link in graph.links.values():
        if link.origin_slot == 0:
            leaving.setdefault(link.origin, []).append(link)
    for node in graph.nodes.values():
        if node.kind == "PrimitiveNode":
            links = leaving.get(node.id, ())
            ends = [(target, link.socket) for link in links if (target := graph.target(link)) is not None and link.socket is not None]
            _hand_out(node, ends, replacements)


def _hand_out(primitive: Node, ends: list[tuple[Node, Socket]], replacements: Replacements) -> None:
    specs = [_spec(node, socket) for node, socket in ends]
    if not ends or specs[0] is None:
        return
    value = _value(primitive, ends[0][0], ends[0][1], specs[0])
    numeric = [spec for spec in specs if spec is not None]
    if len(ends) > 1 and specs[0].type in ("INT", "FLOAT"):
        value = _clamped(value, merged_range(numeric))
    if is_truthy(value) and isinstance(value, str) and primitive.saved.properties.get(_REPLACE):
        value = replacements.apply(value)
    for node, socket in ends:
        widget = node.widget(socket.widget)
        if socket.widget is not None and widget is not None:
            widget.put(rounded(value, widget.spec) if widget.kind in ("number", "slider", "knob", "gradientslider") else value)


def _spec(node: Node, socket: Socket) -> InputSpec | None:
    """The specification that the primitive takes over from there; None where the page makes nothing of it."""
    if socket.widget is None:
        return InputSpec(socket.name, socket.type) if makes_widget(socket.type) else None
    widget = node.widget_of(socket)
    return socket.spec or (widget.spec if widget is not None else None)


def _value(primitive: Node, node: Node, socket: Socket, spec: InputSpec) -> Any:
    saved = primitive.saved
    values = saved.values if isinstance(saved.values, list) else []
    if values and saved.output_types and saved.output_types[0] == spec.type:
        return values[0]
    theirs: Widget | None = node.widget(socket.widget if socket.widget is not None else socket.name)
    if theirs is not None:
        return theirs.value
    return MAKERS[spec.widget_type](spec)[0].value if spec.widget_type in MAKERS else None


def _clamped(value: Any, allowed: tuple[float, float] | None) -> Any:
    if allowed is None or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    low, high = allowed
    return low if value < low else high if value > high else value
