"""A saved workflow's JSON as checked records: nodes, links, subgraph definitions. Both of the page's formats, 0.4 and 1, are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.workflow_pages.errors import WorkflowFormatError

MOST_ENTRIES = 100_000
"""More nodes or links than this in one file are refused."""
MOST_PROXIES = 2_000
"""More widgets shown on subgraphs by ``proxyWidgets`` are refused."""
MOST_SOCKETS = 2_000
"""More inputs than this of one node are refused."""


@dataclass(slots=True)
class SavedSocket:
    """One input of a saved node; *widget* names the widget it belongs to."""

    name: str
    type: str
    link: str | None = None
    widget: str | None = None
    label: str | None = None


@dataclass(slots=True)
class SavedNode:
    """One node; *values* is the positional list, or for some packs a mapping by name."""

    id: str
    kind: str
    mode: int = 0
    title: str | None = None
    inputs: list[SavedSocket] = field(default_factory=list)
    output_types: list[str] = field(default_factory=list)
    values: list[Any] | dict[str, Any] | None = None
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class SavedLink:
    """One link of a graph; origin -10 and target -20 are the subgraph's own edge."""

    id: str
    origin: str
    origin_slot: int
    target: str
    target_slot: int


@dataclass(slots=True)
class SavedSlot:
    """One input or output of a subgraph."""

    name: str
    type: str
    link_ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class SavedGraph:
    """The root (its id is empty) or one subgraph definition."""

    id: str
    nodes: list[SavedNode]
    links: list[SavedLink]
    inputs: list[SavedSlot] = field(default_factory=list)
    outputs: list[SavedSlot] = field(default_factory=list)
    last_node_id: int = 0


@dataclass(slots=True)
class SavedWorkflow:
    """A whole file: the root graph and every subgraph definition, nested ones too, in the order of the file."""

    root: SavedGraph
    definitions: list[SavedGraph]


def read_workflow(document: Mapping[str, Any]) -> SavedWorkflow:
    """Check and read *document*. Raises ``WorkflowFormatError`` that names the entry at fault."""
    root = _graph(document, "workflow", "")
    definitions: list[SavedGraph] = []
    _collect_definitions(document, "workflow", definitions)
    count = sum(len(graph.nodes) + len(graph.links) for graph in [root, *definitions])
    if count > MOST_ENTRIES:
        raise WorkflowFormatError(f"the saved workflow has {count} nodes and links; more than {MOST_ENTRIES} are not read")
    proxies = sum(
        len(node.properties["proxyWidgets"])
        for graph in [root, *definitions]
        for node in graph.nodes
        if isinstance(node.properties.get("proxyWidgets"), list)
    )
    if proxies > MOST_PROXIES:
        raise WorkflowFormatError(
            f"the saved workflow shows {proxies} inner widgets on its subgraphs; more than {MOST_PROXIES} are not read"
        )
    return SavedWorkflow(root, definitions)


def _collect_definitions(document: Mapping[str, Any], where: str, into: list[SavedGraph]) -> None:
    waiting = [(document, where)]
    while waiting:
        holder, place = waiting.pop(0)
        section = holder.get("definitions")
        if section is None:
            continue
        for index, entry in enumerate(_list(_mapping(section, f"{place}.definitions").get("subgraphs"), f"{place}.definitions.subgraphs")):
            at = f"{place}.definitions.subgraphs[{index}]"
            graph = _graph(_mapping(entry, at), at, _id(entry.get("id"), f"{at}.id"))
            if all(graph.id != known.id for known in into):
                into.append(graph)
            waiting.append((entry, at))


def _graph(entry: Mapping[str, Any], at: str, graph_id: str) -> SavedGraph:
    nodes = [_node(one, f"{at}.nodes[{index}]") for index, one in enumerate(_list(entry.get("nodes"), f"{at}.nodes"))]
    links = [_link(one, f"{at}.links[{index}]") for index, one in enumerate(_list(entry.get("links"), f"{at}.links")) if one is not None]
    inputs = [_slot(one, f"{at}.inputs[{index}]") for index, one in enumerate(_list(entry.get("inputs"), f"{at}.inputs"))]
    outputs = [_slot(one, f"{at}.outputs[{index}]") for index, one in enumerate(_list(entry.get("outputs"), f"{at}.outputs"))]
    return SavedGraph(graph_id, nodes, links, inputs, outputs, _last_node_id(entry))


def _last_node_id(entry: Mapping[str, Any]) -> int:
    state = entry.get("state")
    last = state.get("lastNodeId") if isinstance(state, dict) else entry.get("last_node_id")
    return last if isinstance(last, int) and not isinstance(last, bool) and last >= 0 else 0


