"""Checks a prompt before it is queued, without recursion and in the order in which nodes declare their inputs."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from comfy_execution.prompt_checks.literals import Problem, problem
from comfy_execution.prompt_checks.node_check import LinkedInput, NodeCheck, NodeChecker
from comfy_execution.prompt_checks.shape import dependents, lost_links, shape_problem

log = logging.getLogger(__name__)

# Over all nodes together; a prompt of thousands of failing nodes and outputs would else be answered with gigabytes.
MAX_DEPENDENT_OUTPUTS = 100_000
MIN_DEPENDENT_OUTPUTS = 10
MAX_CYCLE_NODES = 1000
MAX_CYCLES = 100
MAX_CYCLE_SHOWN = 40
MAX_LOST = 100
MAX_LOGGED = 20
Verdict = tuple[bool, Problem | None, list[str], dict[str, Any]]


async def validate_prompt(prompt_id: str, prompt: Any, partial_execution_list: Iterable[str] | None, classes: Mapping[str, Any]) -> Verdict:
    """Check *prompt* and convert its literals in place: ``(is it good, error or None, output ids to run, errors by node id)``.

    *partial_execution_list*: the only output nodes to run, None for all. *classes*: node classes by type. A prompt is good when at least
    one of its outputs is; the others are left out and their errors returned. Runs on the caller's loop, as do the nodes' validators.
    Never raises for a malformed prompt. Time grows with nodes and links, whatever the graph's depth.
    """
    refusal = shape_problem(prompt, partial_execution_list, classes)
    if refusal is not None:
        return False, refusal, [], {}
    targets = None if partial_execution_list is None else {target for target in partial_execution_list if isinstance(target, str)}
    outputs = [
        node_id
        for node_id, node in prompt.items()
        if getattr(classes[node["class_type"]], "OUTPUT_NODE", False) is True and (targets is None or node_id in targets)
    ]
    if not outputs:
        return False, problem("prompt_no_outputs", "Prompt has no outputs", "", {}), [], {}
    walk = _Walk(prompt_id, prompt, classes)
    for node_id in outputs:
        await walk.check_output(node_id)
    good, node_errors = walk.verdict(outputs)
    for node in prompt.values():
        if not isinstance(node.get("inputs"), dict):
            node["inputs"] = {}
    _log(node_errors)
    if good:
        return True, None, good, node_errors
    details = "\n".join(f"{one['message']}: {one['details']}" for found in node_errors.values() for one in found["errors"])
    return False, problem("prompt_outputs_failed_validation", "Prompt outputs failed validation", details, {}), [], node_errors


class _Walk:
    """Visits the nodes that outputs depend on, depth first with its own stack, each once."""

    def __init__(self, prompt_id: str, prompt: dict[str, Any], classes: Mapping[str, Any]) -> None:
        self._prompt = prompt
        self._checker = NodeChecker(prompt_id, prompt, classes)
        self._checks: dict[str, NodeCheck] = {}
        self._finished: list[str] = []
        self._cycles = 0

    async def check_output(self, output_id: str) -> None:
        """Check an output node and all it depends on."""
        if output_id in self._checks:
            return
        path: list[tuple[str, Iterator[LinkedInput]]] = [(output_id, self._begin(output_id, None))]
        depth = {output_id: 0}
        while path:
            node_id, links = path[-1]
            for link in links:
                if link.parent_id in depth:
                    self._found_cycle(path, depth[link.parent_id])
                elif link.parent_id not in self._checks:
                    depth[link.parent_id] = len(path)
                    path.append((link.parent_id, self._begin(link.parent_id, (node_id, link))))
                    break
            else:
                await self._finish(node_id)
                path.pop()
                del depth[node_id]

    def verdict(self, outputs: list[str]) -> tuple[list[str], dict[str, Any]]:
        """The outputs that can run, and the errors by node id, each with the failed outputs that depend on it."""
        lost = lost_links(self._prompt)
        unreachable = dependents(self._prompt, lost) if lost else set()
        good = [node_id for node_id in outputs if self._checks[node_id].valid and node_id not in unreachable]
        found = self._node_errors([node_id for node_id in outputs if not self._checks[node_id].valid])
        silent = [node_id for node_id in outputs if self._checks[node_id].valid and node_id in unreachable]
        if silent:
            for node_id, fault in list(lost.items())[:MAX_LOST]:
                below = dependents(self._prompt, [node_id])
                if any(output in below for output in silent):
                    found[node_id] = self._entry(node_id, [fault], [output for output in silent if output in below])
        return good, found

    def _begin(self, node_id: str, consumer: tuple[str, LinkedInput] | None) -> Iterator[LinkedInput]:
        check = self._checks[node_id] = self._checker.check_inputs(node_id, consumer)
        return iter(check.links)

    async def _finish(self, node_id: str) -> None:
        """All nodes above are checked: ask the node's own validator, and settle whether the node is good."""
        check = self._checks[node_id]
        await self._checker.ask_validator(node_id, check)
        check.valid = not check.errors and not check.is_on_cycle and all(self._checks[link.parent_id].valid for link in check.links)
        self._finished.append(node_id)

    def _found_cycle(self, path: list[tuple[str, Iterator[LinkedInput]]], start: int) -> None:
        """The nodes of *path* from *start* on link to one another in a circle; each gets one such error. A bounded number is spelt out."""
        self._cycles += 1
        members = [node_id for node_id, _ in path[start:]] if self._cycles <= MAX_CYCLES else [path[-1][0]]
        around = [f"{node_id} ({self._prompt[node_id]['class_type']})" for node_id in [*members, members[0]]]
        if len(around) > MAX_CYCLE_SHOWN or self._cycles > MAX_CYCLES:
            around[MAX_CYCLE_SHOWN // 2 : -MAX_CYCLE_SHOWN // 2] = ["…"]
        details = " -> ".join(around)
        for node_id in members:
            check = self._checks[node_id]
            if not check.is_on_cycle:
                check.is_on_cycle = True
                check.errors.append(
                    problem(
                        "dependency_cycle",
                        "Dependency cycle detected",
                        details,
                        {"node_id": node_id, "cycle_nodes": members[:MAX_CYCLE_NODES]},
                    )
                )

    def _node_errors(self, failed: list[str]) -> dict[str, Any]:
        """Errors by node id. Sets of outputs are bit masks, handed from each node to the nodes above it."""
        masks = {node_id: 1 << index for index, node_id in enumerate(failed)}
        for _ in range(2 if self._cycles else 1):
            for node_id in reversed(self._finished):
                mask = masks.get(node_id, 0)
                for link in self._checks[node_id].links if mask else ():
                    if not self._checks[link.parent_id].valid:
                        masks[link.parent_id] = masks.get(link.parent_id, 0) | mask
        wrong = [node_id for node_id in self._finished if self._checks[node_id].errors and masks.get(node_id)]
        limit = max(MIN_DEPENDENT_OUTPUTS, MAX_DEPENDENT_OUTPUTS // max(1, len(wrong)))
        return {node_id: self._entry(node_id, self._checks[node_id].errors, _members(masks[node_id], failed, limit)) for node_id in wrong}

    def _entry(self, node_id: str, errors: list[Problem], outputs: list[str]) -> dict[str, Any]:
        return {"errors": errors, "dependent_outputs": outputs, "class_type": self._prompt[node_id]["class_type"]}


def _members(mask: int, ids: list[str], limit: int) -> list[str]:
    """The first *limit* of *ids* whose bit is set."""
    bits = f"{mask:b}"[::-1]
    found: list[str] = []
    index = bits.find("1")
    while index >= 0 and len(found) < limit:
        found.append(ids[index])
        index = bits.find("1", index + 1)
    return found


def _log(node_errors: Mapping[str, Any]) -> None:
    for node_id, entry in list(node_errors.items())[:MAX_LOGGED]:
        log.error(
            "Node %s (%s) cannot run: %s",
            node_id,
            entry["class_type"],
            "; ".join(f"{one['message']}: {one['details']}" for one in entry["errors"]),
        )
    if len(node_errors) > MAX_LOGGED:
        log.error("%d more nodes cannot run", len(node_errors) - MAX_LOGGED)
