"""Builds the whole graph from the file's records, in the page's order: subgraph definitions from the inside out, then the root."""

from collections.abc import Callable, Mapping
from typing import Any

from app.workflow_pages.errors import WorkflowFormatError
from app.workflow_pages.graph import Graph, Link, Node, Slot
from app.workflow_pages.link_alignment import align_links, place_links
from app.workflow_pages.node_building import build_node, fill_node
from app.workflow_pages.page_file import SavedGraph, SavedNode, SavedWorkflow
from app.workflow_pages.proxy_widgets import apply_proxy_widgets
from app.workflow_pages.subgraph_instances import build_instance

NodeInfo = Callable[[str], Mapping[str, Any] | None]
_GROUP_PREFIXES = ("workflow>", "workflow/")


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
    incoming: dict[str, dict[str, Link]] = {}
    for link in graph.links.values():
        incoming.setdefault(link.target, {})[link.id] = link
    for entry in saved.nodes:
        graph.nodes[entry.id] = _node(entry, definitions, node_info, incoming.get(entry.id, {}))
    for node in graph.nodes.values():
        align_links(node, incoming.get(node.id, {}), node.saved.inputs)
    edge = {link_id for slot in graph.outputs for link_id in slot.link_ids}
    graph.links = {key: link for key, link in graph.links.items() if link.socket is not None or (key in edge and not link.removed)}
    for node in list(graph.nodes.values()):
        if node.definition is not None:
            apply_proxy_widgets(node)
    return graph


def _node(saved: SavedNode, definitions: Mapping[str, Graph], node_info: NodeInfo, incoming: Mapping[str, Link]) -> Node:
    if saved.kind in definitions:
        node = build_instance(saved, definitions[saved.kind])
        place_links(node, incoming.values())
        return node
    info = node_info(saved.kind)
    if info is None and saved.kind.startswith(_GROUP_PREFIXES):
        raise WorkflowFormatError(
            f"node {saved.id} ({saved.kind}) is a group node of an older page; open the workflow in the page, which "
            "makes a subgraph of it, and save it again"
        )
    node = build_node(saved, info)
    fill_node(node, info, incoming)
    return node
