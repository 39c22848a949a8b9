"""Turning a workflow as the page saves it (nodes, links, widget values) into the prompt that the executor runs.

What the page drops is dropped here too: muted nodes, notes and reroutes; bypassed nodes hand their inputs through; subgraphs become
their inner nodes under ids ``instance:inner``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MUTED, BYPASSED = 2, 4
SUBGRAPH_INPUT, SUBGRAPH_OUTPUT = -10, -20
PAGE_ONLY_TYPES = frozenset({"Reroute", "PrimitiveNode", "Note", "MarkdownNote"})
WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR"})
UPLOAD_OPTIONS = ("image_upload", "video_upload", "audio_upload", "file_upload", "mesh_upload")
SEED_CONTROLS = frozenset({"fixed", "increment", "decrement", "randomize"})

NodeInfo = Callable[[str], Mapping[str, Any] | None]
Source = list[Any]


class WorkflowFormatError(ValueError):
    """The file is neither a saved workflow nor a prompt; the message says what is off."""


@dataclass(frozen=True, slots=True)
class _Literal:
    """A value that stands where a link could: a primitive node's."""

    value: Any


@dataclass(slots=True)
class _Scope:
    """One graph: the whole workflow, or the inside of one subgraph instance."""

    nodes: dict[Any, dict[str, Any]]
    links: dict[Any, tuple[Any, int, Any, int]]
    prefix: str = ""
    outer: "_Scope | None" = None
    instance: dict[str, Any] = field(default_factory=dict)


def is_prompt(document: Any) -> bool:
    """Whether *document* already is in the executor's format: ids mapped to nodes with a ``class_type``."""
    return (
        isinstance(document, dict) and bool(document) and all(isinstance(node, dict) and "class_type" in node for node in document.values())
    )


def to_prompt(document: Any, node_info: NodeInfo) -> dict[str, Any]:
    """The prompt for *document*, a prompt already or a workflow saved by the page.

    *node_info* gives a class's ``/object_info`` entry, or None for an unknown class, whose nodes keep their links only, so that
    validation can name them. Raises ``WorkflowFormatError``.
    """
    if isinstance(document, dict) and isinstance(document.get("prompt"), dict) and is_prompt(document["prompt"]):
        document = document["prompt"]
    if is_prompt(document):
        return dict(document)
    if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
        raise WorkflowFormatError(
            "neither a saved workflow (an object with 'nodes') nor a prompt (ids mapped to objects with "
            "'class_type'); save it from the page with Export or Export (API)"
        )
    try:
        return _Converter(document, node_info).prompt()
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise WorkflowFormatError(f"the saved workflow is damaged: {type(error).__name__}: {error}") from error


class _Converter:
    def __init__(self, document: dict[str, Any], node_info: NodeInfo) -> None:
        self._node_info = node_info
        self._subgraphs = {graph["id"]: graph for graph in (document.get("definitions") or {}).get("subgraphs", [])}
        self._root = _scope(document)

    def prompt(self) -> dict[str, Any]:
        return {prompt_id: node for scope in self._scopes() for prompt_id, node in self._scope_nodes(scope)}

    def _scopes(self) -> Iterator[_Scope]:
        """The root and, below it, the inside of every live subgraph instance."""
        waiting = [(self._root, frozenset[str]())]
        while waiting:
            scope, around = waiting.pop()
            yield scope
            for node in scope.nodes.values():
                kind = node["type"]
                if kind in self._subgraphs and node.get("mode", 0) not in (MUTED, BYPASSED):
                    if kind in around:
                        raise WorkflowFormatError(f"subgraph {kind!r} contains itself")
                    waiting.append((self._inside(scope, node), around | {kind}))

    def _inside(self, scope: _Scope, instance: dict[str, Any]) -> _Scope:
        return _scope(self._subgraphs[instance["type"]], f"{scope.prefix}{instance['id']}:", scope, instance)

    def _scope_nodes(self, scope: _Scope) -> Iterator[tuple[str, dict[str, Any]]]:
        for node in scope.nodes.values():
            kind = node["type"]
            if kind in PAGE_ONLY_TYPES or kind in self._subgraphs or node.get("mode", 0) in (MUTED, BYPASSED):
                continue
            inputs = self._widget_values(node)
            for socket in node.get("inputs") or ():
                if socket.get("link") is not None:
                    source = self._source(scope, socket["link"])
                    if isinstance(source, _Literal):
                        inputs[socket["name"]] = source.value
                    elif source is not None:
                        inputs[socket["name"]] = source
                    elif not socket.get("widget"):
                        inputs.pop(socket["name"], None)
            title = node.get("title") or kind
            yield f"{scope.prefix}{node['id']}", {"inputs": inputs, "class_type": kind, "_meta": {"title": title}}

    def _source(self, scope: _Scope, link_id: Any) -> Source | _Literal | None:
        """Where a link's value really comes from: ``[node id, output]``, a literal, or nothing."""
        seen = 0
        at: tuple[_Scope, Any] | None = (scope, link_id)
        while at is not None:
            seen += 1
            if seen > 10_000:
                raise WorkflowFormatError(f"link {link_id} leads in a circle")
            here, current = at
            if current is None or current not in here.links:
                return None
            origin, slot = here.links[current][:2]
            if origin == SUBGRAPH_INPUT and here.outer is not None:
                sockets = here.instance.get("inputs") or []
                at = (here.outer, sockets[slot].get("link")) if slot < len(sockets) else None
                continue
            node = here.nodes[origin]
            mode, kind = node.get("mode", 0), node["type"]
            if mode == MUTED:
                return None
            if kind == "PrimitiveNode":
                return _Literal((node.get("widgets_values") or [None])[0])
            if kind == "Reroute" or mode == BYPASSED:
                at = (here, _handed_through(node, slot))
            elif kind in self._subgraphs:
                inner = self._inside(here, node)
                at = (inner, next((key for key, link in inner.links.items() if link[2:] == (SUBGRAPH_OUTPUT, slot)), None))
            else:
                return [f"{here.prefix}{node['id']}", slot]
        return None

    def _widget_values(self, node: dict[str, Any]) -> dict[str, Any]:
        values = node.get("widgets_values") or []
        info = self._node_info(node["type"])
        if info is None:
            return {}
        if isinstance(values, dict):
            return {name: values[name] for name, _, _ in _widgets(info.get("input", {})) if name in values}
        result: dict[str, Any] = {}
        _take_values(info.get("input", {}), list(values), result, "")
        return result


