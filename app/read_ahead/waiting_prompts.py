"""What the prompts in the queue will load, in the order in which they will ask for it."""

import heapq
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.read_ahead.loads import NodeLoad, node_load
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.nodes_graph.execution_list import ExecutionList

log = logging.getLogger(__name__)

PROMPTS_AHEAD = 8


class _NothingCached:
    """Which results a later prompt will find cannot be known yet."""

    def get_local(self, node_id: str) -> None:
        """No node's outputs."""


class WaitingPrompts:
    """Looks through each prompt once, as long as it waits or runs. Used by one thread."""

    def __init__(self, classes: Callable[[], Mapping[str, type]]) -> None:
        self._classes = classes
        self._known: dict[str, list[NodeLoad]] = {}

    def loads(self, rows: Sequence[tuple[Any, ...]]) -> list[list[NodeLoad]]:
        """For each of the queue's *rows*, the first ``PROMPTS_AHEAD`` of them in order, what its prompt loads."""
        first = heapq.nsmallest(PROMPTS_AHEAD, rows, key=lambda row: (row[0], getattr(row, "arrival", 0)))
        self._known = {row[1]: self._known[row[1]] if row[1] in self._known else self._of(row) for row in first}
        return [self._known[row[1]] for row in first]

    def _of(self, row: tuple[Any, ...]) -> list[NodeLoad]:
        try:
            classes, dynprompt = self._classes(), DynamicPrompt(row[2])
            nodes = ExecutionList(dynprompt, _NothingCached(), classes=lambda: classes)
            for node_id in row[4]:
                nodes.add_node(node_id)
            found = [node_load(dynprompt.get_node(node_id), classes) for node_id in nodes.get_ready_nodes()]
        except Exception:
            # A pack's class or a pack's queue; the prompt itself will tell when it runs.
            log.debug("What the prompt %s will load cannot be foreseen", row[1], exc_info=True)
            return []
        return [load for load in found if load is not None]
