"""Nodes that stand in for older ones: listed for the page, and put into prompts that still name the old ones."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from aiohttp import web

import nodes
from app.files.strict_json import json_answer
from comfy_execution.graph_utils import is_link

log = logging.getLogger(__name__)


class Replacement(Protocol):
    """What ``comfy_api``'s ``io.NodeReplace`` offers."""

    old_node_id: str
    new_node_id: str
    input_mapping: list[dict[str, Any]] | None
    output_mapping: list[dict[str, int]] | None

    def as_dict(self) -> dict[str, Any]:
        """The form that the page reads."""


class NodeReplaceManager:
    """The replacements that packs registered, by old node id. Used while packs load and from the server's loop."""

    def __init__(self) -> None:
        self._replacements: dict[str, list[Any]] = {}

    def register(self, node_replace: Replacement) -> None:
        """Offer a replacement. A second one for the same pair of old and new node is ignored."""
        known = self._replacements.setdefault(node_replace.old_node_id, [])
        if any(other.new_node_id == node_replace.new_node_id for other in known):
            log.debug("%s already replaces %s", node_replace.new_node_id, node_replace.old_node_id)
            return
        known.append(node_replace)

    def get_replacement(self, old_node_id: str) -> list[Any] | None:
        """The replacements of a node in order of registration, None without any."""
        return self._replacements.get(old_node_id)

    def has_replacement(self, old_node_id: str) -> bool:
        """Whether something was registered for this node."""
        return old_node_id in self._replacements

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Every replacement as the page reads it, by old node id."""
        return {old: [entry.as_dict() for entry in entries] for old, entries in self._replacements.items()}

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register ``/node_replacements``."""
        routes.get("/node_replacements")(self._list)

    async def _list(self, request: web.Request) -> web.Response:
        return json_answer(self.as_dict())

    def apply_replacements(self, prompt: dict[str, Any]) -> None:
        """Rewrite *prompt* in place: unknown nodes become their replacement, and links to them follow its outputs.

        A replacement without an input mapping keeps the inputs. What is not a node is left for validation to refuse.
        """
        replaced = {node_id: entry for node_id, node in prompt.items() if (entry := self._choose(node)) is not None}
        for node_id, entry in replaced.items():
            prompt[node_id] = _rewritten(prompt[node_id], entry)
        outputs = {node_id: _output_indices(entry) for node_id, entry in replaced.items() if entry.output_mapping}
        if outputs:
            for node_id, node in prompt.items():
                prompt[node_id] = _relinked(node, outputs)

    def _choose(self, node: Any) -> Any:
        """The first replacement of an unknown node whose new class exists."""
        class_type = node.get("class_type") if _has_inputs(node) else None
        if not isinstance(class_type, str) or class_type in nodes.NODE_CLASS_MAPPINGS:
            return None
        candidates = self._replacements.get(class_type, ())
        return next((entry for entry in candidates if entry.new_node_id in nodes.NODE_CLASS_MAPPINGS), None)


def _has_inputs(node: Any) -> bool:
    return isinstance(node, Mapping) and isinstance(node.get("inputs"), Mapping)


def _rewritten(node: Mapping[str, Any], entry: Any) -> dict[str, Any]:
    old_inputs = node["inputs"]
    inputs = dict(old_inputs) if entry.input_mapping is None else {}
    for mapping in entry.input_mapping or ():
        if "set_value" in mapping:
            inputs[mapping["new_id"]] = mapping["set_value"]
        elif mapping.get("old_id") in old_inputs:
            inputs[mapping["new_id"]] = old_inputs[mapping["old_id"]]
    return {**node, "class_type": entry.new_node_id, "inputs": inputs}


def _output_indices(entry: Any) -> dict[int, int]:
    return {mapping["old_idx"]: mapping["new_idx"] for mapping in entry.output_mapping}


def _relinked(node: Any, outputs: Mapping[str, Mapping[int, int]]) -> Any:
    """*node* with its links to replaced nodes pointing at the new outputs."""
    if not _has_inputs(node):
        return node
    moved = {
        name: [link[0], outputs[link[0]].get(link[1], link[1])]
        for name, link in node["inputs"].items()
        if is_link(link) and link[0] in outputs
    }
    return {**node, "inputs": {**node["inputs"], **moved}} if moved else node
