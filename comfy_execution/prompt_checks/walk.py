"""Checks a prompt before it is queued, without recursion and in the order in which nodes declare their inputs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from comfy_execution.prompt_checks.cycles import Cycles
from comfy_execution.prompt_checks.failures import bounded, details_of, failing_outputs
from comfy_execution.prompt_checks.literals import Problem, problem
from comfy_execution.prompt_checks.loop_check import LoopCheck
from comfy_execution.prompt_checks.node_check import LinkedInput, NodeCheck, NodeChecker
from comfy_execution.prompt_checks.shape import links_of, lost_link_problem, lost_links, reached, shape_problem, turned

MAX_LOST = 100
# Nodes looked at to tell which outputs each lost link fails.
MAX_LOST_STEPS = 500_000
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
    walk, loops = _Walk(prompt_id, prompt, classes), LoopCheck(prompt, classes)
    roots = {node_id: loops.root_of(node_id) for node_id in outputs}
    for node_id, root in roots.items():
        await walk.check_output(node_id)
        await walk.check_output(root)
    good, node_errors, more = walk.verdict(outputs, roots)
    for node_id, entry in loops.errors(good).items():
        known = node_errors.setdefault(node_id, {**entry, "errors": [], "dependent_outputs": []})
        known["errors"] += entry["errors"]
        known["dependent_outputs"] += [output for output in entry["dependent_outputs"] if output not in known["dependent_outputs"]]
        good = [output for output in good if output not in entry["dependent_outputs"]]
    for node in prompt.values():
        if not isinstance(node.get("inputs"), dict):
            node["inputs"] = {}
    if good:
        return True, None, good, node_errors
    failure = problem("prompt_outputs_failed_validation", "Prompt outputs failed validation", details_of(node_errors, more), {})
    return False, failure, [], node_errors


class _Walk:
    """Visits the nodes that outputs depend on, depth first with its own stack, each once."""

    def __init__(self, prompt_id: str, prompt: dict[str, Any], classes: Mapping[str, Any]) -> None:
        self._prompt = prompt
        self._checker = NodeChecker(prompt_id, prompt, classes)
        self._checks: dict[str, NodeCheck] = {}
        self._finished: list[str] = []
        self._cycles = Cycles(prompt)

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
                    self._found_cycle(depth[link.parent_id])
                elif link.parent_id not in self._checks:
                    depth[link.parent_id] = len(path)
                    path.append((link.parent_id, self._begin(link.parent_id, (node_id, link))))
                    break
            else:
                await self._finish(node_id)
                self._cycles.leave()
                path.pop()
                del depth[node_id]

    def verdict(self, outputs: list[str], roots: Mapping[str, str]) -> tuple[list[str], dict[str, Any], int]:
        """The outputs that can run; the errors by node id, each with the failed outputs that depend on it; how many are left out.

        *roots*: what runs for each output, itself or the end of the loop around it.
        """
        lost = lost_links(self._prompt)
        links = links_of(self._prompt) if lost else {}
        consumers = turned(links)
        unreachable = reached(consumers, lost)
        good = [
            node_id
            for node_id in outputs
            if all(self._checks[root].valid and root not in unreachable for root in (node_id, roots[node_id]))
        ]
        outputs = [*dict.fromkeys(root for node_id in outputs for root in (node_id, roots[node_id]))]
        entries = self._node_errors([node_id for node_id in outputs if not self._checks[node_id].valid])
        silent = [node_id for node_id in outputs if self._checks[node_id].valid and node_id in unreachable]
        if silent:
            above = reached(links, silent)
            entries |= self._lost_errors({node_id: name for node_id, name in lost.items() if node_id in above}, consumers, silent)
        found = bounded(entries.items())
        return good, found, len(entries) - len(found)

    def _begin(self, node_id: str, consumer: tuple[str, LinkedInput] | None) -> Iterator[LinkedInput]:
        self._cycles.enter(node_id)
        check = self._checks[node_id] = self._checker.check_inputs(node_id, consumer)
        return iter(check.links)

    async def _finish(self, node_id: str) -> None:
        """All nodes above are checked: ask the node's own validator, and settle whether the node is good."""
        check = self._checks[node_id]
        await self._checker.ask_validator(node_id, check)
        check.valid = not check.errors and not check.is_on_cycle and all(self._checks[link.parent_id].valid for link in check.links)
        self._finished.append(node_id)

    def _found_cycle(self, start: int) -> None:
        """The path's last node links to its node number *start*: each node in between gets one error, however many circles it is in."""
        for node_id, error in self._cycles.close(start).items():
            check = self._checks[node_id]
            check.is_on_cycle = True
            check.errors.append(error)

    def _node_errors(self, failed: list[str]) -> dict[str, Any]:
        """Errors by node id, of all nodes that the *failed* outputs depend on."""
        above = {
            node_id: [link.parent_id for link in check.links if not self._checks[link.parent_id].valid]
            for node_id, check in self._checks.items()
            if not check.valid
        }
        wrong = [node_id for node_id in self._finished if self._checks[node_id].errors]
        order = [node_id for node_id in reversed(self._finished) if node_id in above]
        dependent = failing_outputs(failed, order, above, wrong, 2 if self._cycles.count else 1)
        return {node_id: self._entry(node_id, self._checks[node_id].errors, outputs) for node_id, outputs in dependent.items()}

    def _lost_errors(self, lost: Mapping[str, str | None], consumers: Mapping[str, list[str]], outputs: list[str]) -> dict[str, Any]:
        """The same of nodes that *outputs* depend on, and whose links lead nowhere. The first of them, as many as take little time."""
        found: dict[str, Any] = {}
        steps = 0
        places = {output_id: index for index, output_id in enumerate(outputs)}
        for node_id, name in lost.items():
            if len(found) == MAX_LOST or steps > MAX_LOST_STEPS:
                break
            below = reached(consumers, [node_id])
            steps += len(below)
            fault = lost_link_problem(self._prompt, node_id, name)
            found[node_id] = self._entry(node_id, [fault], sorted(below & places.keys(), key=places.__getitem__))
        return found

    def _entry(self, node_id: str, errors: list[Problem], outputs: list[str]) -> dict[str, Any]:
        return {"errors": errors, "dependent_outputs": outputs, "class_type": self._prompt[node_id]["class_type"]}