def _node(entry: Any, at: str) -> SavedNode:
    entry = _mapping(entry, at)
    kind = entry.get("type")
    if not isinstance(kind, str):
        raise WorkflowFormatError(f"the saved workflow is damaged: {at}.type is {_named(kind)}, not the name of a node class")
    mode, title, properties = entry.get("mode"), entry.get("title"), entry.get("properties")
    values = entry.get("widgets_values")
    if values is not None and not isinstance(values, list | dict):
        raise WorkflowFormatError(f"the saved workflow is damaged: {at}.widgets_values is {_named(values)}, not a list")
    if len(_list(entry.get("inputs"), f"{at}.inputs")) > MOST_SOCKETS:
        raise WorkflowFormatError(f"the saved workflow is damaged: {at} has more than {MOST_SOCKETS} inputs")
    inputs = [_socket(one, f"{at}.inputs[{index}]") for index, one in enumerate(_list(entry.get("inputs"), f"{at}.inputs"))]
    outputs = [
        _type(_mapping(one, f"{at}.outputs[{index}]").get("type")) for index, one in enumerate(_list(entry.get("outputs"), f"{at}.outputs"))
    ]
    return SavedNode(
        _id(entry.get("id"), f"{at}.id"),
        kind,
        mode if isinstance(mode, int) else 0,
        title if isinstance(title, str) else None,
        inputs,
        outputs,
        values,
        dict(properties) if isinstance(properties, dict) else {},
    )


def _socket(entry: Any, at: str) -> SavedSocket:
    entry = _mapping(entry, at)
    name, widget, label = entry.get("name"), entry.get("widget"), entry.get("label")
    widget_name = widget.get("name") if isinstance(widget, dict) else None
    link = entry.get("link")
    return SavedSocket(
        name if isinstance(name, str) else "",
        _type(entry.get("type")),
        None if link is None else _id(link, f"{at}.link"),
        widget_name if isinstance(widget_name, str) else None,
        label if isinstance(label, str) else None,
    )


def _slot(entry: Any, at: str) -> SavedSlot:
    entry = _mapping(entry, at)
    name = entry.get("name")
    if not isinstance(name, str):
        raise WorkflowFormatError(f"the saved workflow is damaged: {at}.name is {_named(name)}, not a text")
    ids = [_id(one, f"{at}.linkIds[{index}]") for index, one in enumerate(_list(entry.get("linkIds"), f"{at}.linkIds"))]
    return SavedSlot(name, _type(entry.get("type")), ids)


def _link(entry: Any, at: str) -> SavedLink:
    if isinstance(entry, list):
        if len(entry) < 5:
            raise WorkflowFormatError(f"the saved workflow is damaged: {at} has {len(entry)} entries instead of 6")
        fields = dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot"), entry))
    else:
        fields = dict(_mapping(entry, at))
    return SavedLink(
        _id(fields.get("id"), f"{at} (id)"),
        _id(fields.get("origin_id"), f"{at} (origin)"),
        _slot_number(fields.get("origin_slot"), f"{at} (origin slot)"),
        _id(fields.get("target_id"), f"{at} (target)"),
        _slot_number(fields.get("target_slot"), f"{at} (target slot)"),
    )


def _mapping(entry: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise WorkflowFormatError(f"the saved workflow is damaged: {at} is {_named(entry)}, not an object")
    return entry


def _list(entry: Any, at: str) -> list[Any]:
    if entry is None:
        return []
    if not isinstance(entry, list):
        raise WorkflowFormatError(f"the saved workflow is damaged: {at} is {_named(entry)}, not a list")
    return entry


def _id(entry: Any, at: str) -> str:
    if isinstance(entry, float) and entry.is_integer():
        return str(int(entry))
    if isinstance(entry, bool) or not isinstance(entry, int | str) or entry == "":
        raise WorkflowFormatError(f"the saved workflow is damaged: {at} is {_named(entry)}, not a number or a name")
    return str(entry)


def _slot_number(entry: Any, at: str) -> int:
    if isinstance(entry, str) and entry.isascii() and entry.isdigit() and len(entry) < 10:
        return int(entry)
    if isinstance(entry, bool) or not isinstance(entry, int | float) or entry != entry or abs(entry) > 1e9:
        raise WorkflowFormatError(f"the saved workflow is damaged: {at} is {_named(entry)}, not the number of a slot")
    return int(entry)


def _type(entry: Any) -> str:
    """A socket's type as text; what JavaScript takes for false accepts everything."""
    if isinstance(entry, list):
        return ",".join(str(one) for one in entry)
    return str(entry) if entry else "*"


def _named(entry: Any) -> str:
    text = "missing" if entry is None else repr(entry)
    return text if len(text) < 60 else f"{text[:57]}..."
