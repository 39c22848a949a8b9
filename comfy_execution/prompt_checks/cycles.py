"""Nodes that link to one another in a circle, each reported once, in an answer that stays small however many there are."""

from collections.abc import Mapping
from typing import Any

from comfy_execution.prompt_checks.literals import Problem, problem
from comfy_execution.prompt_checks.shown_values import brief

# Ids in ``cycle_nodes``: of the first node of a circle, and of all nodes together.
MAX_CYCLE_NODES = 1000
MAX_LISTED_IDS = 20_000
MIN_CYCLE_NODES = 10
# Circles whose nodes are spelt out, and so many of each.
MAX_CYCLES = 100
MAX_CYCLE_SHOWN = 40


class Cycles:
    """Follows the walk's path, and says which of its nodes a link back makes members of a circle that were not known to be in one.

    Each node of the path is looked at once, however many links lead back past it.
    """

    def __init__(self, prompt: Mapping[str, Any]) -> None:
        self._prompt = prompt
        self._path: list[str] = []
        self._free: list[int] = []
        self._ids_left = MAX_LISTED_IDS
        self.count = 0

    def enter(self, node_id: str) -> None:
        """The path goes on to *node_id*."""
        self._free.append(len(self._path))
        self._path.append(node_id)

    def leave(self) -> None:
        """The path goes back by one node."""
        self._path.pop()
        if self._free and self._free[-1] == len(self._path):
            self._free.pop()

    def close(self, start: int) -> dict[str, Problem]:
        """The path's last node links to its node number *start*: by id, what to say of each node that has not been in a circle before."""
        self.count += 1
        first = len(self._free)
        while first and self._free[first - 1] >= start:
            first -= 1
        found = [self._path[index] for index in self._free[first:]]
        del self._free[first:]
        if not found:
            return {}
        details = self._text(start)
        members = self._path[start : start + MAX_CYCLE_NODES]
        fewer = members[: max(MIN_CYCLE_NODES, self._ids_left // len(found))]
        self._ids_left = max(0, self._ids_left - len(fewer) * len(found))
        problems = {node_id: _cycle(node_id, details, fewer) for node_id in found}
        if self.count <= MAX_CYCLES:
            problems[found[0]] = _cycle(found[0], details, members)
        return problems

    def _text(self, start: int) -> str:
        half = MAX_CYCLE_SHOWN // 2 if self.count <= MAX_CYCLES else 1
        members = [*self._path[start : start + 2 * half], self._path[start]]
        if len(self._path) - start < 2 * half:
            return " -> ".join(map(self._named, members))
        last = [*self._path[len(self._path) - half + 1 :], self._path[start]]
        return " -> ".join([*map(self._named, members[:half]), "…", *map(self._named, last)])

    def _named(self, node_id: str) -> str:
        return f"{brief(node_id)} ({self._prompt[node_id]['class_type']})"


def _cycle(node_id: str, details: str, members: list[str]) -> Problem:
    return problem("dependency_cycle", "Dependency cycle detected", details, {"node_id": node_id, "cycle_nodes": members})
