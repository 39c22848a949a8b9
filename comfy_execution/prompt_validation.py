"""Checks a prompt before it is queued, without recursion and in the order in which nodes declare their inputs."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.input_validation import Problem, check_literal, conversion_error, needs_link, problem, required_missing
from comfy_execution.validation import validate_node_input
from comfy_execution.validator_call import call_validator, validator_arguments

logger = logging.getLogger(__name__)

MAX_NESTING = 100
Classes = Mapping[str, type]
Verdict = tuple[bool, dict[str, Any] | None, list[str], dict[str, Any]]


class _NodeFault(Exception):
    """The prompt's node itself is malformed, so that its inputs can not be checked one by one."""


@dataclass(slots=True)
class _NodeCheck:
    """What is known of one node: its errors, the nodes it links to, and whether any of those failed."""

    errors: list[Problem] = field(default_factory=list)
    parents: list[tuple[str, str]] = field(default_factory=list)
    finished: bool = False
    valid: bool = True
    linked_types: dict[str, Any] = field(default_factory=dict)


async def validate_prompt(prompt_id: str, prompt: Any, partial_execution_list: Iterable[str] | None, classes: Classes) -> Verdict:
    """Check *prompt* and convert its literals in place: ``(is it good, error or None, output ids to run, errors by node id)``.

    *partial_execution_list*: the only output nodes to run, None for all. A prompt is good when at least one of its outputs is; the
    others are left out and their errors returned. Never raises for a malformed prompt.
    """
    if not isinstance(prompt, dict):
        return _refused("invalid_prompt", "The prompt is not an object", f"it is a {type(prompt).__name__}; send node ids mapped to nodes")
    refusal = _missing_class(prompt, classes) or _too_deep(prompt)
    if refusal is not None:
        return refusal
    targets = None if partial_execution_list is None else {target for target in partial_execution_list if isinstance(target, str)}
    outputs = [node_id for node_id, node in prompt.items()
               if getattr(classes[node["class_type"]], "OUTPUT_NODE", False) is True and (targets is None or node_id in targets)]
    if not outputs:
        return _refused("prompt_no_outputs", "Prompt has no outputs", "")
    for node in prompt.values():
        node.setdefault("inputs", None)
    checker = _Checker(prompt_id, prompt, classes)
    good = [node_id for node_id in outputs if await checker.check_output(node_id)]
    for node in prompt.values():
        if not isinstance(node["inputs"], dict):
            node["inputs"] = {}
    node_errors = checker.node_errors([node_id for node_id in outputs if node_id not in set(good)])
    if good:
        return True, None, good, node_errors
    details = "\n".join(f"{one['message']}: {one['details']}" for found in node_errors.values() for one in found["errors"])
    return False, _error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details), [], node_errors


