"""The graph of one prompt: its nodes, the order in which they may run, and what each still waits for.

Nothing here recurses, and each node and link costs the same however large the graph is.
"""

import asyncio
import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from comfy_execution.graph_utils import ExecutionBlocker, is_link

__all__ = [
    "DependencyCycleError", "DynamicPrompt", "ExecutionBlocker", "ExecutionList", "NodeInputError", "NodeNotFoundError", "TopologicalSort",
    "get_input_info",
]

Classes = Callable[[], Mapping[str, type]]


class DependencyCycleError(Exception):
    """Nodes that wait for one another."""


class NodeInputError(Exception):
    """An input that is not there or is no link."""


class NodeNotFoundError(Exception):
    """An id that no node of the prompt has."""


class OutputCache(Protocol):
    """What the graph asks of the cache of outputs."""

    def get_local(self, node_id: str) -> Any:
        """The node's cached entry, or None."""


def registered_classes() -> Mapping[str, type]:
    """The node classes of this process, looked up when called."""
    return importlib.import_module("nodes").NODE_CLASS_MAPPINGS


class DynamicPrompt:
    """The prompt as it was sent and the nodes that expansion has added to it."""

    def __init__(self, original_prompt: Mapping[str, Any]) -> None:
        self.original_prompt = original_prompt
        self.ephemeral_prompt: dict[str, Any] = {}
        self.ephemeral_parents: dict[str, str] = {}
        self.ephemeral_display: dict[str, str] = {}

    def get_node(self, node_id: str) -> Any:
        """The node, ``{"class_type": …, "inputs": {…}}``. Raises ``NodeNotFoundError``."""
        if node_id in self.ephemeral_prompt:
            return self.ephemeral_prompt[node_id]
        if node_id in self.original_prompt:
            return self.original_prompt[node_id]
        raise NodeNotFoundError(f"Node {node_id} not found")

    def has_node(self, node_id: str) -> bool:
        """Whether a node has that id."""
        return node_id in self.original_prompt or node_id in self.ephemeral_prompt

    def add_ephemeral_node(self, node_id: str, node_info: Mapping[str, Any], parent_id: str, display_id: str) -> None:
        """Add a node that the expansion of *parent_id* made; messages about it name *display_id*."""
        self.ephemeral_prompt[node_id] = node_info
        self.ephemeral_parents[node_id] = parent_id
        self.ephemeral_display[node_id] = display_id

    def get_real_node_id(self, node_id: str) -> str:
        """The node of the original prompt that the node comes from."""
        while node_id in self.ephemeral_parents:
            node_id = self.ephemeral_parents[node_id]
        return node_id

    def get_parent_node_id(self, node_id: str) -> str | None:
        """The node whose expansion made this one, or None."""
        return self.ephemeral_parents.get(node_id)

    def get_display_node_id(self, node_id: str) -> str:
        """The node that messages about this one name."""
        while node_id in self.ephemeral_display and self.ephemeral_display[node_id] != node_id:
            node_id = self.ephemeral_display[node_id]
        return node_id

    def all_node_ids(self) -> set[str]:
        """Every id, expansion's included."""
        return set(self.original_prompt) | set(self.ephemeral_prompt)

    def get_original_prompt(self) -> Mapping[str, Any]:
        """The prompt as it was sent."""
        return self.original_prompt


def get_input_info(class_def: Any, input_name: str,
                   valid_inputs: Mapping[str, Any] | None = None) -> tuple[Any, str, dict[str, Any]] | tuple[None, None, None]:
    """(type, section, options) of a declared input, or three Nones. *valid_inputs* stands for ``INPUT_TYPES()`` where it is known."""
    declared = class_def.INPUT_TYPES() if valid_inputs is None else valid_inputs
    for section in ("required", "optional", "hidden"):
        if input_name in declared.get(section, {}):
            spec = declared[section][input_name]
            if isinstance(spec, str):
                return spec, section, {}
            return spec[0], section, spec[1] if len(spec) > 1 else {}
    return None, None, None


