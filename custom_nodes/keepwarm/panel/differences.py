"""What has changed between two pictures of the server's models, as small as it can be said."""

from collections.abc import Mapping
from typing import Any

MOST_ROWS = 64
# Always a little different: told with other changes, never alone.
_RESTLESS = ("free_bytes",)
# Times of use come from another clock each time; less is no change.
LEAST_STEP_S = 1.5

Picture = dict[str, Any]


def steadied(old: Picture | None, new: Picture) -> Picture:
    """*new*, with times of use that differ from *old*'s only by how they were measured taken from there."""
    before = {} if old is None else old["rows"]
    rows = {}
    for row_id, row in new["rows"].items():
        was = before.get(row_id, {}).get("used_at")
        same = was is not None and row["used_at"] is not None and abs(row["used_at"] - was) < LEAST_STEP_S
        rows[row_id] = {**row, "used_at": was} if same else row
    return {**new, "rows": rows}


def difference(old: Picture, new: Picture) -> dict[str, Any] | None:
    """What turns *old* into *new*; None when nothing does. ``{"all": True}`` where that is too much for a small message.

    ``rows``: those that are new or changed; ``gone``: ids; ``prompt``: its new receipts, from number ``from`` on; ``points``: new ones;
    other members as they are now.
    """
    changed = [row for row_id, row in new["rows"].items() if old["rows"].get(row_id) != row]
    gone = [row_id for row_id in old["rows"] if row_id not in new["rows"]]
    if len(changed) + len(gone) > MOST_ROWS:
        return {"all": True}
    found: dict[str, Any] = {}
    if changed:
        found["rows"] = changed
    if gone:
        found["gone"] = gone
    if old["prompt"] != new["prompt"]:
        found["prompt"] = _prompt(old["prompt"], new["prompt"])
    known = {point["id"] for point in old["points"]}
    points = [point for point in new["points"] if point["id"] not in known]
    if points:
        found["points"] = points
    for name in new.keys() - {"rows", "prompt", "points"}:
        if _calm(old.get(name)) != _calm(new[name]):
            found[name] = new[name]
    return found or None


def _prompt(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    known = old["receipts"]
    is_same = old["id"] == new["id"] and new["receipts"][: len(known)] == known
    start = len(known) if is_same else 0
    return {**new, "receipts": new["receipts"][start:], "from": start}


def _calm(value: Any) -> Any:
    """*value* without what never stands still."""
    if isinstance(value, Mapping):
        return {name: _calm(inner) for name, inner in value.items() if name not in _RESTLESS}
    return [_calm(inner) for inner in value] if isinstance(value, list) else value