class _Checker:
    """Checks nodes depth first with its own stack; every node once."""

    def __init__(self, prompt_id: str, prompt: dict[str, Any], classes: Classes) -> None:
        self._prompt_id = prompt_id
        self._prompt = prompt
        self._classes = classes
        self._checks: dict[str, _NodeCheck] = {}
        self._declared: dict[type, Mapping[str, Any]] = {}

    async def check_output(self, output_id: str) -> bool:
        """Check an output node and all it depends on; whether all of that is good."""
        path: dict[str, Iterator[tuple[str, str]]] = {}
        self._enter(output_id, None, path)
        while path:
            node_id = next(reversed(path))
            check = self._checks[node_id]
            for name, parent_id in path[node_id]:
                if parent_id in path:
                    self._report_cycle([*_tail(path, parent_id), parent_id])
                elif parent_id not in self._checks:
                    self._enter(parent_id, (name, node_id), path)
                    break
            else:
                await self._finish(node_id, check)
                del path[node_id]
        return self._checks[output_id].valid

    def _enter(self, node_id: str, consumer: tuple[str, str] | None, path: dict[str, Iterator[tuple[str, str]]]) -> None:
        if node_id in self._checks:
            return
        check = self._checks[node_id] = _NodeCheck()
        try:
            self._check_inputs(node_id, check)
        except Exception as error:
            if not isinstance(error, _NodeFault):
                logger.exception("Node %s (%s) could not be validated", node_id, self._prompt[node_id]["class_type"])
            check.errors.append(_exception(error, consumer, self._prompt))
            check.parents.clear()
            check.finished = True
        path[node_id] = iter(check.parents)

    def _check_inputs(self, node_id: str, check: _NodeCheck) -> None:
        """Everything about a node that does not depend on the nodes it links to being good."""
        inputs = self._prompt[node_id].get("inputs")
        if not isinstance(inputs, dict):
            raise _NodeFault(f"node {node_id} has no object 'inputs'")
        class_def = self._classes[self._prompt[node_id]["class_type"]]
        declared = self._declaration(class_def, inputs)
        arguments = validator_arguments(class_def)
        for section in ("required", "optional"):
            for name, spec in (declared.get(section) or {}).items():
                config = (spec[0], spec[1] if len(spec) > 1 else {})
                if name not in inputs:
                    if section == "required":
                        check.errors.append(required_missing(name, hasattr(class_def, "GET_SCHEMA")))
                elif isinstance(inputs[name], list):
                    self._check_link(name, config, inputs[name], arguments.takes("input_types"), check)
                else:
                    trusted = arguments.takes(name) or arguments.takes_any
                    error = conversion_error(name, config, inputs)
                    if error is None and not trusted:
                        error = check_literal(name, config, inputs[name])
                        if error is None and section == "required":
                            error = needs_link(name, config, inputs[name])
                    if error is not None:
                        check.errors.append(error)

    def _declaration(self, class_def: Any, inputs: dict[str, Any]) -> Mapping[str, Any]:
        if hasattr(class_def, "GET_SCHEMA"):
            return class_def.INPUT_TYPES(live_inputs=inputs)
        if class_def not in self._declared:
            self._declared[class_def] = class_def.INPUT_TYPES()
        return self._declared[class_def]

    def _check_link(self, name: str, config: tuple[Any, Any], link: list[Any], types_are_taken: bool, check: _NodeCheck) -> None:
        if len(link) != 2 or not isinstance(link[0], str) or not isinstance(link[1], int) or isinstance(link[1], bool):
            check.errors.append(problem("bad_linked_input", "Bad linked input, must be a length-2 list of [node_id, slot_index]", name, {
                "input_name": name, "input_config": config, "received_value": link}))
            return
        parent_id, index = link
        if parent_id not in self._prompt:
            raise _NodeFault(f"input {name!r} is linked to node {parent_id!r}, which is not in the prompt")
        parent_class: Any = self._classes[self._prompt[parent_id]["class_type"]]
        types = parent_class.RETURN_TYPES
        if not 0 <= index < len(types):
            raise _NodeFault(f"input {name!r} is linked to output {index} of node {parent_id}, which has {len(types)} outputs")
        received = types[index]
        check.linked_types[name] = received
        if not types_are_taken and not validate_node_input(received, config[0]):
            check.errors.append(problem("return_type_mismatch", "Return type mismatch between linked nodes",
                                         f"{name}, received_type({received}) mismatch input_type({config[0]})", {
                                             "input_name": name, "input_config": config, "received_type": received, "linked_node": link}))
            return
        check.parents.append((name, parent_id))

    async def _finish(self, node_id: str, check: _NodeCheck) -> None:
        """All nodes above are checked: ask the node's own validator, and settle whether it is good."""
        if not check.finished:
            node = self._prompt[node_id]
            try:
                check.errors += await call_validator(self._classes[node["class_type"]], node_id, node["inputs"], check.linked_types)
            except Exception as error:
                logger.exception("The validator of node %s (%s) raised", node_id, node["class_type"])
                check.errors.append(_exception(error, None, self._prompt))
            check.finished = True
        check.valid = not check.errors and all(self._checks[parent].valid for _, parent in check.parents)

    def _report_cycle(self, cycle_path: list[str]) -> None:
        members = list(dict.fromkeys(cycle_path))
        shown = cycle_path if len(cycle_path) <= 40 else [*cycle_path[:20], "…", *cycle_path[-20:]]
        details = " -> ".join(f"{node_id} ({self._prompt[node_id]['class_type']})" if node_id != "…" else node_id for node_id in shown)
        for node_id in members:
            self._checks[node_id].errors.append(problem("dependency_cycle", "Dependency cycle detected", details, {
                "node_id": node_id, "cycle_nodes": members[:1000]}))

    def node_errors(self, failed_outputs: Iterable[str]) -> dict[str, Any]:
        """Errors by node id, each with the failed outputs that depend on it."""
        found: dict[str, Any] = {}
        for output_id in failed_outputs:
            seen = {output_id}
            waiting = [output_id]
            while waiting:
                node_id = waiting.pop()
                check = self._checks[node_id]
                if check.errors:
                    entry = found.setdefault(node_id, {"errors": check.errors, "dependent_outputs": [],
                                                       "class_type": self._prompt[node_id]["class_type"]})
                    entry["dependent_outputs"].append(output_id)
                above = [parent for _, parent in check.parents if parent not in seen and not self._checks[parent].valid]
                seen.update(above)
                waiting += above
        for node_id, entry in found.items():
            logger.error("Node %s (%s): %s", node_id, entry["class_type"],
                         "; ".join(f"{one['message']}: {one['details']}" for one in entry["errors"]))
        return found