class TopologicalSort:
    """Which nodes wait for which; a node is ready when it waits for none.

    ``pendingNodes``, ``blockCount`` (how many a node waits for) and ``blocking`` (who waits for it, by output) may be read by others.
    """

    def __init__(self, dynprompt: DynamicPrompt, classes: Classes = registered_classes) -> None:
        self.dynprompt = dynprompt
        self.pendingNodes: dict[str, bool] = {}
        self.blockCount: dict[str, int] = {}
        self.blocking: dict[str, dict[str, dict[Any, bool]]] = {}
        self.externalBlocks = 0
        self.unblockedEvent = asyncio.Event()
        self._classes = classes
        self._declared: dict[Any, Mapping[str, Any]] = {}

    def node_class(self, node_id: str) -> Any:
        """The class of a node. Raises ``KeyError`` for a class that is not registered."""
        return self._classes()[self.dynprompt.get_node(node_id)["class_type"]]

    def get_input_info(self, unique_id: str, input_name: str) -> tuple[Any, Any, Any]:
        """(type, section, options) of a node's input, or three Nones."""
        class_def = self.node_class(unique_id)
        if hasattr(class_def, "GET_SCHEMA"):
            live = self.dynprompt.get_node(unique_id)["inputs"]
            return get_input_info(class_def, input_name, class_def.INPUT_TYPES(live_inputs=live))
        if class_def not in self._declared:
            self._declared[class_def] = class_def.INPUT_TYPES()
        return get_input_info(class_def, input_name, self._declared[class_def])

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
        waiting = self.blocking[from_node_id].setdefault(to_node_id, {})
        if not waiting:
            self._block(to_node_id)
        waiting[from_socket] = True

    def add_node(self, node_unique_id: str, include_lazy: bool = False, subgraph_nodes: Collection[str] | None = None) -> None:
        """Add a node and all it depends on: through lazy inputs only with *include_lazy*, only nodes in *subgraph_nodes* if given."""
        waiting = [node_unique_id]
        links: list[tuple[str, Any, str]] = []
        while waiting:
            current = waiting.pop()
            if current in self.pendingNodes:
                continue
            node = self.dynprompt.get_node(current)
            self.pendingNodes[current] = True
            self.blockCount[current] = 0
            self.blocking[current] = {}
            for name, value in node["inputs"].items():
                if not is_link(value) or (subgraph_nodes is not None and value[0] not in subgraph_nodes):
                    continue
                _, _, options = self.get_input_info(current, name)
                options = options or {}
                if options.get("rawLink") or (options.get("lazy") and not include_lazy):
                    continue
                if not self.is_cached(value[0]):
                    waiting.append(value[0])
                links.append((value[0], value[1], current))
            self._became_pending(current)
        for link in links:
            self.add_strong_link(*link)

    def add_external_block(self, node_id: str) -> Callable[[], None]:
        """Let a node wait for something outside the graph; call the result, in the loop's thread, when that is there."""
        if node_id not in self.blockCount:
            raise NodeNotFoundError(f"Node {node_id} is not waiting to run, so it can not be held back")
        self.externalBlocks += 1
        self._block(node_id)

        def unblock() -> None:
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
        """The nodes that wait for nothing, oldest first."""
        return [node_id for node_id in self.pendingNodes if self.blockCount[node_id] == 0]

    def is_empty(self) -> bool:
        """Whether no node is left."""
        return not self.pendingNodes

    def _block(self, node_id: str) -> None:
        self.blockCount[node_id] += 1

    def _unblock(self, node_id: str) -> None:
        self.blockCount[node_id] -= 1

    def _became_pending(self, node_id: str) -> None:
        """Called once for each node added."""


