"""Gives nodes ids that follow from the workflow itself, so that the server sees the same workflow whoever sends it.

A server keeps node objects under their ids, and nodes that are told their id get it as part of their cache key. Clients number nodes as
they like; :func:`normalize_workflow_for_caching` renumbers them. An id depends on the class of a node and on what leads to it, not
on values of widgets, so another seed or text changes no id, and a node added further down changes none above. Standard library only.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from serverless.graph_colours import Graph, TieBreaker, digest, from_ancestors, refine

ID_SPACE = 10**12

_RUNTIME_SEPARATORS = re.compile(r"[.:]")
_LONG_NUMBER = re.compile(r"(?<![0-9A-Za-z_])[0-9]{6,}(?![0-9A-Za-z_])")
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=repr)


@dataclass(frozen=True, slots=True)
class NormalizedWorkflow:
    """*workflow*: the same nodes under canonical ids, sources first. *original_ids*: canonical id → the client's."""

    workflow: dict[str, Any]
    original_ids: Mapping[str, str]

    def canonical_ids(self) -> dict[str, str]:
        """The client's id → canonical id."""
        return {original: canonical for canonical, original in self.original_ids.items()}

    def original_id(self, node_id: str) -> str:
        """The client's id for an id the server names. Ids made while running (``id.0.0.name``) keep their tail; unknown ids stay."""
        if node_id in self.original_ids:
            return self.original_ids[node_id]
        for separator in _RUNTIME_SEPARATORS.finditer(node_id):
            head = node_id[: separator.start()]
            if head in self.original_ids:
                return self.original_ids[head] + node_id[separator.start() :]
        return node_id

    def original_text(self, text: str) -> str:
        """*text*, a message of the server, with the canonical ids in it replaced by the client's."""
        return _LONG_NUMBER.sub(lambda found: self.original_ids.get(found[0], found[0]), text)

    def restore(self) -> dict[str, Any]:
        """The workflow under the client's ids again."""
        return _renamed(self.workflow, list(self.workflow), self.original_ids)


def is_api_workflow(document: Any) -> bool:
    """Whether *document* is a workflow in API format: ids mapped to nodes with a ``class_type``."""
    return (
        isinstance(document, dict) and bool(document) and all(isinstance(node, dict) and "class_type" in node for node in document.values())
    )


def is_page_workflow(document: Any) -> bool:
    """Whether *document* is a workflow as the page saves it: a list of nodes with positions and links."""
    return isinstance(document, dict) and isinstance(document.get("nodes"), list) and "links" in document


def is_link(value: Any, node_ids: Collection[str]) -> bool:
    """Whether an input's value refers to an output of one of *node_ids*. Other lists of two are values."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
        and value[0] in node_ids
    )


def classes_told_their_id(object_info: Mapping[str, Any]) -> frozenset[str]:
    """The classes with a hidden ``UNIQUE_ID`` input, from ``GET /object_info``."""
    return frozenset(name for name, info in object_info.items() if "UNIQUE_ID" in _hidden_kinds(info))


def classes_that_search_the_page_workflow(object_info: Mapping[str, Any]) -> frozenset[str]:
    """The classes that get both their id and the page's workflow, in which they may look themselves up."""
    return frozenset(name for name, info in object_info.items() if {"UNIQUE_ID", "EXTRA_PNGINFO"} <= _hidden_kinds(info))


def normalize_workflow_for_caching(
    workflow: Mapping[str, Any], told_classes: Collection[str] = (), keep_ids: Collection[str] = ()
) -> NormalizedWorkflow:
    """Give *workflow* (API format) ids that depend on its graph alone; the input is not changed.

    Equal up to ids, order of keys and ``_meta`` → equal ids. Every node keeps an id of its own, twins too. Nodes of *told_classes* (see
    :func:`classes_told_their_id`) that only differ in values get ids that follow the values, so that a changed value does not swap their
    ids. Nodes in *keep_ids* keep theirs. Nodes of unknown classes and malformed nodes are passed on for the server to judge.
    """
    ids = list(workflow)
    nodes = [workflow[node_id] for node_id in ids]
    numbers = {node_id: position for position, node_id in enumerate(ids)}
    parts = [_NodeParts.of(node, numbers) for node in nodes]
    graph = Graph.of([[(label, numbers[source]) for label, source in part.links] for part in parts])
    order = graph.order()
    lineage = from_ancestors(graph, [part.structure for part in parts], order)
    structure, _ = refine(graph, lineage, order)
    contents, _ = refine(graph, [digest(colour, part.values) for colour, part in zip(structure, parts)], order)
    ranks = TieBreaker(graph, contents).ranks()
    ranked = sorted(range(len(ids)), key=lambda node: (lineage[node], structure[node], contents[node], ranks.get(node, 0)))
    told = _told_and_ambiguous(nodes, lineage, told_classes)
    full_lineage = from_ancestors(graph, [digest(colour, part.values) for colour, part in zip(lineage, parts)], order) if told else lineage
    taken = {node_id for node_id in keep_ids if node_id in numbers} | _dangling_names(nodes, numbers)
    canonical = {node_id: node_id for node_id in keep_ids if node_id in numbers}
    following: dict[bytes, int] = {}
    for node in ranked:
        if ids[node] not in canonical:
            canonical[ids[node]] = _free_id(full_lineage[node] if node in told else lineage[node], following, taken)
    sequence = _sources_first(graph, ranked)
    return NormalizedWorkflow(_renamed(workflow, [ids[node] for node in sequence], canonical), {new: old for old, new in canonical.items()})