def _scope(graph: dict[str, Any], prefix: str = "", outer: _Scope | None = None, instance: dict[str, Any] | None = None) -> _Scope:
    links: dict[Any, tuple[Any, int, Any, int]] = {}
    for link in graph.get("links") or ():
        if isinstance(link, dict):
            links[link["id"]] = (link["origin_id"], link["origin_slot"], link["target_id"], link["target_slot"])
        else:
            links[link[0]] = (link[1], link[2], link[3], link[4])
    return _Scope({node["id"]: node for node in graph["nodes"]}, links, prefix, outer, instance or {})


def _handed_through(node: dict[str, Any], slot: int) -> Any:
    """The link that feeds output *slot* when the node does nothing: of the same place if its type fits, else the first that fits."""
    outputs, inputs = node.get("outputs") or [], node.get("inputs") or []
    wanted = outputs[slot].get("type") if slot < len(outputs) else "*"
    ordered = ([inputs[slot]] if slot < len(inputs) else []) + inputs
    fitting = (socket for socket in ordered if wanted in ("*", socket.get("type")) or socket.get("type") == "*")
    chosen = next(fitting, None)
    return None if chosen is None else chosen.get("link")


def _widgets(inputs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """(name, type, options) of every input that the page shows as a widget, in its order."""
    for section in ("required", "optional"):
        for name, spec in (inputs.get(section) or {}).items():
            kind = spec[0]
            options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
            is_widget = (
                isinstance(kind, list | tuple)
                or options.get("widgetType") in WIDGET_TYPES
                or kind == "COMFY_DYNAMICCOMBO_V3"
                or (isinstance(kind, str) and kind.split(",", 1)[0] in WIDGET_TYPES)
            )
            if is_widget and not options.get("forceInput"):
                yield name, kind, options


def _take_values(inputs: Mapping[str, Any], values: list[Any], result: dict[str, Any], prefix: str) -> None:
    """Move *values* from the front into *result* by widget name, passing over what only the page uses."""
    for name, kind, options in _widgets(inputs):
        if not values:
            return
        value = result[prefix + name] = values.pop(0)
        if values and isinstance(values[0], str):
            has_control = options.get("control_after_generate") or name in ("seed", "noise_seed")
            has_button = any(options.get(option) for option in UPLOAD_OPTIONS) and values[0] in ("image", "video", "audio", "file")
            if (has_control and values[0] in SEED_CONTROLS) or has_button:
                values.pop(0)
        if kind == "COMFY_DYNAMICCOMBO_V3":
            chosen = next((option for option in options.get("options", ()) if option["key"] == value), None)
            if chosen is not None:
                _take_values(chosen["inputs"], values, result, f"{prefix}{name}.")
