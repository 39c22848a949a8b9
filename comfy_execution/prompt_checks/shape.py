"""Checks of a prompt as a whole: whether it consists of nodes, and whether its links lead to nodes that exist."""

from collections.abc import Iterable, Mapping
from typing import Any

from comfy_execution.graph_utils import is_link
from comfy_execution.prompt_checks.literals import Problem, problem
from comfy_execution.prompt_checks.shown_values import brief, echo

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
        title = brief(title) if isinstance(title, str) else None
        if not isinstance(class_type, str) or not class_type:
            message = f"Node '{title or f'ID #{brief(node_id)}'}' has no class_type: the workflow is damaged, or a node pack is missing."
            class_type = None
        else:
            class_type = brief(class_type)
            message = f"Node '{title or class_type}' not found. The node pack that provides it may not be installed."
        extra = {"node_id": brief(node_id), "class_type": class_type, "node_title": title}
        return problem("missing_node_type", message, f"Node ID '#{brief(node_id)}'", extra)
    return None


def _too_deep(prompt: dict[str, Any]) -> Problem | None:
    """Refuse values nested deeper than anything a node takes; they could not be sent back as JSON."""
    level: list[Any] = list(prompt.values())
    for _ in range(MAX_NESTING):
        level = [
            part
            for value in level
            for part in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
            if isinstance(part, dict | list)
        ]
        if not level:
            return None
    return problem("invalid_prompt", "The prompt is nested too deeply", f"values may be nested up to {MAX_NESTING} levels", {})


def lost_links(prompt: Mapping[str, Any]) -> dict[str, str | None]:
    """Nodes that cannot be run because an input, declared or not, is linked to no node: the input by node id, None without any inputs.

    Links of inputs that a class does not declare are delivered to it as well, so they matter although nothing else about them is checked.
    """
    found: dict[str, str | None] = {}
    for node_id, node in prompt.items():
        inputs = node.get("inputs")
        if not isinstance(inputs, dict):
            found[node_id] = None
            continue
        for name, value in inputs.items():
            if is_link(value) and value[0] not in prompt:
                found[node_id] = name
                break
    return found


def lost_link_problem(prompt: Mapping[str, Any], node_id: str, name: str | None) -> Problem:
    """What is wrong with a node that ``lost_links`` found."""
    if name is None:
        return problem(
            "exception_during_validation",
            "Exception when validating node",
            f"node {brief(node_id)} has no object 'inputs'",
            {"exception_type": "comfy.ValidationError", "traceback": []},
        )
    return problem(
        "bad_linked_input",
        "Bad linked input, the node it refers to is not in the prompt",
        brief(name),
        {"input_name": brief(name), "input_config": None, "received_value": echo(prompt[node_id]["inputs"][name])},
    )


def links_of(prompt: Mapping[str, Any]) -> dict[str, list[str]]:
    """By node id, the nodes that it has links to, declared or not."""
    return {
        node_id: [value[0] for value in node["inputs"].values() if is_link(value)]
        for node_id, node in prompt.items()
        if isinstance(node.get("inputs"), dict)
    }


def turned(links: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """*links* read in the other direction."""
    consumers: dict[str, list[str]] = {}
    for node_id, parents in links.items():
        for parent_id in parents:
            consumers.setdefault(parent_id, []).append(node_id)
    return consumers


def reached(links: Mapping[str, Iterable[str]], node_ids: Iterable[str]) -> set[str]:
    """*node_ids* and every node that one can get to from them."""
    found = set(node_ids)
    waiting = list(found)
    while waiting:
        for node_id in links.get(waiting.pop(), ()):
            if node_id not in found:
                found.add(node_id)
                waiting.append(node_id)
    return found
