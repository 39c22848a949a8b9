"""The order in which a prompt's nodes run, and the outputs that waiting nodes will read."""

import inspect
from typing import Any, Protocol

from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.nodes_graph.ready_nodes import ReadyNodes
from comfy_execution.nodes_graph.registered_classes import Classes, registered_classes
from comfy_execution.nodes_graph.topological_sort import TopologicalSort

# How soon a ready node is picked: smaller is sooner.
OUTPUT_OR_ASYNC, FEEDS_OUTPUT, TWO_STEPS_BEFORE_OUTPUT, OTHER = range(4)


class DependencyCycleError(Exception):
    """Nodes that wait for one another."""


class OutputCache(Protocol):
    """What the graph asks of the cache of outputs."""

    def get_local(self, node_id: str) -> Any:
        """The node's cached entry, or None."""


class ExecutionList(TopologicalSort):
    """Hands out ready nodes one at a time, and keeps the outputs that waiting nodes will read.

    Order among ready nodes: output nodes and async nodes, then nodes that feed an output node, then nodes two steps before one, then
    the rest; within each, as they joined the graph. A node can be put back after it was handed out, waiting for more than before.
    """

    def __init__(self, dynprompt: DynamicPrompt, output_cache: OutputCache, *, classes: Classes = registered_classes) -> None:
        super().__init__(dynprompt, classes=classes)
        self.output_cache = output_cache
        self.staged_node_id: str | None = None
        self.execution_cache: dict[str, dict[str, Any]] = {}
        self.execution_cache_listeners: dict[str, set[str]] = {}
        self._ready = ReadyNodes()
        self._joined_count = 0
        self._places: dict[str, int] = {}
        self._urgency: dict[str, int] = {}
        self._feeders: set[str] = set()
        self._blockers: dict[str, list[str]] = {}
        self._traits: dict[Any, tuple[bool, bool]] = {}

    def is_cached(self, node_id: str) -> bool:
        """Whether the cache of outputs holds the node's."""
        return self.output_cache.get_local(node_id) is not None

    def cache_link(self, from_node_id: str, to_node_id: str) -> None:
        """Keep the outputs of *from_node_id*, now or once they are there, until *to_node_id* has run."""
        self.execution_cache.setdefault(to_node_id, {})[from_node_id] = self.output_cache.get_local(from_node_id)
        self.execution_cache_listeners.setdefault(from_node_id, set()).add(to_node_id)

    def get_cache(self, from_node_id: str, to_node_id: str) -> Any:
        """The outputs of *from_node_id* kept for *to_node_id*, or None."""
        kept = self.execution_cache.get(to_node_id)
        return None if kept is None else kept.get(from_node_id)

    def cache_update(self, node_id: str, value: Any) -> None:
        """Give the outputs of *node_id* to every node that waits for them."""
        for to_node_id in self.execution_cache_listeners.get(node_id, ()):
            if to_node_id in self.execution_cache:
                self.execution_cache[to_node_id][node_id] = value

    def add_strong_link(self, from_node_id: str, from_socket: Any, to_node_id: str) -> None:
        """As in ``TopologicalSort``; the outputs are kept for *to_node_id* as well."""
        super().add_strong_link(from_node_id, from_socket, to_node_id)
        self.cache_link(from_node_id, to_node_id)

    def has_ready_nodes(self) -> bool:
        """Whether a node can be handed out now, without waiting."""
        return bool(self._ready)

    def get_ready_nodes(self) -> list[str]:
        """The nodes that wait for nothing, in the order in which they would be handed out."""
        return list(self._ready)

    async def stage_node_execution(self) -> tuple[str | None, dict[str, Any] | None, Exception | None]:
        """Choose the next node, waiting for held-back ones when no other is ready.

        Returns (id, None, None), or (None, error details, exception) when the nodes left wait for one another. ``(None, None, None)``
        when no node is left. Raises ``RuntimeError`` while another node is staged.
        """
        if self.staged_node_id is not None:
            raise RuntimeError(f"Node {self.staged_node_id} is staged already")
        if self.is_empty():
            return None, None, None
        while (chosen := self._ready.first()) is None:
            if not self.externalBlocks:
                return None, *self._cycle_error()
            self.unblockedEvent.clear()
            await self.unblockedEvent.wait()
        self.staged_node_id = chosen
        return chosen, None, None

    def unstage_node_execution(self) -> None:
        """Put the staged node back; it is handed out again once it waits for nothing."""
        self.staged_node_id = None

    def complete_node_execution(self) -> None:
        """The staged node has run: those that waited for it may run, and what was kept for it is let go."""
        node_id = self.staged_node_id
        if node_id is None:
            raise RuntimeError("No node is staged")
        self.pop_node(node_id)
        self.staged_node_id = None

    def pop_node(self, unique_id: str) -> None:
        """As in ``TopologicalSort``; the outputs kept for the node are let go."""
        super().pop_node(unique_id)
        self._ready.discard(unique_id)
        self._feeders.discard(unique_id)
        for kept in (self._places, self._urgency, self._blockers, self.execution_cache, self.execution_cache_listeners):
            kept.pop(unique_id, None)

    def _cycle_error(self) -> tuple[dict[str, Any], DependencyCycleError]:
        """The node blamed is the one the user sees that generated part of the circle: circles that were sent are refused before."""
        cycle = self.get_nodes_in_cycle() or list(self.pendingNodes)
        owners = [self.dynprompt.get_display_node_id(node_id) for node_id in cycle]
        generated = [owner for owner, node_id in zip(owners, cycle) if owner != node_id]
        shown = ", ".join(f"{node_id} ({self.dynprompt.get_node(node_id)['class_type']})" for node_id in cycle[:20])
        error = DependencyCycleError(f"Dependency cycle detected: these nodes wait for one another: {shown}")
        return {
            "node_id": (generated or owners)[0],
            "exception_message": str(error),
            "exception_type": "graph.DependencyCycleError",
            "traceback": [],
            "current_inputs": [],
        }, error

    def _joined(self, node_id: str) -> None:
        self._joined_count += 1
        self._places[node_id] = self._joined_count
        self._urgency[node_id] = OUTPUT_OR_ASYNC if any(self._traits_of(node_id)) else OTHER
        self._refresh(node_id)

    def _linked(self, from_node_id: str, to_node_id: str) -> None:
        """Each link is looked at twice at most: when it is made, and when the node it leads to begins to feed an output node."""
        self._blockers.setdefault(to_node_id, []).append(from_node_id)
        if to_node_id in self._feeders:
            self._hurry(from_node_id, TWO_STEPS_BEFORE_OUTPUT)
        if self._traits_of(to_node_id)[0] and from_node_id not in self._feeders:
            self._feeders.add(from_node_id)
            self._hurry(from_node_id, FEEDS_OUTPUT)
            for one in self._blockers.get(from_node_id, ()):
                self._hurry(one, TWO_STEPS_BEFORE_OUTPUT)

    def _hurry(self, node_id: str, urgency: int) -> None:
        if urgency < self._urgency.get(node_id, -1):
            self._urgency[node_id] = urgency
            self._refresh(node_id)

    def _block(self, node_id: str) -> None:
        super()._block(node_id)
        self._ready.discard(node_id)

    def _unblock(self, node_id: str) -> None:
        super()._unblock(node_id)
        self._refresh(node_id)

    def _refresh(self, node_id: str) -> None:
        if self.blockCount.get(node_id) == 0:
            self._ready.put(node_id, self._urgency[node_id], self._places[node_id])

    def _traits_of(self, node_id: str) -> tuple[bool, bool]:
        """(is it an output node, does it run asynchronously)."""
        class_def = self.node_class(node_id)
        if class_def not in self._traits:
            function = getattr(class_def, getattr(class_def, "FUNCTION", None) or "", None)
            self._traits[class_def] = bool(getattr(class_def, "OUTPUT_NODE", False)), inspect.iscoroutinefunction(function)
        return self._traits[class_def]
