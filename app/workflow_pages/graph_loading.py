"""From the file's records to the whole graph, in the page's order: subgraph definitions from the inside out, then the root."""

from collections.abc import Callable, Mapping
from typing import Any

from app.workflow_pages.errors import WorkflowFormatError
from app.workflow_pages.graph import Graph, Link, Node, Slot
from app.workflow_pages.node_building import build_node, fill_node
from app.workflow_pages.page_file import SavedGraph, SavedWorkflow
from app.workflow_pages.proxy_widgets import apply_proxy_widgets
from app.workflow_pages.subgraph_instances import build_instance

NodeInfo = Callable[[str], Mapping[str, Any] | None]


def load_graphs(workflow: SavedWorkflow, node_info: NodeInfo) -> list[Graph]:
    """Every graph of *workflow*, the root last. Raises ``WorkflowFormatError`` when a subgraph contains itself."""
    definitions: dict[str, Graph] = {}
    for saved in _inside_out(workflow.definitions):
        definitions[saved.id] = _load(saved, definitions, node_info)
    return [*definitions.values(), _load(workflow.root, definitions, node_info)]


def _inside_out(definitions: list[SavedGraph]) -> list[SavedGraph]:
    known = {graph.id for graph in definitions}
    needs = {graph.id: {node.kind for node in graph.nodes} & known for graph in definitions}
    ordered: list[SavedGraph] = []
    done: set[str] = set()
    waiting = list(definitions)
    while waiting:
        ready = [graph for graph in waiting if needs[graph.id] <= done]
        if not ready:
            raise WorkflowFormatError(f"the subgraph {waiting[0].id!r} contains itself")
        ordered += ready
        done |= {graph.id for graph in ready}
        waiting = [graph for graph in waiting if graph.id not in done]
    return ordered


def _load(saved: SavedGraph, definitions: Mapping[str, Graph], node_info: NodeInfo) -> Graph:
    graph = Graph(saved.id)
    graph.inputs = [Slot(one.name, one.type, list(one.link_ids)) for one in saved.inputs]
    graph.outputs = [Slot(one.name, one.type, list(one.link_ids)) for one in saved.outputs]
    graph.links = {one.id: Link(one.id, one.origin, one.origin_slot, one.target, one.target_slot) for one in saved.links}
    for entry in saved.nodes:
        if entry.kind in definitions:
            graph.nodes[entry.id] = build_instance(entry, definitions[entry.kind])
        else:
            info = node_info(entry.kind)
            graph.nodes[entry.id] = build_node(entry, info)
            fill_node(graph.nodes[entry.id], info)
    _attach_links(graph)
    for node in list(graph.nodes.values()):
        if node.definition is not None:
            apply_proxy_widgets(node)
    return graph


def _attach_links(graph: Graph) -> None:
    """Lead each link to the socket whose name the file's own layout gives it; only a link that no input names goes by its number."""
    incoming: dict[str, dict[str, Link]] = {}
    for link in graph.links.values():
        incoming.setdefault(link.target, {})[link.id] = link
    unnamed: list[tuple[Link, Node]] = []
    for node_id, links in incoming.items():
        if node_id in graph.nodes:
            unnamed += _attach_named(graph.nodes[node_id], links)
    for link, node in unnamed:
        socket = node.inputs[link.target_slot] if 0 <= link.target_slot < len(node.inputs) else None
        if socket is not None and socket.link is None:
            socket.link, link.socket = link, socket
    edge = {link_id for slot in graph.outputs for link_id in slot.link_ids}
    graph.links = {key: link for key, link in graph.links.items() if link.socket is not None or key in edge}


def _attach_named(node: Node, incoming: Mapping[str, Link]) -> list[tuple[Link, Node]]:
    """Attach the links that saved inputs name; the rest is returned, without those of choices that are no longer made."""
    groups = tuple(f"{widget.name}." for widget in node.widgets if widget.changed is not None)
    names: dict[str, list[str]] = {}
    for saved in node.saved.inputs:
        if saved.link in incoming:
            names.setdefault(saved.link, []).append(saved.name)
    rest: list[tuple[Link, Node]] = []
    for link_id, link in incoming.items():
        wanted = names.get(link_id, [])
        fitting = [(index, one) for index, one in enumerate(node.inputs) if one.name in wanted and one.link is None]
        chosen = next((one for index, one in fitting if index == link.target_slot), fitting[0][1] if fitting else None)
        if chosen is not None:
            chosen.link, link.socket = link, chosen
        elif not any(name.startswith(groups) for name in wanted):
            rest.append((link, node))
    return rest
