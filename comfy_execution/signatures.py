"""Input signatures of nodes: equal exactly when the nodes would compute the same, whatever their ids.

A signature is a Merkle hash: it covers the node's class, its own inputs and, for each link, the signature of the node it comes from
with the output's number. Every node is hashed once from its parents' finished hashes, so all signatures of a graph cost time linear
in its nodes and links, and no depth of graph needs recursion. (R. C. Merkle, "A Digital Signature Based on a Conventional Encryption
Function", CRYPTO '87.)

Two inputs fed by one node and two inputs fed by two equal nodes give the same signature: their values are equal.

A node is *uncacheable* when something it depends on can not be compared: a value unequal to itself (NaN), an object of a type that has
no canonical form, a link to a node that does not exist, a cycle. Its signature, and that of every node below it, is an ``Uncacheable``,
equal to nothing else. Standard library only.
"""

import hashlib
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

MAX_DEPTH = 200


class Uncacheable:
    """A signature that is equal to none, not even to itself, with the reason for the curious."""

    __hash__ = object.__hash__

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.value = float("nan")

    def __eq__(self, other: object) -> bool:
        return False

    def __repr__(self) -> str:
        return f"Uncacheable({self.reason!r})"


class NotCanonical(ValueError):
    """A value has no canonical form; the message says which."""


Signature = str | Uncacheable


def canonical_bytes(value: Any) -> bytes:
    """*value* as bytes that are equal exactly when type and content are, in every process and on every machine.

    ``1``, ``1.0``, ``True`` and ``"1"`` differ, so do ``0.0`` and ``-0.0``, a list and a tuple. Mappings and sets do not depend on
    their order. Raises ``NotCanonical`` for values unequal to themselves, for other types, and for nesting deeper than ``MAX_DEPTH``.
    """
    return _encode(value, 0)


def _encode(value: Any, depth: int) -> bytes:
    if value is None:
        return b"N"
    scalar = _SCALARS.get(type(value))
    if scalar is not None:
        return scalar(value)
    if depth > MAX_DEPTH:
        raise NotCanonical(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        pairs = sorted(_encode(key, depth + 1) + _encode(item, depth + 1) for key, item in value.items())
        return _tagged(b"D", b"".join(pairs))
    if isinstance(value, set | frozenset):
        return _tagged(b"S" if isinstance(value, set) else b"Z", b"".join(sorted(_encode(item, depth + 1) for item in value)))
    for base, scalar in _SCALARS.items():
        if isinstance(value, base):
            return _tagged(b"C" + _text(f"{type(value).__module__}.{type(value).__qualname__}"), scalar(base(value)))
    if isinstance(value, Sequence):
        kind = b"L" if type(value) is list else b"T" if type(value) is tuple else b"Q" + _text(type(value).__qualname__)
        return _tagged(kind, b"".join(_encode(item, depth + 1) for item in value))
    raise NotCanonical(f"values of type {type(value).__module__}.{type(value).__qualname__} can not be compared by content")


def _tagged(tag: bytes, body: bytes) -> bytes:
    return tag + len(body).to_bytes(8, "big") + body


def _text(value: str) -> bytes:
    return _tagged(b"s", value.encode("utf-8", "surrogatepass"))


def _integer(value: int) -> bytes:
    return _tagged(b"i", str(value).encode() if abs(value) < 1 << 1000 else hex(value).encode())


def _real(value: float) -> bytes:
    if value != value:
        raise NotCanonical("not a number (NaN) is unequal to itself")
    return b"f" + struct.pack(">d", value)


_SCALARS: dict[type, Callable[[Any], bytes]] = {
    bool: lambda value: b"1" if value else b"0",
    int: _integer,
    float: _real,
    str: _text,
    bytes: lambda value: _tagged(b"b", value),
}


def is_link(value: Any) -> bool:
    """Whether an input refers to another node's output: ``[node id, output number]``."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)


class InputSignatures:
    """The signatures of one prompt's nodes, each worked out once, when it or a node below it is first asked for.

    *node_at* gives a node by id (``{"class_type": …, "inputs": {…}}``) or None; nodes may appear later, by expansion. *changed* gives
    the node's IS_CHANGED value. *names_itself* says whether the node's id belongs to its signature. For one task at a time.
    """

    def __init__(self, node_at: Callable[[str], Mapping[str, Any] | None], changed: Callable[[str], Awaitable[Any]],
                 names_itself: Callable[[str], bool]) -> None:
        self._node_at = node_at
        self._changed = changed
        self._names_itself = names_itself
        self._known: dict[str, Signature] = {}

    async def add(self, node_ids: Iterable[str]) -> None:
        """Work out the signatures of *node_ids* and of everything above them."""
        for node_id in node_ids:
            await self.get(node_id)

    async def get(self, node_id: str) -> Signature:
        """The signature of *node_id*: 64 hexadecimal digits, or an ``Uncacheable``."""
        open_nodes: list[str] = [node_id]
        on_path: set[str] = set()
        while open_nodes:
            current = open_nodes[-1]
            if current in self._known:
                open_nodes.pop()
                continue
            node = self._node_at(current)
            if node is None:
                self._known[current] = Uncacheable(f"node {current} does not exist")
                continue
            waiting = [] if current in on_path else [parent for parent in _parents(node) if parent not in self._known]
            if not waiting:
                self._known[current] = await self._sign(current, node)
                on_path.discard(current)
                continue
            on_path.add(current)
            for parent in waiting:
                if parent in on_path:
                    self._known[parent] = Uncacheable(f"node {parent} depends on itself")
            open_nodes += [parent for parent in waiting if parent not in self._known]
        return self._known[node_id]

    async def _sign(self, node_id: str, node: Mapping[str, Any]) -> Signature:
        digest = hashlib.sha256()
        try:
            digest.update(canonical_bytes([node["class_type"], await self._changed(node_id)]))
            if self._names_itself(node_id):
                digest.update(canonical_bytes(("id", node_id)))
            inputs = node["inputs"]
            for name in sorted(inputs):
                value = inputs[name]
                if not is_link(value):
                    digest.update(canonical_bytes((name, value)))
                    continue
                parent = self._known[value[0]]
                if isinstance(parent, Uncacheable):
                    return Uncacheable(parent.reason)
                digest.update(b"\0link" + canonical_bytes((name, parent, value[1])))
        except NotCanonical as problem:
            return Uncacheable(f"node {node_id}: {problem}")
        return digest.hexdigest()


def _parents(node: Mapping[str, Any]) -> list[str]:
    return [value[0] for value in node["inputs"].values() if is_link(value)]
