"""Which nodes of a graph wait for which, kept up to date while links are added and nodes finish."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

from comfy_execution.graph_utils import is_link
from comfy_execution.nodes_graph.declared_inputs import DeclaredInputs
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt, NodeNotFoundError
from comfy_execution.nodes_graph.registered_classes import Classes, registered_classes


class NodeInputError(Exception):
    """An input that is missing or is not a link."""


class TopologicalSort:
    """Which nodes wait for which; a node is ready when it waits for none.

    ``pendingNodes``, ``blockCount`` (how many a node waits for) and ``blocking`` (who waits for it, by output) may be read by others.
    Nothing recurses, and a link costs the same however large the graph is. Used by the coroutine that runs the prompt only.
    """

    def __init__(self, dynprompt: DynamicPrompt, *, classes: Classes = registered_classes) -> None:
        """*classes* gives the node classes by type, and is asked each time, as packs may replace them."""
        self.dynprompt = dynprompt
        self.pendingNodes: dict[str, bool] = {}
        self.blockCount: dict[str, int] = {}
        self.blocking: dict[str, dict[str, dict[Any, bool]]] = {}
        self.externalBlocks = 0
        self.unblockedEvent = asyncio.Event()
        self._classes = classes
        self._declared = DeclaredInputs()

    def node_class(self, node_id: str) -> Any:
        """The class of a node. Raises ``KeyError`` for a class that is not registered."""
        return self._classes()[self.dynprompt.get_node(node_id)["class_type"]]

    def get_input_info(self, unique_id: str, input_name: str) -> tuple[Any, Any, Any]:
        """(type, section, options) of a node's input, or three Nones."""
        return self._declared.find(self.node_class(unique_id), input_name, self.dynprompt.get_node(unique_id)["inputs"])

    def is_cached(self, node_id: str) -> bool:
        """Whether the node's outputs are known already, so that nothing above it is needed."""
        return False

    def make_input_strong_link(self, to_node_id: str, to_input: str) -> None:
        """Let a node wait for its lazy input *to_input*. Raises ``NodeInputError``."""
        inputs = self.dynprompt.get_node(to_node_id)["inputs"]
        if to_input not in inputs:
            raise NodeInputError(f"Node {to_node_id} asks for the input {to_input!r}, but the prompt gives it none")
        if not is_link(inputs[to_input]):
            raise NodeInputError(f"Node {to_node_id} asks for the input {to_input!r}, which is a constant")
        from_node_id, from_socket = inputs[to_input]
        self.add_strong_link(from_node_id, from_socket, to_node_id)

    def add_strong_link(self, from_node_id: str, from_socket: Any, to_node_id: str) -> None:
        """Let *to_node_id* wait for an output of *from_node_id*, which is added with everything it needs."""
        if self.is_cached(from_node_id):
            return
        self.add_node(from_node_id)
        sockets = self.blocking[from_node_id].setdefault(to_node_id, {})
        if not sockets:
            self._block(to_node_id)
            self._linked(from_node_id, to_node_id)
        sockets[from_socket] = True

    def add_node(self, node_unique_id: str, include_lazy: bool = False, subgraph_nodes: Collection[str] | None = None) -> None:
        """Add a node and all it depends on: through lazy inputs only with *include_lazy*, only nodes in *subgraph_nodes* if given.

        A node whose outputs are cached is not followed further. Raises ``NodeNotFoundError`` for a link to a node that is not there.
        """
        waiting = [node_unique_id]
        links: list[tuple[str, Any, str]] = []
        while waiting:
            current = waiting.pop()
            if current in self.pendingNodes:
                continue
            inputs = self.dynprompt.get_node(current)["inputs"]
            class_def = self.node_class(current)
            self.pendingNodes[current] = True
            self.blockCount[current] = 0
            self.blocking[current] = {}
            self._joined(current)
            for name, value in inputs.items():
                if not is_link(value) or (subgraph_nodes is not None and value[0] not in subgraph_nodes):
                    continue
                options = self._declared.find(class_def, name, inputs)[2] or {}
                if options.get("rawLink") or (options.get("lazy") and not include_lazy):
                    continue
                if not self.is_cached(value[0]):
                    waiting.append(value[0])
                links.append((value[0], value[1], current))
        for link in links:
            self.add_strong_link(*link)

    def add_external_block(self, node_id: str) -> Callable[[], None]:
        """Let a node wait for something outside the graph; call the result, in the loop's thread, when that is there.

        Raises ``NodeNotFoundError`` for a node that is not waiting to run.
        """
        if node_id not in self.blockCount:
            raise NodeNotFoundError(f"Node {node_id} is not waiting to run, so it cannot be held back")
        self.externalBlocks += 1
        self._block(node_id)
        is_held = True

        def unblock() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self.externalBlocks -= 1
                self._unblock(node_id)
                self.unblockedEvent.set()

        return unblock

    def pop_node(self, unique_id: str) -> None:
        """Take out a node that has run; those that waited for it wait no longer."""
        del self.pendingNodes[unique_id]
        del self.blockCount[unique_id]
        for blocked in self.blocking.pop(unique_id):
            self._unblock(blocked)

    def get_ready_nodes(self) -> list[str]:
        """The nodes that wait for nothing, in the order in which they joined."""
        return [node_id for node_id in self.pendingNodes if self.blockCount[node_id] == 0]

    def is_empty(self) -> bool:
        """Whether no node is left."""
        return not self.pendingNodes

    def get_nodes_in_cycle(self) -> list[str]:
        """The nodes left that are on a circle of links, or between two such circles: they can never become ready."""
        blockers: dict[str, list[str]] = {node_id: [] for node_id in self.pendingNodes}
        for node_id, blocked in self.blocking.items():
            for waiting in blocked:
                blockers[waiting].append(node_id)
        kept = _peeled(dict.fromkeys(self.pendingNodes), self.blocking, blockers)
        return list(_peeled(kept, blockers, self.blocking))

    def _block(self, node_id: str) -> None:
        self.blockCount[node_id] += 1

    def _unblock(self, node_id: str) -> None:
        if node_id in self.blockCount:
            self.blockCount[node_id] -= 1

    def _joined(self, node_id: str) -> None:
        """Called once for each node added, before its links are."""

    def _linked(self, from_node_id: str, to_node_id: str) -> None:
        """Called once for each pair of nodes of which the second begins to wait for the first."""


def _peeled(nodes: dict[str, None], ahead: Mapping[str, Collection[str]], behind: Mapping[str, Collection[str]]) -> dict[str, None]:
    """*nodes* without those from which no circle can be reached along *ahead*; *behind* is *ahead* turned round."""
    left = {node_id: sum(one in nodes for one in ahead[node_id]) for node_id in nodes}
    free = [node_id for node_id, count in left.items() if not count]
    while free:
        node_id = free.pop()
        del left[node_id]
        for one in behind[node_id]:
            if one in left:
                left[one] -= 1
                if not left[one]:
                    free.append(one)
    return dict.fromkeys(left)
