"""Merges JSON-like values."""

from typing import Any


def merge_json_recursive(base: Any, update: Any) -> Any:
    """Return *base* overlaid with *update*, neither being changed.

    Objects are merged key by key and lists are joined; of other values *update* wins.
    """
    match base, update:
        case dict(), dict():
            common = {key: merge_json_recursive(base[key], update[key]) for key in base.keys() & update.keys()}
            return {**base, **update, **common}
        case list(), list():
            return [*base, *update]
    return update
