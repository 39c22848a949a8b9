"""The graph as the page holds it: nodes with their sockets and widgets, links by id, subgraph definitions with their edge.

Everything here belongs to one conversion and one thread.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from app.workflow_pages.input_specs import InputSpec
from app.workflow_pages.page_file import SavedNode
from app.workflow_pages.values import as_text, is_missing

MUTED, BYPASSED = 2, 4
SUBGRAPH_INPUT, SUBGRAPH_OUTPUT = "-10", "-20"
TEXT_BOXES = frozenset({"customtext", "MARKDOWN"})
FIXED = "fixed"


@dataclass(slots=True, eq=False)
class Widget:
    """One value of a node. *saved*: it has a place in the file's list; *sent*: it goes into the prompt."""

    name: str
    kind: str
    value: Any
    saved: bool = True
    sent: bool = True
    spec: InputSpec | None = None
    choices: tuple[Any, ...] = ()
    changed: Callable[["Widget", Any], None] | None = None

    def put(self, value: Any) -> None:
        """Give the widget a value as the page does: a text box makes text of it, a viewer ignores it."""
        if self.kind == FIXED:
            return
        if self.kind in TEXT_BOXES and not isinstance(value, str):
            value = "" if is_missing(value) else as_text(value)
        self.value = value
        if self.changed is not None:
            self.changed(self, value)


@dataclass(slots=True, eq=False)
class Socket:
    """One input of a node. *promoted* holds the value that a subgraph's instance has for it."""

    name: str
    type: str
    widget: str | None = None
    label: str | None = None
    spec: InputSpec | None = None
    link: "Link | None" = None
    promoted: Widget | None = None


@dataclass(slots=True, eq=False)
class Link:
    """A link of one graph; *target_slot* is the file's, the socket at its end is found when the graph is complete."""

    id: str
    origin: str
    origin_slot: int
    target: str
    target_slot: int
    socket: Socket | None = None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Autogrow:
    """A list of inputs that grows as it is connected: what one entry holds and how entries are named."""

    name: str
    specs: tuple[InputSpec, ...]
    least: int
    most: int
    names: tuple[str, ...]
    prefix: str

    def entry_names(self, ordinal: int) -> list[str]:
        """The socket names of one entry."""
        if self.names:
            return [f"{self.name}.{self.names[ordinal]}" for _ in self.specs]
        return [f"{self.name}.{self.prefix if len(self.specs) == 1 else spec.name}{ordinal}" for spec in self.specs]

    def ordinal(self, socket_name: str) -> int | None:
        """Which entry a socket belongs to, or None for a socket of another list."""
        if not socket_name.startswith(f"{self.name}."):
            return None
        own = socket_name[len(self.name) + 1 :]
        if self.names:
            return self.names.index(own) if own in self.names else None
        digits = re.search(r"[0-9]{1,6}$", own)
        return int(digits.group()) if digits else None


@dataclass(slots=True, eq=False)
class Node:
    """A node; *definition* makes it a subgraph instance, *virtual* one that only the page knows."""

    id: str
    kind: str
    saved: SavedNode
    title: str
    mode: int = 0
    known: bool = True
    virtual: bool = False
    inputs: list[Socket] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    widgets: list[Widget] = field(default_factory=list)
    definition: "Graph | None" = None
    growers: dict[str, Autogrow] = field(default_factory=dict)
    grown: set[tuple[str, int]] = field(default_factory=set)

    @property
    def silent(self) -> bool:
        """Whether it is muted or bypassed."""
        return self.mode in (MUTED, BYPASSED)

    def all_widgets(self) -> list[Widget]:
        """Its widgets; a subgraph instance's are those promoted to it."""
        return self.widgets if self.definition is None else [one.promoted for one in self.inputs if one.promoted is not None]

    def widget(self, name: str | None) -> Widget | None:
        """The first widget of that name."""
        return next((one for one in self.all_widgets() if one.name == name), None)

    def widget_of(self, socket: Socket) -> Widget | None:
        """The widget whose value a link into *socket* replaces."""
        if socket.promoted is not None:
            return socket.promoted
        return None if socket.widget is None else self.widget(socket.widget)

    def socket(self, name: str) -> Socket | None:
        """The first socket of that name."""
        return next((one for one in self.inputs if one.name == name), None)

    def socket_of(self, widget: Widget) -> Socket | None:
        """The socket that belongs to *widget*."""
        return next((one for one in self.inputs if one.promoted is widget or (one.widget is not None and one.widget == widget.name)), None)


@dataclass(slots=True, eq=False)
class Slot:
    """One input or output of a subgraph definition with the links inside it, in order."""

    name: str
    type: str
    link_ids: list[str]


@dataclass(slots=True, eq=False)
class Graph:
    """The root (empty id) or one subgraph definition, which all its instances share."""

    id: str
    nodes: dict[str, Node] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    inputs: list[Slot] = field(default_factory=list)
    outputs: list[Slot] = field(default_factory=list)
    instances: list[Node] = field(default_factory=list)

    def slot_links(self, slot: Slot) -> Iterator[Link]:
        """The links of one of the edge's slots that exist."""
        return (self.links[link_id] for link_id in slot.link_ids if link_id in self.links)

    def links_from(self, node: Node, slot: int) -> list[Link]:
        """The links that leave one output, in the file's order."""
        return [link for link in self.links.values() if link.origin == node.id and link.origin_slot == slot]

    def target(self, link: Link) -> Node | None:
        """The node a link leads to."""
        return self.nodes.get(link.target)

    def drop(self, link: Link) -> None:
        """Remove a link."""
        self.links.pop(link.id, None)
        link.removed = True
        if link.socket is not None:
            link.socket.link = None
