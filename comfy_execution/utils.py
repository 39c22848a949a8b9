"""Which node of which prompt is running, for code that a node calls."""

import contextvars
from types import TracebackType
from typing import NamedTuple


class ExecutionContext(NamedTuple):
    """A running call: the prompt, the node, and the call's place when inputs are mapped over lists (else None)."""

    prompt_id: str
    node_id: str
    list_index: int | None


_current: contextvars.ContextVar[ExecutionContext | None] = contextvars.ContextVar("executing_context", default=None)


def get_executing_context() -> ExecutionContext | None:
    """The call this code runs in, or None outside nodes."""
    return _current.get()


class CurrentNodeContext:
    """``with CurrentNodeContext(prompt_id, node_id, list_index):`` marks what runs inside as that call."""

    def __init__(self, prompt_id: str, node_id: str, list_index: int | None = None) -> None:
        self.context = ExecutionContext(prompt_id, node_id, list_index)
        self._token: contextvars.Token[ExecutionContext | None] | None = None

    def __enter__(self) -> "CurrentNodeContext":
        self._token = _current.set(self.context)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None