def _tail(path: dict[str, Any], first: str) -> list[str]:
    nodes = list(path)
    return nodes[nodes.index(first):]


def _missing_class(prompt: dict[str, Any], classes: Classes) -> Verdict | None:
    for node_id, node in prompt.items():
        class_type = node.get("class_type") if isinstance(node, dict) else None
        if isinstance(class_type, str) and class_type in classes:
            continue
        meta = node.get("_meta") if isinstance(node, dict) else None
        title = meta.get("title") if isinstance(meta, dict) else None
        title = title if isinstance(title, str) else None
        if not isinstance(class_type, str) or not class_type:
            message = f"Node '{title or f'ID #{node_id}'}' has no class_type: the workflow is damaged, or a node pack is missing."
            class_type = None
        else:
            message = f"Node '{title or class_type}' not found. The node pack that provides it may not be installed."
        extra = {"node_id": node_id, "class_type": class_type, "node_title": title}
        return _refused("missing_node_type", message, f"Node ID '#{node_id}'", extra)
    return None


def _too_deep(prompt: dict[str, Any]) -> Verdict | None:
    """Refuse values nested deeper than anything a node takes; they could not be sent back as JSON."""
    level: list[Any] = list(prompt.values())
    for _ in range(MAX_NESTING):
        level = [part for value in level if isinstance(value, dict | list)
                 for part in (value.values() if isinstance(value, dict) else value)]
        if not level:
            return None
    return _refused("invalid_prompt", "The prompt is nested too deeply", f"values may be nested up to {MAX_NESTING} levels")


def _exception(error: Exception, consumer: tuple[str, str] | None, prompt: dict[str, Any]) -> Problem:
    kind = type(error)
    name = "comfy.ValidationError" if isinstance(error, _NodeFault) else f"{kind.__module__}.{kind.__qualname__}"
    info: dict[str, Any] = {"exception_type": name, "traceback": []}
    if consumer is None:
        return problem("exception_during_validation", "Exception when validating node", str(error), info)
    input_name, consumer_id = consumer
    info |= {"input_name": input_name, "exception_message": str(error), "linked_node": prompt[consumer_id]["inputs"][input_name]}
    return problem("exception_during_inner_validation", "Exception when validating inner node", str(error), info)


def _error(kind: str, message: str, details: str, extra_info: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info or {}}


def _refused(kind: str, message: str, details: str, extra_info: dict[str, Any] | None = None) -> Verdict:
    return False, _error(kind, message, details, extra_info), [], {}
