"""Damages JSON documents by chance, the same way for the same seed."""

import copy
import random
from collections.abc import Iterator
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    4,
    7,
    -10,
    -20,
    10**6,
    10**25,
    -(2**63),
    0.5,
    1e300,
    float("nan"),
    float("inf"),
    "",
    "-1",
    "5",
    "x",
    "\ud800",
    "a" * 3000,
    "{" * 300,
    "{a|{b|c}",
    "%date:yyyy%",
    "proxyWidgets",
    [],
    {},
    [None],
    [[]],
    [1, 2, 3],
    {"a": {"b": []}},
    {"name": None},
    {"name": 5, "link": 1},
    [["5", "width"]],
    [["-1", "x"], ["1"]],
    "COMFY_AUTOGROW_V3",
    "PrimitiveNode",
    "Reroute",
)


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in *value*."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        if depth < 12:
            yield from _places(value[key], depth + 1)


def damaged(document: Any, chance: random.Random, changes: int) -> Any:
    """A copy of *document* with *changes* random changes: entries gone, doubled, exchanged, of the wrong kind or from elsewhere."""
    result = copy.deepcopy(document)
    for _ in range(changes):
        places = list(_places(result))
        if not places:
            return chance.choice(ODD_VALUES)
        container, key = chance.choice(places)
        other, other_key = chance.choice(places)
        kind = chance.randrange(6)
        if kind == 0:
            del container[key]
        elif kind == 1:
            container[key] = copy.deepcopy(chance.choice(ODD_VALUES))
        elif kind == 2 and isinstance(container, list):
            container.insert(chance.randrange(len(container) + 1), copy.deepcopy(container[key]))
        elif kind == 3 and other is not container and other_key in (other if isinstance(other, dict) else range(len(other))):
            container[key] = copy.deepcopy(other[other_key])
        elif kind == 4 and isinstance(container[key], int | float) and not isinstance(container[key], bool):
            container[key] = chance.randrange(-25, 40)
        elif isinstance(container, list):
            chance.shuffle(container)
    return result
