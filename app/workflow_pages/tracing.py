"""Finds where the value of a socket really comes from: through reroutes and bypassed nodes, into subgraphs and out of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.workflow_pages.errors import WorkflowFormatError
from app.workflow_pages.graph import BYPASSED, MUTED, SUBGRAPH_INPUT, Graph, Link, Node, Socket

MOST_STEPS: Final = 1_000_000
"""Links of one workflow that lead through more sockets and outputs than this are refused."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node at a path of subgraph instances; *graphs* and *hosts* lead from the root to it."""

    node: Node
    graphs: tuple[Graph, ...]
    hosts: tuple[Node, ...] = ()

    @property
    def id(self) -> str:
        """The id in the prompt: instances' ids and its own, joined by colons."""
        return ":".join([*(host.id for host in self.hosts), self.node.id])

    def beside(self, node: Node) -> "Place":
        """The place of another node of the same graph."""
        return Place(node, self.graphs, self.hosts)


@dataclass(frozen=True, slots=True)
class Origin:
    """A socket's value: the output of a node, or (*node_id* None) a promoted value."""

    node_id: str | None
    slot: int
    value: Any = None


def accepts(left: str, right: str) -> bool:
    """Whether two types may be connected: equal ones, ones with a common member, and anything with ``*``."""
    if "*" in (left, right) or "" in (left, right) or left == right:
        return True
    ours, theirs = left.lower().split(","), right.lower().split(",")
    return any(one == other or "*" in (one, other) or "" in (one, other) for one in ours for other in theirs)


@dataclass(frozen=True, slots=True)
class _Stop:
    """A socket on the way, and the type that its value must fit."""

    place: Place
    socket: Socket
    wanted: str


class Tracer:
    """Finds origins for one prompt, in a bounded number of steps in all."""

    def __init__(self) -> None:
        self._left = MOST_STEPS

    def origin(self, place: Place, socket: Socket) -> Origin | None:
        """The origin of *socket*'s value, or None when nothing is connected or the way ends at a muted node."""
        return None if socket.link is None else _Trace(place, socket, self._count).follow(place, socket)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise WorkflowFormatError(f"the workflow's links lead through more than {MOST_STEPS} reroutes, bypassed nodes and subgraphs")


class _Trace:
    """One walk from a socket to its origin; a place that is reached twice is a circle."""

    def __init__(self, start: Place, socket: Socket, count: Callable[[], None]) -> None:
        self._start = f"{start.id}.{socket.name}"
        self._count = count
        self._seen: set[tuple[str, str, int]] = set()

    def follow(self, place: Place, socket: Socket) -> Origin | None:
        """Walk on until an origin, or nothing, is reached."""
        at: _Stop | Origin | None = _Stop(place, socket, socket.type)
        while isinstance(at, _Stop):
            self._step(at.place, "input", id(at.socket))
            at = self._before(at)
        return at

    def _before(self, at: _Stop) -> _Stop | Origin | None:
        """What feeds a socket."""
        place, link = at.place, at.socket.link
        if link is None:
            return None
        if link.origin == SUBGRAPH_INPUT and place.hosts:
            return self._outside(place, link.origin_slot)
        source = place.graphs[-1].nodes.get(link.origin)
        if source is None:
            raise WorkflowFormatError(
                f"the saved workflow is damaged: the input {self._start!r} comes from node {link.origin}, which is not in the file"
            )
        return self._output(place.beside(source), link.origin_slot, at.wanted)

    def _outside(self, place: Place, slot: int) -> _Stop | Origin | None:
        """The instance's socket behind an input of its subgraph, or the value promoted to it."""
        host = place.hosts[-1]
        if not 0 <= slot < len(host.inputs):
            raise WorkflowFormatError(f"the saved workflow is damaged: the subgraph {host.id} has no input number {slot}")
        socket = host.inputs[slot]
        if socket.link is None:
            return None if socket.promoted is None else Origin(None, -1, socket.promoted.value)
        return _Stop(Place(host, place.graphs[:-1], place.hosts[:-1]), socket, socket.type)

    def _output(self, place: Place, slot: int, wanted: str) -> _Stop | Origin | None:
        """The origin behind an output, or the socket to go on with."""
        while True:
            node = place.node
            self._step(place, "output", slot)
            if node.mode == MUTED:
                return None
            if node.mode == BYPASSED:
                socket = _handed_through(node, slot, wanted)
                return None if socket is None else _Stop(place, socket, socket.type)
            if node.definition is None:
                break
            link = self._edge_link(place, node.definition, slot)
            if link is None:
                return None
            if link.origin == SUBGRAPH_INPUT:
                return self._straight_through(place, link.origin_slot, wanted)
            inner = node.definition.nodes[link.origin]
            place, slot = Place(inner, (*place.graphs, node.definition), (*place.hosts, node)), link.origin_slot
        if node.virtual:
            return _Stop(place, node.inputs[slot], wanted) if 0 <= slot < len(node.inputs) else None
        return Origin(place.id, slot)

    def _edge_link(self, place: Place, definition: Graph, slot: int) -> Link | None:
        """The link inside a subgraph that feeds one of its outputs."""
        edge = definition.outputs[slot] if 0 <= slot < len(definition.outputs) else None
        link = None if edge is None else next(definition.slot_links(edge), None)
        if edge is None or (link is not None and link.origin != SUBGRAPH_INPUT and link.origin not in definition.nodes):
            raise WorkflowFormatError(f"the saved workflow is damaged: output {slot} of the subgraph {place.id} leads nowhere")
        return link

    def _straight_through(self, place: Place, slot: int, wanted: str) -> _Stop | None:
        """A subgraph that hands an input on to an output."""
        inputs = place.node.inputs
        return _Stop(place, inputs[slot], wanted) if 0 <= slot < len(inputs) else None

    def _step(self, place: Place, side: str, what: int) -> None:
        self._count()
        key = (place.id, side, what)
        if key in self._seen:
            raise WorkflowFormatError(f"the input {self._start!r} leads in a circle, through node {place.id} ({place.node.kind})")
        self._seen.add(key)


def _handed_through(node: Node, slot: int, wanted: str) -> Socket | None:
    """Which input of a bypassed node stands for its output: the opposite one if it fits, else the first of that type, else any."""
    inputs: Sequence[Socket] = node.inputs
    if wanted in ("*", ""):
        return inputs[slot if 0 <= slot < len(inputs) else 0] if inputs else None
    given = node.outputs[slot] if 0 <= slot < len(node.outputs) else "*"
    fitting = [one for one in inputs if accepts(one.type, given) and accepts(one.type, wanted)]
    if 0 <= slot < len(inputs) and inputs[slot] in fitting:
        return inputs[slot]
    exact = next((one for one in inputs if one.type == wanted), None)
    return exact or next(iter(fitting), None)
