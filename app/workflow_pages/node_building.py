"""Builds a node from a saved one: laid out by its class, then given the file's values."""

from collections.abc import Mapping
from typing import Any

from app.workflow_pages import custom_combo
from app.workflow_pages.dynamic_inputs import add_socket, add_widget, grow_behind
from app.workflow_pages.graph import Link, Node, Socket
from app.workflow_pages.input_specs import InputSpec, as_list, class_specs, plain_name
from app.workflow_pages.link_alignment import align_group_links, place_links
from app.workflow_pages.page_file import SavedNode

VIRTUAL_CLASSES = frozenset({"Reroute", "PrimitiveNode", "Note", "MarkdownNote"})


def build_node(saved: SavedNode, info: Mapping[str, Any] | None) -> Node:
    """A node with its class's sockets and widgets, no values yet. Without *info* it has what the file says and no widgets."""
    if saved.kind in VIRTUAL_CLASSES:
        return _from_file(saved, saved.title or saved.kind, virtual=True)
    if info is None:
        node = _from_file(saved, saved.title or saved.kind)
        node.known = False
        return node
    node = Node(saved.id, saved.kind, saved, saved.title or str(info.get("display_name") or saved.kind), saved.mode)
    specs = class_specs(saved.kind, info)
    for spec in specs:
        add_socket(node, spec)
    for spec in specs:
        add_widget(node, spec)
    node.outputs = [_output_type(one) for one in as_list(info.get("output"))]
    if saved.kind == "CustomCombo":
        custom_combo.add_options(node)
    return node


def fill_node(node: Node, info: Mapping[str, Any] | None, incoming: Mapping[str, Link]) -> None:
    """Give a node the file's extra sockets, its links as they are numbered, and its values."""
    if node.virtual or not node.known:
        place_links(node, incoming.values())
        return
    known = {socket.name for socket in node.inputs}
    node.inputs += [Socket(one.name, one.type, one.widget, one.label) for one in node.saved.inputs if one.name not in known]
    node.outputs += node.saved.output_types[len(node.outputs) :]
    laid_out = [socket.name for socket in node.inputs]
    place_links(node, incoming.values())
    for name in dict.fromkeys(saved.name for saved in node.saved.inputs if saved.link in incoming):
        grow_behind(node, name)
    align_group_links(node, incoming, laid_out)
    values = node.saved.values
    if isinstance(values, dict):
        _put_by_name(node, values)
    else:
        _put_in_order(node, _without_forced(node, class_specs(node.kind, info or {}), list(values or ())))
    if node.kind == "CustomCombo" and node.widgets:
        custom_combo.refresh_choices(node)


def _from_file(saved: SavedNode, title: str, virtual: bool = False) -> Node:
    sockets = [Socket(one.name, one.type, one.widget, one.label) for one in saved.inputs]
    if saved.kind == "Reroute" and not sockets:
        sockets = [Socket("", "*")]
    return Node(saved.id, saved.kind, saved, title, saved.mode, virtual=virtual, inputs=sockets, outputs=list(saved.output_types))


def _output_type(declared: Any) -> str:
    if isinstance(declared, list | tuple):
        return "COMBO"
    name = plain_name(declared)
    return "*" if name == "COMFY_MATCHTYPE_V3" else name


def _put_in_order(node: Node, values: list[Any]) -> None:
    """The page's rule: the n-th saved value belongs to the n-th saved widget, counted while values may add widgets."""
    index = position = 0
    while index < len(node.widgets) and position < len(values):
        widget = node.widgets[index]
        index += 1
        if widget.saved:
            widget.put(values[position])
            position += 1


def _put_by_name(node: Node, values: Mapping[str, Any]) -> None:
    index = 0
    while index < len(node.widgets):
        widget = node.widgets[index]
        index += 1
        if widget.name in values:
            widget.put(values[widget.name])


def _without_forced(node: Node, specs: list[InputSpec], values: list[Any]) -> list[Any]:
    """Leave out the values that older pages saved for inputs that are only sockets, where the count shows that they did."""
    if any(spec.type == "COMFY_DYNAMICGROUP_V3" for spec in specs):
        return values
    names = {widget.name for widget in node.widgets}
    unsaved = {widget.name for widget in node.widgets if not widget.saved}
    forced: list[bool] = []
    for spec in specs:
        if (spec.name in names or spec.forced) and spec.name not in unsaved:
            forced += [spec.forced, False] if spec.options.get("control_after_generate") else [spec.forced]
    if True not in forced and len(values) == sum(widget.saved for widget in node.widgets):
        return values
    compact = [value for index, value in enumerate(values) if index >= len(node.widgets) or node.widgets[index].saved]
    aligned = next((one for one in (compact, values) if len(one) == len(forced)), None)
    return values if aligned is None else [value for value, drop in zip(aligned, forced) if not drop]
