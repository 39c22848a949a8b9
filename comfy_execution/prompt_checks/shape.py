"""Checks of a prompt as a whole: whether it consists of nodes, and whether its links lead to nodes that exist."""

from collections.abc import Iterable, Mapping
from typing import Any

from comfy_execution.graph_utils import is_link
from comfy_execution.prompt_checks.literals import Problem, problem

MAX_NESTING = 100

Classes = Mapping[str, Any]


def shape_problem(prompt: Any, targets: Any, classes: Classes) -> Problem | None:
    """Why the nodes cannot be checked one by one; None when they can."""
    if not isinstance(prompt, dict):
        details = f"it is a {type(prompt).__name__}; send node ids mapped to nodes"
        return problem("invalid_prompt", "The prompt is not an object", details, {})
    for node_id in prompt:
        if not isinstance(node_id, str):
            return problem("invalid_prompt", "A node id is not a string", f"it is a {type(node_id).__name__}: {str(node_id)[:100]}", {})
    if targets is not None and (isinstance(targets, str | bytes | Mapping) or not isinstance(targets, Iterable)):
        return problem("invalid_prompt", "partial_execution_targets is not a list", f"it is a {type(targets).__name__}; send node ids", {})
    return _missing_class(prompt, classes) or _too_deep(prompt)


def _missing_class(prompt: dict[str, Any], classes: Classes) -> Problem | None:
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
        return problem("missing_node_type", message, f"Node ID '#{node_id}'", extra)
    return None


def _too_deep(prompt: dict[str, Any]) -> Problem | None:
    """Refuse values nested deeper than anything a node takes; they could not be sent back as JSON."""
    level: list[Any] = list(prompt.values())
    for _ in range(MAX_NESTING):
        level = [
            part for value in level if isinstance(value, dict | list) for part in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return None
    return problem("invalid_prompt", "The prompt is nested too deeply", f"values may be nested up to {MAX_NESTING} levels", {})


def lost_links(prompt: Mapping[str, Any]) -> dict[str, Problem]:
    """By node id, what is wrong with nodes that cannot be run because a link, declared or not, leads to no node.

    Links of inputs that a class does not declare are delivered to it as well, so they matter although nothing else about them is checked.
    """
    found: dict[str, Problem] = {}
    for node_id, node in prompt.items():
        inputs = node.get("inputs")
        if not isinstance(inputs, dict):
            found[node_id] = problem(
                "exception_during_validation",
                "Exception when validating node",
                f"node {node_id} has no object 'inputs'",
                {"exception_type": "comfy.ValidationError", "traceback": []},
            )
            continue
        for name, value in inputs.items():
            if is_link(value) and value[0] not in prompt:
                found[node_id] = problem(
                    "bad_linked_input",
                    "Bad linked input, the node it refers to is not in the prompt",
                    name,
                    {"input_name": name, "input_config": None, "received_value": value},
                )
                break
    return found


def dependents(prompt: Mapping[str, Any], node_ids: Iterable[str]) -> set[str]:
    """*node_ids* and every node that depends on one of them through any link."""
    consumers: dict[str, list[str]] = {}
    for node_id, node in prompt.items():
        inputs = node.get("inputs")
        for value in inputs.values() if isinstance(inputs, dict) else ():
            if is_link(value):
                consumers.setdefault(value[0], []).append(node_id)
    reached = set(node_ids)
    waiting = list(reached)
    while waiting:
        for consumer in consumers.get(waiting.pop(), ()):
            if consumer not in reached:
                reached.add(consumer)
                waiting.append(consumer)
    return reached
