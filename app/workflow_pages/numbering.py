"""Makes ids unique as the page does before it builds the graph.

Of two links to one socket one stays; node ids that a subgraph shares with another graph become new ones, with every reference to them.
"""

from typing import Any

from app.workflow_pages.page_file import SavedGraph, SavedLink, SavedNode, SavedWorkflow


def mend_ids(workflow: SavedWorkflow) -> None:
    """Make every id of *workflow* unique where the page needs it; changes the records in place."""
    for graph in workflow.definitions:
        _keep_first_nodes(graph)
    for graph in [workflow.root, *workflow.definitions]:
        _keep_one_link_per_socket(graph)
        _keep_first_links(graph)
    numbers = _Numbers(workflow.root.last_node_id, {node.id for node in workflow.root.nodes})
    renamed = {graph.id: _renumber(graph, numbers) for graph in workflow.definitions}
    for graph in [workflow.root, *workflow.definitions]:
        for node in graph.nodes:
            if renamed.get(node.kind):
                node.properties["proxyWidgets"] = _renamed_proxies(node.properties.get("proxyWidgets"), renamed[node.kind])
    _renumber_root(workflow.root, numbers)


class _Numbers:
    """The ids in use in the whole file and the highest of them."""

    def __init__(self, last: int, used: set[str]) -> None:
        self._last = last
        self.used = used

    def take(self, node_id: str) -> None:
        self.used.add(node_id)
        self._see(node_id)

    def new(self) -> str:
        self._last += 1
        while str(self._last) in self.used:
            self._last += 1
        self.used.add(str(self._last))
        return str(self._last)

    def _see(self, node_id: str) -> None:
        if node_id.isascii() and node_id.isdigit() and len(node_id) < 16:
            self._last = max(self._last, int(node_id))


def _keep_first_nodes(graph: SavedGraph) -> None:
    first: dict[str, SavedNode] = {}
    for node in graph.nodes:
        first.setdefault(node.id, node)
    graph.nodes = list(first.values())


def _keep_first_links(graph: SavedGraph) -> None:
    first: dict[str, SavedLink] = {}
    for link in graph.links:
        first.setdefault(link.id, link)
    graph.links = list(first.values())


def _keep_one_link_per_socket(graph: SavedGraph) -> None:
    """Of links to one socket the first stays, unless only a later one is named by an input."""
    named = {socket.link for node in graph.nodes for socket in node.inputs}
    groups: dict[tuple[str, int], list[SavedLink]] = {}
    for link in graph.links:
        groups.setdefault((link.target, link.target_slot), []).append(link)
    instead: dict[str, str] = {}
    kept: set[int] = set()
    for links in groups.values():
        survivor = _survivor(links, named)
        kept.add(id(survivor))
        instead.update({link.id: survivor.id for link in links if link is not survivor})
    if instead:
        graph.links = [link for link in graph.links if id(link) in kept]
        _replace_link_ids(graph, instead)


def _survivor(links: list[SavedLink], named: set[str | None]) -> SavedLink:
    first = links[0]
    if first.id in named:
        return first
    others = (link for link in links if (link.origin, link.origin_slot) != (first.origin, first.origin_slot))
    return next((link for link in others if link.id in named), first)


def _replace_link_ids(graph: SavedGraph, instead: dict[str, str]) -> None:
    for node in graph.nodes:
        for socket in node.inputs:
            if socket.link is not None:
                socket.link = instead.get(socket.link, socket.link)
    for slot in [*graph.inputs, *graph.outputs]:
        slot.link_ids = list(dict.fromkeys(instead.get(link_id, link_id) for link_id in slot.link_ids))


def _renumber(graph: SavedGraph, numbers: _Numbers) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        if node.id in numbers.used:
            renamed[node.id] = numbers.new()
            node.id = renamed[node.id]
        else:
            numbers.take(node.id)
    for link in graph.links:
        link.origin, link.target = renamed.get(link.origin, link.origin), renamed.get(link.target, link.target)
    return renamed


def _renumber_root(root: SavedGraph, numbers: _Numbers) -> None:
    """A root node whose id an earlier one has gets a new one; links cannot tell which was meant and stay with the first."""
    seen: set[str] = set()
    for node in root.nodes:
        if node.id in seen:
            node.id = numbers.new()
        else:
            numbers.take(node.id)
        seen.add(node.id)


def _renamed_proxies(entries: Any, renamed: dict[str, str]) -> Any:
    if not isinstance(entries, list):
        return entries
    return [[renamed.get(str(one[0]), one[0]), *one[1:]] if isinstance(one, list) and one else one for one in entries]
