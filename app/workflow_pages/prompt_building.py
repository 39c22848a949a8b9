"""Builds the prompt from the loaded graphs: every node that runs, with its values and the origins of its links."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from app.workflow_pages import custom_combo
from app.workflow_pages.errors import WorkflowFormatError
from app.workflow_pages.graph import Graph, Node, Socket, Widget
from app.workflow_pages.texts import Choose, Replacements, resolve_choices
from app.workflow_pages.tracing import Origin, Place, Tracer
from app.workflow_pages.values import UNSET, as_input

MOST_NODES: Final = 50_000
"""Subgraphs within subgraphs can multiply; a prompt of more nodes is refused."""

SAVERS: Final = frozenset(
    {
        "SaveImage",
        "SaveImageAdvanced",
        "SaveSVGNode",
        "SaveVideo",
        "SaveAnimatedWEBP",
        "SaveWEBM",
        "SaveAudio",
        "SaveAudioMP3",
        "SaveAudioOpus",
        "SaveAudioAdvanced",
        "SaveGLB",
        "Save3DAdvanced",
        "SaveGaussianSplat",
        "SavePointCloud",
        "SaveAnimatedPNG",
        "CLIPSave",
        "VAESave",
        "ModelSave",
        "LoraSave",
        "SaveLatent",
    }
)
"""The classes whose ``filename_prefix`` may name other nodes' values and the time."""


def build_prompt(root: Graph, replacements: Replacements, choose: Choose) -> dict[str, Any]:
    """The prompt for the graph *root*."""
    prompt: dict[str, Any] = {}
    sender = _Sender(replacements, choose, Tracer())
    for place in _places(root):
        node = place.node
        if not node.virtual and not node.silent:
            prompt[place.id] = {"inputs": _inputs(place, sender), "class_type": node.kind, "_meta": {"title": node.title}}
            if len(prompt) > MOST_NODES:
                raise WorkflowFormatError(f"the workflow becomes more than {MOST_NODES} nodes; does a subgraph hold too many of others?")
    for entry in prompt.values():
        entry["inputs"] = {name: value for name, value in entry["inputs"].items() if not isinstance(value, list) or value[0] in prompt}
    return prompt


def _places(root: Graph) -> Iterator[Place]:
    """Every node of the root and, unless the instance there is muted or bypassed, of its subgraphs, at every depth."""
    waiting = [Place(node, (root,)) for node in reversed(root.nodes.values())]
    seen = 0
    while waiting:
        place = waiting.pop()
        seen += 1
        if seen > 2 * MOST_NODES:
            raise WorkflowFormatError(f"the workflow's subgraphs become more than {2 * MOST_NODES} nodes")
        yield place
        node = place.node
        if node.definition is not None and (place.hosts or not node.silent):
            waiting += [
                Place(inner, (*place.graphs, node.definition), (*place.hosts, node)) for inner in reversed(node.definition.nodes.values())
            ]


@dataclass(frozen=True, slots=True)
class _Sender:
    """Makes the inputs of all nodes of one prompt."""

    replacements: Replacements
    choose: Choose
    tracer: Tracer


def _inputs(place: Place, sender: _Sender) -> dict[str, Any]:
    node = place.node
    inputs: dict[str, Any] = {}
    for widget in node.widgets:
        if widget.sent and widget.name:
            inputs[widget.name] = _sent(place, widget, sender)
    for socket in node.inputs:
        origin = sender.tracer.origin(place, socket)
        if origin is not None:
            inputs[socket.name] = _linked(origin)
    return {name: value for name, value in inputs.items() if value is not UNSET}


def _linked(origin: Origin) -> Any:
    if origin.node_id is not None:
        return [origin.node_id, origin.slot]
    return UNSET if origin.value is UNSET else as_input(origin.value)


def _sent(place: Place, widget: Widget, sender: _Sender) -> Any:
    node, value = place.node, widget.value
    if node.kind == "CustomCombo" and widget.name == custom_combo.INDEX:
        return custom_combo.chosen_index(node, _promoted_or_own(place, node.widgets[0], sender.tracer))
    if value is UNSET:
        return UNSET
    if widget.name == "filename_prefix" and node.kind in SAVERS and isinstance(value, str):
        value = sender.replacements.apply(value)
    elif widget.spec is not None and widget.spec.options.get("dynamicPrompts") is True and widget.kind in ("customtext", "text"):
        value = resolve_choices(value, sender.choose) if isinstance(value, str) else value
    if widget.kind == "curve" and value is not None:
        return {"__type__": "CURVE", "__value__": as_input({"value": value})["value"]}
    return as_input(value)


def _promoted_or_own(place: Place, widget: Widget, tracer: Tracer) -> Any:
    socket: Socket | None = place.node.socket_of(widget)
    origin = None if socket is None else tracer.origin(place, socket)
    return widget.value if origin is None or origin.node_id is not None else origin.value


def nodes_of(graphs: list[Graph]) -> Iterator[Node]:
    """Every node of *graphs*, the root's first."""
    for graph in reversed(graphs):
        yield from graph.nodes.values()
