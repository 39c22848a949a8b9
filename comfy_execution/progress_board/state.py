"""Progress of the nodes of the running prompt: one registry per prompt, and the handlers that show it.

A registry outlives nothing: when its prompt ends it is closed, and what a straggler of that prompt still reports is dropped
instead of showing up under the next prompt.
"""

import contextvars
from enum import Enum
from typing import Any, TypedDict

from comfy_execution.executor.isolation import Isolation
from comfy_execution.executor.results import printable
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt


class NodeState(Enum):
    """What a node is doing."""

    Pending = "pending"
    Running = "running"
    Finished = "finished"
    Error = "error"


class NodeProgressState(TypedDict):
    """How far a node is: *value* of *max*."""

    state: NodeState
    value: float
    max: float


class ProgressHandler:
    """Base class of what shows progress. Methods are called on the thread that reports, one at a time per prompt, and must be quick."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.enabled = True

    def set_registry(self, registry: "ProgressRegistry") -> None:
        """The registry that will call this handler."""

    def start_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A node started."""

    def update_handler(
        self, node_id: str, value: float, max_value: float, state: NodeProgressState, prompt_id: str, image: Any = None
    ) -> None:
        """A node advanced; *image* is ``(format, PIL image, longest side or None)``."""

    def finish_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A node finished or failed."""

    def reset(self) -> None:
        """The prompt is over: show the last state and let go."""

    def enable(self) -> None:
        """Pass reports to this handler again."""
        self.enabled = True

    def disable(self) -> None:
        """Pass no more reports to this handler."""
        self.enabled = False


class ProgressRegistry:
    """The progress of every node of one prompt that started, and the handlers to tell.

    Any thread may report; an entry is replaced, never half written.
    """

    def __init__(self, prompt_id: str, dynprompt: DynamicPrompt) -> None:
        self.prompt_id = prompt_id
        self.dynprompt = dynprompt
        self.nodes: dict[str, NodeProgressState] = {}
        self.handlers: dict[str, ProgressHandler] = {}
        self._closed = False

    def register_handler(self, handler: ProgressHandler) -> None:
        """Tell *handler* from now on; it replaces one of the same name."""
        self.handlers[handler.name] = handler

    def unregister_handler(self, handler_name: str) -> None:
        """Reset and drop a handler; unknown names are ignored."""
        handler = self.handlers.pop(handler_name, None)
        if handler is not None:
            handler.reset()

    def enable_handler(self, handler_name: str) -> None:
        """Enable a handler, if there is one of that name."""
        if handler_name in self.handlers:
            self.handlers[handler_name].enable()

    def disable_handler(self, handler_name: str) -> None:
        """Disable a handler, if there is one of that name."""
        if handler_name in self.handlers:
            self.handlers[handler_name].disable()

    def ensure_entry(self, node_id: str) -> NodeProgressState:
        """The node's entry, made as pending if need be."""
        return self.nodes.setdefault(node_id, {"state": NodeState.Pending, "value": 0, "max": 1})

    def start_progress(self, node_id: str) -> None:
        """The node starts to run."""
        entry = self._enter(node_id, NodeState.Running, 0.0, 1.0)
        for handler in self._listeners():
            handler.start_handler(node_id, entry, self.prompt_id)

    def update_progress(self, node_id: str, value: float, max_value: float, image: Any = None) -> None:
        """The node is at *value* of *max_value*; *image* previews its result."""
        entry = self._enter(node_id, NodeState.Running, value, max_value)
        for handler in self._listeners():
            handler.update_handler(node_id, value, max_value, entry, self.prompt_id, image)

    def finish_progress(self, node_id: str) -> None:
        """The node is done."""
        total = self.nodes[node_id]["max"] if node_id in self.nodes else 1
        self._conclude(node_id, self._enter(node_id, NodeState.Finished, total, total))

    def fail_progress(self, node_id: str) -> None:
        """The node raised."""
        before = self.ensure_entry(node_id)
        self._conclude(node_id, self._enter(node_id, NodeState.Error, before["value"], before["max"]))

    def reset_handlers(self) -> None:
        """Reset every handler; one that fails is logged and keeps no other from it."""
        for handler in list(self.handlers.values()):
            with Isolation(f"Resetting the progress handler {printable(handler.name)}"):
                handler.reset()

    @property
    def is_closed(self) -> bool:
        """Whether the prompt is over."""
        return self._closed

    def close(self) -> None:
        """End the prompt: handlers show the last state, later reports are dropped. Lets go of the graph, which may hold tensors."""
        if not self._closed:
            self.reset_handlers()
            self._closed = True
            self.dynprompt = DynamicPrompt({})

    def _enter(self, node_id: str, state: NodeState, value: float, maximum: float) -> NodeProgressState:
        entry: NodeProgressState = {"state": state, "value": value, "max": maximum}
        if not self._closed:
            self.nodes[node_id] = entry
        return entry

    def _conclude(self, node_id: str, entry: NodeProgressState) -> None:
        for handler in self._listeners():
            handler.finish_handler(node_id, entry, self.prompt_id)

    def _listeners(self) -> list[ProgressHandler]:
        return [] if self._closed else [handler for handler in self.handlers.values() if handler.enabled]


class _LatestRegistry:
    """The registry of the prompt that started last, for threads that do not carry the prompt's context."""

    def __init__(self) -> None:
        self.registry = ProgressRegistry("", DynamicPrompt({}))


_latest = _LatestRegistry()
_of_this_context: contextvars.ContextVar[ProgressRegistry | None] = contextvars.ContextVar("progress_registry", default=None)


def reset_progress_state(prompt_id: str, dynprompt: DynamicPrompt) -> None:
    """Close the registry in force and begin one for *prompt_id*, in this context and for all threads without one."""
    _latest.registry.close()
    _latest.registry = ProgressRegistry(prompt_id, dynprompt)
    _of_this_context.set(_latest.registry)


def get_progress_state() -> ProgressRegistry:
    """The registry of the prompt whose context this is, else that of the prompt that started last."""
    return _of_this_context.get() or _latest.registry


def add_progress_handler(handler: ProgressHandler) -> None:
    """Register *handler* for the prompt in force."""
    registry = get_progress_state()
    handler.set_registry(registry)
    registry.register_handler(handler)
