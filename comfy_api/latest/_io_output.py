"""The results of V3 nodes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from comfy_api.internal.node_markers import _NodeOutputInternal
from comfy_execution.graph_utils import ExecutionBlocker


class _UIOutput(ABC):
    """Something that the page shows; ``as_dict`` returns the message."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """The message: lists by kind, such as ``{"images": [...]}``."""


class NodeOutput(_NodeOutputInternal):
    """The result of one call of a node: its output values in order, and further requests.

    The page shows *ui* (a dict or an object of ``ui``'s classes). *expand* is a subgraph that computes the values (the schema
    needs ``enable_expand``). With *block_execution*, a message, every output blocks the nodes that depend on it.
    """

    def __init__(
        self, *args: Any, ui: _UIOutput | dict | None = None, expand: dict | None = None, block_execution: str | None = None
    ) -> None:
        self.args = args
        self.ui = ui
        self.expand = expand
        self.block_execution = block_execution

    @property
    def result(self) -> tuple[Any, ...] | None:
        """The values, or None without values."""
        return self.args or None

    def __getitem__(self, index: int) -> Any:
        return self.args[index]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "NodeOutput":
        """The output for a V1-style dictionary with ``result``, ``ui`` and ``expand``."""
        result = data.get("result", ())
        if isinstance(result, ExecutionBlocker):
            return cls(BlockAll(result), ui=data.get("ui"), expand=data.get("expand"), block_execution=result.message)
        return cls(*(() if result is None else result), ui=data.get("ui"), expand=data.get("expand"))


class BlockAll:
    """A placeholder for an output's values until the number of outputs is known; all of them become *blocker*."""

    def __init__(self, blocker: ExecutionBlocker) -> None:
        self.blocker = blocker


def normalize_output(returned: Any, node_name: str, output_count: int, may_expand: bool) -> NodeOutput:
    """A new ``NodeOutput`` for the value that ``execute`` returned: a ``NodeOutput``, None, a tuple, a V1-style dict or a blocker.

    A block without values becomes *output_count* blockers, one per output; ``ui`` becomes a plain dict. Raises ``TypeError``
    for anything else, and ``ValueError`` when the node expands but its schema does not allow it.
    """
    if returned is None:
        output = NodeOutput()
    elif isinstance(returned, NodeOutput):
        output = returned
    elif isinstance(returned, tuple):
        output = NodeOutput(*returned)
    elif isinstance(returned, Mapping):
        output = NodeOutput.from_dict(returned)
    elif isinstance(returned, ExecutionBlocker):
        output = NodeOutput(BlockAll(returned), block_execution=returned.message)
    else:
        raise TypeError(
            f"node {node_name} returned {type(returned).__name__}; return io.NodeOutput(value, ...), a tuple, a dict, "
            "an ExecutionBlocker or None"
        )
    if output.expand is not None and not may_expand:
        raise ValueError(f"node {node_name} returned a subgraph to expand to; set enable_expand=True in its schema to allow this")
    values = tuple(output.args)
    if len(values) == 1 and isinstance(values[0], BlockAll):
        values = (values[0].blocker,) * output_count
    elif output.block_execution is not None and not values:
        values = (ExecutionBlocker(output.block_execution),) * output_count
    ui: Any = output.ui
    if isinstance(ui, _UIOutput) or hasattr(ui, "as_dict"):
        ui = ui.as_dict()
    return NodeOutput(*values, ui=ui, expand=output.expand, block_execution=output.block_execution)
