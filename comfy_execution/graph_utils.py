"""Links, graph expansion and blocked values: what node authors build subgraphs with."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any


class ExecutionBlocker:
    """Returned in place of a value, it stops every node that depends on the value.

    With a *message*, the user is shown it at the first node stopped; with None the nodes are skipped silently.
    """

    def __init__(self, message: str | None) -> None:
        self.message = message


def is_link(obj: Any) -> bool:
    """Whether *obj* refers to a node's output: ``[node id, output number]``."""
    return isinstance(obj, list) and len(obj) == 2 and isinstance(obj[0], str) and isinstance(obj[1], int | float)


_default_prefix: ContextVar[tuple[str, int, int]] = ContextVar("graph_prefix", default=("", 0, 0))


class GraphBuilder:
    """Collects the nodes of an expansion. Ids get a prefix, by default one that is unique to the running call."""

    def __init__(self, prefix: str | None = None) -> None:
        self.prefix = GraphBuilder.alloc_prefix() if prefix is None else prefix
        self.nodes: dict[str, Node] = {}
        self.id_gen = 1

    @classmethod
    def set_default_prefix(cls, prefix_root: str, call_index: int, graph_index: int = 0) -> None:
        """Set the prefix of builders made from now on in this context: ``<root>.<call>.<graph>.``"""
        _default_prefix.set((prefix_root, call_index, graph_index))

    @classmethod
    def alloc_prefix(cls, root: str | None = None, call_index: int | None = None, graph_index: int | None = None) -> str:
        """A prefix from the parts given, the others taken from the context; each call advances the context's graph number."""
        default_root, default_call, default_graph = _default_prefix.get()
        parts = (
            default_root if root is None else root,
            default_call if call_index is None else call_index,
            default_graph if graph_index is None else graph_index,
        )
        _default_prefix.set((default_root, default_call, default_graph + 1))
        return "".join(f"{part}." for part in parts)

    def node(self, class_type: str, id: str | int | None = None, **kwargs: Any) -> "Node":
        """Add a node of *class_type* with inputs *kwargs* (values or ``node.out(i)``); an id already used returns that node."""
        if id is None:
            id = self.id_gen
            self.id_gen += 1
        full_id = f"{self.prefix}{id}"
        if full_id not in self.nodes:
            self.nodes[full_id] = Node(full_id, class_type, kwargs)
        return self.nodes[full_id]

    def lookup_node(self, id: str | int) -> "Node | None":
        """The node added under *id* (without the prefix), or None."""
        return self.nodes.get(f"{self.prefix}{id}")

    def finalize(self) -> dict[str, dict[str, Any]]:
        """The graph as an ``expand`` result takes it."""
        return {node_id: node.serialize() for node_id, node in self.nodes.items()}

    def replace_node_output(self, node_id: str | int, index: int, new_value: Any) -> None:
        """Put *new_value* wherever output *index* of *node_id* is used; None removes those inputs."""
        old = [f"{self.prefix}{node_id}", index]
        for node in self.nodes.values():
            for name in [name for name, value in node.inputs.items() if is_link(value) and value == old]:
                node.set_input(name, new_value)

    def remove_node(self, id: str | int) -> None:
        """Drop the node added under *id*."""
        del self.nodes[f"{self.prefix}{id}"]


class Node:
    """One node of a ``GraphBuilder``."""

    def __init__(self, id: str, class_type: str, inputs: Mapping[str, Any]) -> None:
        self.id = id
        self.class_type = class_type
        self.inputs = dict(inputs)
        self.override_display_id: str | None = None

    def out(self, index: int) -> list[Any]:
        """A link to output *index*."""
        return [self.id, index]

    def set_input(self, key: str, value: Any) -> None:
        """Set an input; None removes it."""
        if value is None:
            self.inputs.pop(key, None)
        else:
            self.inputs[key] = value

    def get_input(self, key: str) -> Any:
        """An input's value or link, None when it is not set."""
        return self.inputs.get(key)

    def set_override_display_id(self, override_display_id: str) -> None:
        """Let messages about this node name another node."""
        self.override_display_id = override_display_id

    def serialize(self) -> dict[str, Any]:
        """The node in the prompt's format."""
        document: dict[str, Any] = {"class_type": self.class_type, "inputs": self.inputs}
        if self.override_display_id is not None:
            document["override_display_id"] = self.override_display_id
        return document


def add_graph_prefix(graph: Mapping[str, Mapping[str, Any]], outputs: Any, prefix: str) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """A copy of *graph* with *prefix* before every id, links included, and *outputs* with their links changed the same way."""

    def renamed(value: Any) -> Any:
        return [prefix + value[0], value[1]] if is_link(value) else value

    changed = {}
    for node_id, node in graph.items():
        inputs = {name: renamed(value) for name, value in node.get("inputs", {}).items()}
        changed[prefix + node_id] = {"class_type": node["class_type"], "inputs": inputs}
    return changed, tuple(renamed(output) for output in outputs)
