"""Makes the repairs that the page makes once every graph is complete: sockets without their widget, empty lists, old sampler names."""

import itertools

from app.workflow_pages.graph import Graph, Node
from app.workflow_pages.values import is_missing
from app.workflow_pages.viewports import VIEWPORT_CLASSES, fit_view


def finish(graph: Graph) -> None:
    """Mend every node of *graph* in place."""
    for node in graph.nodes.values():
        if node.known and not node.virtual:
            _remove_orphans(graph, node)
            _rename_repeated(node)
        if node.kind in VIEWPORT_CLASSES and (view := node.widget("viewport_state")) is not None and isinstance(view.value, dict):
            fit_view(view.value, *(one.value if (one := node.widget(name)) is not None else None for name in ("width", "height")))
        for widget in node.all_widgets():
            if widget.name == "sampler_name" and node.kind in ("KSampler", "KSamplerAdvanced") and isinstance(widget.value, str):
                widget.put(widget.value.removeprefix("sample_"))
            if widget.kind == "combo" and widget.choices and is_missing(widget.value):
                widget.put(widget.choices[0])


def _remove_orphans(graph: Graph, node: Node) -> None:
    """Drop sockets that belong to a widget the node does not have. Like the page, it skips the socket after each one that it drops."""
    index = 0
    while index < len(node.inputs):
        socket = node.inputs[index]
        if socket.widget is not None and node.widget(socket.widget) is None:
            del node.inputs[index]
            if socket.link is not None:
                graph.drop(socket.link)
        index += 1


def _rename_repeated(node: Node) -> None:
    """Add a number to the name of the second widget that has it."""
    reserved = {widget.name for widget in node.widgets}
    used: set[str] = set()
    for widget in node.widgets:
        if widget.name in used:
            number = next(count for count in itertools.count(1) if f"{widget.name}#{count}" not in reserved)
            widget.name = f"{widget.name}#{number}"
            reserved.add(widget.name)
        used.add(widget.name)
