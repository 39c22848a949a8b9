"""Reads workflow files in either format, changes them as the command line says, and gives them new seeds."""

import json
import pathlib
import random
from collections.abc import Callable, Iterable
from typing import Any

from serverless.workflow_normalization import is_api_workflow, is_page_workflow

SEED_INPUTS = frozenset({"seed", "noise_seed"})
MAX_SEED = 2**53 - 1

ObjectInfo = Callable[[], dict[str, Any]]


class BadWorkflow(ValueError):
    """The file cannot be sent; the message names it and says what to do."""


def load_workflow(path: pathlib.Path, object_info: ObjectInfo | None) -> dict[str, Any]:
    """The workflow in *path* in API format.

    *object_info* gives ``/object_info`` of a server that has the workflow's nodes; without it a file that the page saved cannot be read.
    Raises ``BadWorkflow``.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadWorkflow(f"{path}: {error}") from None
    for wrapper in ("input", "workflow", "prompt"):
        inner = document.get(wrapper) if isinstance(document, dict) and not is_api_workflow(document) else None
        if isinstance(inner, dict):
            document = inner
    if is_api_workflow(document):
        workflow: dict[str, Any] = document
        return workflow
    if not is_page_workflow(document):
        raise BadWorkflow(f"{path} is not a workflow: save it from the page with Export (API)")
    return _converted(path, document, object_info)


def _converted(path: pathlib.Path, document: dict[str, Any], object_info: ObjectInfo | None) -> dict[str, Any]:
    if object_info is None:
        raise BadWorkflow(
            f"{path} is in the format that the page saves: give --object-info a file or a server's address, so that the "
            "names of its inputs are known, or save it with Export (API)"
        )
    try:
        from app.workflow_conversion import WorkflowFormatError, to_prompt
    except ImportError:
        raise BadWorkflow(
            f"{path} is in the format that the page saves, which this client converts only from within the project's "
            "folder; save it with Export (API)"
        ) from None
    info = object_info()
    try:
        return to_prompt(document, info.get)
    except WorkflowFormatError as error:
        raise BadWorkflow(f"{path}: {error}") from None


def with_values(workflow: dict[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """A copy of *workflow* with *changes* such as ``5.steps=8`` or ``KSampler.steps=8`` (all nodes of a class). Raises ``BadWorkflow``."""
    changed = {node_id: {**node, "inputs": dict(node.get("inputs") or {})} for node_id, node in workflow.items()}
    for change in changes:
        place, equals, text = change.partition("=")
        who, dot, name = place.rpartition(".")
        if not equals or not dot:
            raise BadWorkflow(f"--set {change}: write NODE.INPUT=VALUE, NODE being an id or a class")
        nodes = [node for node_id, node in changed.items() if who in (node_id, node.get("class_type"))]
        if not nodes:
            raise BadWorkflow(f"--set {change}: the workflow has neither a node {who!r} nor one of that class")
        for node in nodes:
            node["inputs"][name] = _value(text)
    return changed


def with_new_seeds(workflow: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy of *workflow* in which every seed that is a number has a new value."""

    def changed(node: dict[str, Any]) -> dict[str, Any]:
        inputs = {
            name: rng.randrange(MAX_SEED) if name in SEED_INPUTS and isinstance(value, int) else value
            for name, value in (node.get("inputs") or {}).items()
        }
        return {**node, "inputs": inputs}

    return {node_id: changed(node) for node_id, node in workflow.items()}


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