class ExecutionList(TopologicalSort):
    """Hands out ready nodes one at a time, and keeps the outputs that waiting nodes will read.

    Order among ready nodes: output nodes and async nodes, then nodes that feed an output node, then nodes two steps before one, then
    the rest; within each, as they became ready.
    """

    def __init__(self, dynprompt: DynamicPrompt, output_cache: OutputCache, classes: Classes = registered_classes) -> None:
        super().__init__(dynprompt, classes)
        self.output_cache = output_cache
        self.staged_node_id: str | None = None
        self.execution_cache: dict[str, dict[str, Any]] = {}
        self.execution_cache_listeners: dict[str, set[str]] = {}
        self._fresh: dict[str, None] = {}
        self._ready: tuple[dict[str, None], ...] = ({}, {}, {}, {})
        self._rank: dict[str, int] = {}
        self._prefers: dict[type, bool] = {}
        self._feeds_preferred: dict[str, bool] = {}

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

    def get_ready_nodes(self) -> list[str]:
        """The nodes that wait for nothing, in the order they would be handed out."""
        self._rank_fresh()
        return [node_id for bucket in self._ready for node_id in bucket]

    async def stage_node_execution(self) -> tuple[str | None, dict[str, Any] | None, Exception | None]:
        """Choose the next node, waiting for held-back ones when no other is ready.

        Returns (id, None, None), or (None, error details, exception) when the nodes left wait for one another. ``(None, None, None)``
        when no node is left.
        """
        if self.staged_node_id is not None:
            raise RuntimeError(f"Node {self.staged_node_id} is staged already")
        if self.is_empty():
            return None, None, None
        while (chosen := self._first_ready()) is None:
            if not self.externalBlocks:
                return None, *self._cycle_error()
            self.unblockedEvent.clear()
            await self.unblockedEvent.wait()
        self.staged_node_id = chosen
        return chosen, None, None

    def unstage_node_execution(self) -> None:
        """Put the staged node back; it runs again once it waits for nothing."""
        self.staged_node_id = None

    def complete_node_execution(self) -> None:
        """The staged node has run: those that waited for it may run, and what was kept for it is let go."""
        node_id = self.staged_node_id
        if node_id is None:
            raise RuntimeError("No node is staged")
        self.pop_node(node_id)
        self._forget_ready(node_id)
        self.execution_cache.pop(node_id, None)
        self.execution_cache_listeners.pop(node_id, None)
        self.staged_node_id = None

    def get_nodes_in_cycle(self) -> list[str]:
        """The nodes left that wait for one another: none of them can ever become ready."""
        blocked_by: dict[str, int] = dict.fromkeys(self.pendingNodes, 0)
        waits_for: dict[str, list[str]] = {node_id: [] for node_id in self.pendingNodes}
        for node_id, blocked in self.blocking.items():
            for waiting in blocked:
                waits_for[waiting].append(node_id)
                blocked_by[node_id] += 1
        free = [node_id for node_id, count in blocked_by.items() if not count]
        while free:
            node_id = free.pop()
            del blocked_by[node_id]
            for parent in waits_for[node_id]:
                blocked_by[parent] -= 1
                if not blocked_by[parent]:
                    free.append(parent)
        return list(blocked_by)

    def _cycle_error(self) -> tuple[dict[str, Any], DependencyCycleError]:
        cycle = self.get_nodes_in_cycle()
        owners = [self.dynprompt.get_display_node_id(node_id) for node_id in cycle]
        generated = [owner for owner, node_id in zip(owners, cycle) if owner != node_id]
        blamed = (generated or owners)[0]
        error = DependencyCycleError("Dependency cycle detected")
        shown = ", ".join(f"{node_id} ({self.dynprompt.get_node(node_id)['class_type']})" for node_id in sorted(cycle)[:20])
        return {
            "node_id": blamed,
            "exception_message": f"Dependency cycle detected: these nodes wait for one another: {shown}",
            "exception_type": "graph.DependencyCycleError",
            "traceback": [],
            "current_inputs": [],
        }, error

    def _became_pending(self, node_id: str) -> None:
        self._fresh[node_id] = None

    def _block(self, node_id: str) -> None:
        super()._block(node_id)
        self._forget_ready(node_id)

    def _unblock(self, node_id: str) -> None:
        super()._unblock(node_id)
        if self.blockCount[node_id] == 0:
            self._fresh[node_id] = None

    def _forget_ready(self, node_id: str) -> None:
        self._fresh.pop(node_id, None)
        rank = self._rank.pop(node_id, None)
        if rank is not None:
            del self._ready[rank][node_id]

    def _first_ready(self) -> str | None:
        self._rank_fresh()
        return next((next(iter(bucket)) for bucket in self._ready if bucket), None)

    def _rank_fresh(self) -> None:
        for node_id in self._fresh:
            rank = self._rank_of(node_id)
            self._rank[node_id] = rank
            self._ready[rank][node_id] = None
        self._fresh.clear()

    def _rank_of(self, node_id: str) -> int:
        if self._is_preferred(node_id):
            return 0
        if self._feeds(node_id):
            return 1
        return 2 if any(self._feeds(blocked) for blocked in self.blocking[node_id]) else 3

    def _is_preferred(self, node_id: str) -> bool:
        """Whether the node is an output node or runs asynchronously."""
        class_def = self.node_class(node_id)
        if class_def not in self._prefers:
            function = getattr(class_def, getattr(class_def, "FUNCTION", "") or "", None)
            self._prefers[class_def] = getattr(class_def, "OUTPUT_NODE", False) is True or inspect.iscoroutinefunction(function)
        return self._prefers[class_def]

    def _feeds(self, node_id: str) -> bool:
        if node_id not in self._feeds_preferred:
            self._feeds_preferred[node_id] = any(self._is_preferred(blocked) for blocked in self.blocking.get(node_id, ()))
        return self._feeds_preferred[node_id]
