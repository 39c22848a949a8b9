"""``proxyWidgets``, the older way to show an inner widget on a subgraph's instance, turned into inputs with promoted values.

Each entry names an inner node and its widget; the instance's n-th saved value belongs to the n-th entry. An entry whose widget no
input feeds yet gets a new input of the definition, which every instance then has.
"""

import re
from typing import Any, NamedTuple

from app.workflow_pages.graph import Graph, Link, Node, Slot, Socket, Widget
from app.workflow_pages.subgraph_instances import promote, targets
from app.workflow_pages.values import UNSET, is_missing

_DEEPEST = 100
_PREVIEW_KINDS = frozenset({"preview", "video", "audioUI"})
_PREFIX = re.compile(r"\s*(\d+)\s*:\s*(.+)$", re.DOTALL)
_MARK = "proxyBypassedToSubgraphInput"


class _Entry(NamedTuple):
    """One entry: *widget* is its name without numbers in front, *inner_id* the node within a nested instance that is meant."""

    node_id: str
    widget: str
    inner_id: str | None
    name: str
    value: Any


def apply_proxy_widgets(host: Node) -> None:
    """Carry out the entries of *host*, a subgraph's instance, once its graph is complete. One malformed entry invalidates all of them."""
    definition = host.definition
    listed = host.saved.properties.get("proxyWidgets")
    if definition is None or not isinstance(listed, list):
        return
    if not all(isinstance(one, list) and len(one) in (2, 3) and all(isinstance(part, str) for part in one) for one in listed):
        return
    values = host.saved.values if isinstance(host.saved.values, list) else []
    entries = [_entry(host, one, values[index] if index < len(values) else UNSET) for index, one in enumerate(listed)]
    fed = [_fed_input(host, entry.node_id, entry.widget) or _marked_input(host, definition.nodes.get(entry.node_id)) for entry in entries]
    primitives: dict[str, list[_Entry]] = {}
    for entry, socket in zip(entries, fed):
        source = definition.nodes.get(entry.node_id)
        if socket is not None:
            _put(socket, entry)
        elif source is None:
            _keep_aside(host, entry)
        elif source.kind == "PrimitiveNode":
            primitives.setdefault(entry.node_id, []).append(entry)
        else:
            _show(host, definition, source, entry)
    for node_id, group in primitives.items():
        _bypass_primitive(host, definition, definition.nodes[node_id], group)


def _entry(host: Node, raw: list[str], value: Any) -> _Entry:
    name, inner = raw[1], raw[2] if len(raw) == 3 else None
    if not _leads_to_widget(host, raw[0], name):
        while match := _PREFIX.match(name):
            inner, name = match.group(1), match.group(2)
    return _Entry(raw[0], name, inner, raw[1], value)


def _leads_to_widget(host: Node, node_id: str, widget_name: str) -> bool:
    """Whether the widget is found, through nested instances too."""
    for _ in range(_DEEPEST):
        source = host.definition.nodes.get(node_id) if host.definition is not None else None
        if source is None:
            return False
        if source.definition is None:
            return source.widget(widget_name) is not None
        target = _fed(source, widget_name)
        if target is None:
            return False
        host, (node_id, widget_name) = source, target
    return False


def _fed(instance: Node, input_name: str) -> tuple[str, str] | None:
    """(inner node, widget) behind the instance's input of that name."""
    definition = instance.definition
    slot = next((one for one in definition.inputs if one.name == input_name), None) if definition is not None else None
    return None if definition is None or slot is None else _source(definition, slot)


def _source(definition: Graph, slot: Slot) -> tuple[str, str] | None:
    for _, node, socket in targets(definition, slot):
        if node.definition is not None:
            return node.id, socket.name
        widget = node.widget_of(socket)
        if widget is not None:
            return node.id, widget.name
    return None


def _fed_input(host: Node, node_id: str, widget_name: str) -> Socket | None:
    definition = host.definition
    if definition is None:
        return None
    pairs = zip(definition.inputs, host.inputs)
    return next((socket for slot, socket in pairs if _source(definition, slot) == (node_id, widget_name)), None)


def _marked_input(host: Node, source: Node | None) -> Socket | None:
    mark = source.saved.properties.get(_MARK) if source is not None and source.kind == "PrimitiveNode" else None
    return host.socket(mark) if isinstance(mark, str) else None


def _put(socket: Socket, entry: _Entry) -> None:
    if socket.promoted is not None and entry.value is not UNSET:
        socket.promoted.value = entry.value


def _keep_aside(host: Node, entry: _Entry) -> None:
    if entry.node_id == "-1":
        socket = host.socket(entry.name)
        if socket is not None:
            _put(socket, entry)


def _show(host: Node, definition: Graph, source: Node, entry: _Entry) -> None:
    widget = _source_widget(source, entry)
    if widget is None or entry.widget.startswith("$$") or (not (widget.saved and widget.sent) and widget.kind in _PREVIEW_KINDS):
        return
    socket = source.socket_of(widget)
    if socket is None:
        return
    _add_definition_input(definition, entry.widget, socket.type, [(source, socket)])
    _put(host.inputs[-1], entry)


def _source_widget(source: Node, entry: _Entry) -> Widget | None:
    if source.definition is None:
        return source.widget(entry.widget)
    for socket in source.inputs:
        fed = _fed(source, socket.name)
        by_inner = fed is not None and fed[1] == entry.widget
        matches = by_inner and fed is not None and fed[0] == entry.inner_id if entry.inner_id else socket.name == entry.widget or by_inner
        if matches:
            return socket.promoted
    return source.widget(entry.widget)


def _add_definition_input(definition: Graph, name: str, kind: str, sockets: list[tuple[Node, Socket]]) -> None:
    taken = {slot.name for slot in definition.inputs}
    unique, number = name, 0
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    slot = Slot(unique, kind, [])
    definition.inputs.append(slot)
    for node, socket in sockets:
        if socket.link is not None:
            definition.drop(socket.link)
        link = Link(f"{unique} to {node.id}.{socket.name}", "-10", len(definition.inputs) - 1, node.id, 0, socket)
        socket.link = definition.links[link.id] = link
        slot.link_ids.append(link.id)
    for instance in definition.instances:
        added = Socket(unique, kind)
        instance.inputs.append(added)
        promote(definition, slot, added)


def _bypass_primitive(host: Node, definition: Graph, primitive: Node, entries: list[_Entry]) -> None:
    """Let an input of the definition feed what the primitive node feeds."""
    links = definition.links_from(primitive, 0)
    sockets = [(node, link.socket) for link in links if (node := definition.target(link)) is not None and link.socket is not None]
    kind = primitive.outputs[0] if primitive.outputs else None
    if kind is None or not sockets or len(sockets) != len(links) or len({entry.widget for entry in entries}) != 1:
        return
    if any(kind != socket.type and "*" not in (kind, socket.type) for _, socket in sockets):
        return
    title = primitive.saved.title
    _add_definition_input(definition, title if title and title != "PrimitiveNode" else entries[0].widget, kind, sockets)
    primitive.saved.properties[_MARK] = definition.inputs[-1].name
    given = next((entry for entry in entries if entry.value is not UNSET), None)
    if given is not None:
        _put(host.inputs[-1], given)
    elif not is_missing(value := next(iter(primitive.saved.values or ()), None)) and host.inputs[-1].promoted is not None:
        host.inputs[-1].promoted.value = value