def _hidden_kinds(info: Any) -> set[Any]:
    hidden = (info.get("input") or {}).get("hidden") if isinstance(info, dict) else None
    if not isinstance(hidden, dict):
        return set()
    kinds = [kind[0] if isinstance(kind, list) and kind else kind for kind in hidden.values()]
    return {kind for kind in kinds if isinstance(kind, str)}


def _inputs(node: Any) -> dict[str, Any]:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


@dataclass(frozen=True, slots=True)
class _NodeParts:
    """A node as the graph sees it: digests of its class with its inputs' names, and of its values; (label, source id) of its links."""

    structure: bytes
    values: bytes
    links: list[tuple[bytes, str]]

    @classmethod
    def of(cls, node: Any, node_ids: Collection[str]) -> "_NodeParts":
        """``_meta`` and other notes of the page do not count."""
        if not isinstance(node, dict):
            return cls(b"", _digest_of(node), [])
        inputs = _inputs(node)
        linked = {name: value for name, value in inputs.items() if is_link(value, node_ids)}
        values = {name: value for name, value in inputs.items() if name not in linked}
        odd = None if isinstance(node.get("inputs", {}), dict) else node["inputs"]
        links = [(digest(f"{name}\0{float(value[1])!r}".encode("utf-8", "surrogatepass")), value[0]) for name, value in linked.items()]
        return cls(_digest_of([node.get("class_type"), sorted(linked), sorted(values)]), _digest_of([values, odd]), links)


def _digest_of(value: Any) -> bytes:
    return digest(_ENCODER.encode(value).encode())


def _told_and_ambiguous(nodes: list[Any], lineage: list[bytes], told_classes: Collection[str]) -> set[int]:
    counts = Counter(lineage)
    return {
        position
        for position, node in enumerate(nodes)
        if isinstance(node, dict) and node.get("class_type") in told_classes and counts[lineage[position]] > 1
    }


def _dangling_names(nodes: list[Any], numbers: Mapping[str, int]) -> set[str]:
    """Names that look like references to nodes that are not there; no id may make them valid."""
    return {
        value[0]
        for node in nodes
        for value in _inputs(node).values()
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] not in numbers
    }


def _free_id(colour: bytes, following: dict[bytes, int], taken: set[str]) -> str:
    """The number that *colour* stands for, or the next free one; *following* remembers where the last search of a colour ended."""
    number = following.get(colour, int.from_bytes(colour, "big") % ID_SPACE)
    while str(number) in taken:
        number += 1
    following[colour] = number + 1
    taken.add(str(number))
    return str(number)


def _sources_first(graph: Graph, ranked: list[int]) -> list[int]:
    """*ranked* rearranged so that a node follows what it depends on; without recursion."""
    done: set[int] = set()
    opened: set[int] = set()
    sequence = []
    for start in ranked:
        waiting = [start]
        while waiting:
            node = waiting[-1]
            if node in done:
                waiting.pop()
            elif node in opened:
                waiting.pop()
                done.add(node)
                sequence.append(node)
            else:
                opened.add(node)
                waiting += [source for _, source in reversed(graph.sources[node]) if source not in opened]
    return sequence


def _renamed(workflow: Mapping[str, Any], sequence: list[str], new_ids: Mapping[str, str]) -> dict[str, Any]:
    return {new_ids[node_id]: _renamed_node(workflow[node_id], new_ids) for node_id in sequence}


def _renamed_node(node: Any, new_ids: Mapping[str, str]) -> Any:
    if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
        return node
    inputs = {name: [new_ids[value[0]], value[1]] if is_link(value, new_ids) else value for name, value in node["inputs"].items()}
    return {**node, "inputs": inputs}
