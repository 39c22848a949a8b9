"""Loops in a prompt: which end belongs to which start, and which nodes lie between them.

A class says by ``LOOP_BOUNDARY`` ("start" or "end") that its nodes begin or end a loop. The nodes that depend on the start, and that the
end depends on, are the body. They are run as copies, one set per iteration, so nothing outside may use them but through the end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_execution.graph_utils import is_link

START, END = "start", "end"
# What an end takes from the body; its other inputs are known before the loop runs.
VALUES = ("output_value", "next_iteration_value", "terminations.")
LOOP_KEY = "loop"

Kind = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Loop:
    """A start, its end, and the nodes between, those of inner loops included."""

    start: str
    end: str
    body: frozenset[str]


@dataclass(frozen=True, slots=True)
class LoopFault:
    """Why a loop cannot be run: *node_ids* are those that the user must look at."""

    message: str
    node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loops:
    """The loops of a prompt, inner ones before those around them, and what is wrong with others."""

    found: tuple[Loop, ...] = ()
    faults: tuple[LoopFault, ...] = ()

    def run_for(self, node_id: str) -> str:
        """The node to run so that *node_id* does: the end of the outermost loop around it, or itself."""
        around = [loop for loop in self.found if node_id in loop.body]
        return around[-1].end if around else node_id


def boundary_of(class_def: Any) -> str | None:
    """Whether nodes of a class begin ("start") or end ("end") a loop, or neither."""
    kind = getattr(class_def, "LOOP_BOUNDARY", None)
    return kind if kind in (START, END) else None


def is_value(input_name: str) -> bool:
    """Whether an end's input takes something from the body."""
    return input_name.startswith(VALUES)


def find_loops(nodes: Mapping[str, Any], kind_of: Kind) -> Loops:
    """The loops among *nodes* (``{"class_type": …, "inputs": …}`` by id). Never raises for what a client may send."""
    kinds = {node_id: kind for node_id in nodes if (kind := kind_of(node_id)) is not None}
    if not kinds:
        return Loops()
    parents = {node_id: _parents(node, nodes) for node_id, node in nodes.items()}
    above = {node_id: _above(parents, node_id) for node_id in kinds}
    ends = sorted((node_id for node_id, kind in kinds.items() if kind == END), key=lambda end: len(above[end]))
    free = [node_id for node_id, kind in kinds.items() if kind == START]
    loops: list[Loop] = []
    faults: list[LoopFault] = []
    for end in ends:
        candidates = [start for start in free if start in above[end]]
        inner = [start for start in candidates if all(other in above[start] for other in candidates if other != start)]
        if len(inner) == 1:
            free.remove(inner[0])
            loops.append(Loop(inner[0], end, frozenset(_below(parents, inner[0], above[end]))))
        elif candidates:
            shown = ", ".join(candidates)
            text = f"the End Loop {end} may end several loops ({shown}), of which none lies in the others; connect parent_iteration"
            faults.append(LoopFault(text, (end, *candidates)))
        else:
            faults.append(LoopFault(f"the End Loop {end} has no Start Loop before it; connect its inputs to nodes of a loop", (end,)))
    faults += [
        LoopFault(f"the Start Loop {start} has no End Loop after it; connect what the loop makes to one", (start,)) for start in free
    ]
    return Loops(tuple(loops), (*faults, *(fault for loop in loops for fault in _misuses(loop, nodes, parents))))


def _misuses(loop: Loop, nodes: Mapping[str, Any], parents: Mapping[str, Sequence[str]]) -> list[LoopFault]:
    """Uses of the body that do not go through the end's values."""
    inside = {loop.start, *loop.body}
    outside = [node_id for node_id in nodes if node_id not in inside and node_id != loop.end]
    leaks = [node_id for node_id in outside if any(parent in inside for parent in parents[node_id])]
    faults = [
        LoopFault(
            f"node {node_id} uses the loop from {loop.start} to {loop.end} but does not lie in it; connect it behind the End Loop, "
            "or its own output to one of the End Loop's terminations",
            (node_id, loop.start, loop.end),
        )
        for node_id in leaks
    ]
    for name, value in nodes[loop.end]["inputs"].items():
        if is_link(value) and value[0] in inside and not is_value(name):
            text = f"{name} of the End Loop {loop.end} comes from the loop itself (node {value[0]}); connect it to a node before the loop"
            faults.append(LoopFault(text, (loop.end, loop.start)))
    return faults


def _parents(node: Any, nodes: Mapping[str, Any]) -> list[str]:
    inputs = node.get("inputs")
    return [value[0] for value in inputs.values() if is_link(value) and value[0] in nodes] if isinstance(inputs, dict) else []


def _above(parents: Mapping[str, Sequence[str]], node_id: str) -> set[str]:
    """The nodes that a node depends on; itself only where it is on a circle."""
    found: set[str] = set()
    waiting = [node_id]
    while waiting:
        for parent in parents[waiting.pop()]:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def _below(parents: Mapping[str, Sequence[str]], start: str, among: set[str]) -> set[str]:
    """The nodes of *among* that depend on *start*."""
    children: dict[str, list[str]] = {}
    for node_id in among:
        for parent in parents[node_id]:
            children.setdefault(parent, []).append(node_id)
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found and child != start:
                found.add(child)
                waiting.append(child)
    return found
