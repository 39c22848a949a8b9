"""Builds a subgraph's instance: its sockets are the definition's inputs, and it has its own values for the inner widgets behind them."""

from collections.abc import Iterator

from app.workflow_pages.graph import Graph, Link, Node, Slot, Socket, Widget
from app.workflow_pages.page_file import SavedNode


def build_instance(saved: SavedNode, definition: Graph) -> Node:
    """An instance of *definition*, which must be complete, with the values the file gives to promoted widgets."""
    node = Node(saved.id, saved.kind, saved, saved.title or definition.id, saved.mode, virtual=True, definition=definition)
    labels = {one.name: one.label for one in saved.inputs}
    node.inputs = [Socket(slot.name, slot.type, label=labels.get(slot.name)) for slot in definition.inputs]
    node.outputs = [slot.type for slot in definition.outputs]
    definition.instances.append(node)
    for slot, socket in zip(definition.inputs, node.inputs):
        promote(definition, slot, socket)
    _take_saved_values(node)
    return node


def promote(definition: Graph, slot: Slot, socket: Socket) -> None:
    """Give *socket* a copy of the first inner widget that the slot feeds, if there is one."""
    for _, inner, target in targets(definition, slot):
        widget = inner.widget_of(target)
        if widget is not None:
            socket.promoted = Widget(slot.name, widget.kind, widget.value, widget.saved, widget.sent, widget.spec, widget.choices)
            socket.widget = slot.name
            return


def targets(definition: Graph, slot: Slot) -> Iterator[tuple[Link, Node, Socket]]:
    """The inner sockets that an input of the definition feeds, in order."""
    for link in definition.slot_links(slot):
        node = definition.target(link)
        if node is not None and link.socket is not None:
            yield link, node, link.socket


def _take_saved_values(node: Node) -> None:
    """The n-th saved value belongs to the n-th input that has a widget; values saved by name come first."""
    aside = _values_kept_aside(node)
    saved = node.saved.values
    values = saved if isinstance(saved, list) else []
    promoted = [socket for socket in node.inputs if socket.promoted is not None]
    for index, socket in enumerate(promoted):
        assert socket.promoted is not None
        if socket.name in aside:
            socket.promoted.value = aside[socket.name]
        elif index < len(values):
            socket.promoted.value = values[index]


def _values_kept_aside(node: Node) -> dict[str, object]:
    entries = node.saved.properties.get("proxyWidgetErrorQuarantine")
    kept: dict[str, object] = {}
    for entry in reversed(entries if isinstance(entries, list) else []):
        origin = entry.get("originalEntry") if isinstance(entry, dict) else None
        if isinstance(origin, list) and len(origin) >= 2 and origin[0] == "-1" and isinstance(origin[1], str) and "hostValue" in entry:
            kept[origin[1]] = entry["hostValue"]
    return kept
