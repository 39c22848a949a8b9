"""Checks of a prompt's loops, and the ends that are checked and run for output nodes inside of them."""

from collections.abc import Mapping
from typing import Any

from comfy_execution.nodes_graph.loops import Loops, boundary_of, find_loops
from comfy_execution.prompt_checks.literals import Problem, problem
from comfy_execution.prompt_checks.shape import links_of, reached


class LoopCheck:
    """The loops of one prompt."""

    def __init__(self, prompt: Mapping[str, Any], classes: Mapping[str, Any]) -> None:
        self._prompt = prompt
        self._loops: Loops = find_loops(prompt, lambda node_id: boundary_of(classes[prompt[node_id]["class_type"]]))

    def root_of(self, output_id: str) -> str:
        """What runs for an output node: the end of the loop around it, or itself."""
        return self._loops.run_for(output_id)

    def errors(self, outputs: list[str]) -> dict[str, dict[str, Any]]:
        """Errors by node id, as ``validate_prompt`` returns them, of the loops that *outputs* depend on."""
        if not self._loops.faults:
            return {}
        links = links_of(self._prompt)
        above = {output_id: reached(links, {output_id, self.root_of(output_id)}) for output_id in outputs}
        entries: dict[str, dict[str, Any]] = {}
        for fault in self._loops.faults:
            dependent = [output_id for output_id in outputs if fault.node_ids[0] in above[output_id]]
            for node_id in fault.node_ids if dependent else ():
                entry = entries.setdefault(
                    node_id, {"errors": [], "dependent_outputs": [], "class_type": self._prompt[node_id]["class_type"]}
                )
                entry["errors"].append(_problem(fault.message))
                entry["dependent_outputs"] += [output_id for output_id in dependent if output_id not in entry["dependent_outputs"]]
        return entries


def _problem(message: str) -> Problem:
    extra = {"input_name": "loop boundary"}
    return problem("custom_validation_failed", "Custom validation failed for node", message, extra)
