"""What is said of the nodes that cannot run: their errors, and the outputs that fail with them, in an answer of limited size."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comfy_execution.prompt_checks.literals import Problem
from comfy_execution.prompt_checks.shown_values import weight

# Over all nodes together, in characters of JSON; a prompt of thousands of failing nodes and outputs would else be answered with gigabytes.
MAX_ANSWER = 3_000_000
MAX_DETAILS = 10_000
MAX_DEPENDENT_OUTPUTS = 100_000
MIN_DEPENDENT_OUTPUTS = 10
# So many outputs are looked at together, each as a bit of one number per node.
OUTPUTS_AT_ONCE = 4096

Links = Mapping[str, Sequence[str]]


def failing_outputs(outputs: Sequence[str], order: Sequence[str], above: Links, wrong: Sequence[str], rounds: int) -> dict[str, list[str]]:
    """By the id of each node of *wrong*, the first of the *outputs* that depend on it, in their order; nodes without any are left out.

    *order*: every node after the nodes that depend on it, apart from circles. *above*: the nodes that a node links to. *rounds*: how often
    to go through *order*; circles take two.
    """
    most = max(MIN_DEPENDENT_OUTPUTS, MAX_DEPENDENT_OUTPUTS // max(1, len(wrong)))
    found: dict[str, list[str]] = {node_id: [] for node_id in wrong}
    for start in range(0, len(outputs), OUTPUTS_AT_ONCE):
        some = outputs[start : start + OUTPUTS_AT_ONCE]
        masks = _masks(some, order, above, rounds)
        is_full = True
        for node_id, listed in found.items():
            _add_members(listed, masks.get(node_id, 0), some, most)
            is_full &= len(listed) >= most
        if is_full:
            break
    return {node_id: listed for node_id, listed in found.items() if listed}


def _masks(outputs: Sequence[str], order: Iterable[str], above: Links, rounds: int) -> dict[str, int]:
    """For each node, which of *outputs* depend on it, one bit each."""
    masks = {node_id: 1 << index for index, node_id in enumerate(outputs)}
    for _ in range(rounds):
        for node_id in order:
            mask = masks.get(node_id, 0)
            for parent_id in above.get(node_id, ()) if mask else ():
                masks[parent_id] = masks.get(parent_id, 0) | mask
    return masks


def _add_members(listed: list[str], mask: int, ids: Sequence[str], most: int) -> None:
    """Add the *ids* whose bit is set until *most* are listed."""
    while mask and len(listed) < most:
        lowest = mask & -mask
        listed.append(ids[lowest.bit_length() - 1])
        mask ^= lowest


def bounded(entries: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The first of the *entries* of ``node_errors`` that fit into an answer, at least one; the last one's lists may be cut."""
    kept: dict[str, Any] = {}
    left = MAX_ANSWER
    for node_id, entry in entries:
        if left <= 0:
            break
        left -= weight(node_id, left)
        for name in ("errors", "dependent_outputs"):
            entry[name], left = _fitting(entry[name], left)
        kept[node_id] = entry
    return kept


def _fitting(parts: list[Any], left: int) -> tuple[list[Any], int]:
    """The first of *parts*, at least one, that fit into *left* characters, and what is left then."""
    for index, part in enumerate(parts):
        if left <= 0 and index:
            return parts[:index], left
        left -= weight(part, left)
    return parts, left


def details_of(node_errors: Mapping[str, Any], more: int) -> str:
    """All errors as one text that is cut when it is long. *more*: how many nodes with errors are not among them."""
    lines: list[str] = []
    left = MAX_DETAILS
    for text in (text_of(one) for found in node_errors.values() for one in found["errors"]):
        left -= len(text) + 1
        if left < 0 and lines:
            lines.append("…")
            break
        lines.append(text[:MAX_DETAILS])
    if more:
        lines.append(f"{more} more nodes have errors")
    return "\n".join(lines)


def text_of(error: Problem) -> str:
    """One error in a line."""
    return f"{error['message']}: {error['details']}"
