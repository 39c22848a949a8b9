"""Input signatures of nodes: equal exactly when the nodes would compute the same, whatever their ids.

A signature is a Merkle hash: it covers the node's class, its own inputs and, for each link, the signature of the node it comes from
with the output's number. Every node is hashed once from its parents' finished hashes, so all signatures of a graph cost time linear
in its nodes and links, and no depth of graph or value needs recursion. (R. C. Merkle, "A Digital Signature Based on a Conventional
Encryption Function", CRYPTO '87.)

Keys that list every ancestor also say whether two inputs are fed by one node or by two equal ones; here both give the same signature,
as the values are equal either way. Apart from that, what such keys tell apart is told apart here, and what they hold equal is held equal.

A node is *uncacheable* when something it depends on cannot be compared: a value unequal to itself (NaN), an object of a type that has
no canonical form (a tensor that an expansion passes on), a link to a node that does not exist, a circle of links. Its signature, and
that of every node below it, is an ``Uncacheable``, equal to nothing else. Standard library only.
"""

import hashlib
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any


class Uncacheable:
    """A signature that is equal to none, not even to itself, with the reason for the curious.

    As a dictionary's key it is found by identity, so within one prompt its node's result is found again.
    """

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

    ``1``, ``1.0``, ``True`` and ``"1"`` differ, so do ``0.0`` and ``-0.0``, a list and a tuple, a type and its subclass. Mappings and
    sets do not depend on their order. Containers become digests of 32 bytes; one that occurs often is walked once. Raises
    ``NotCanonical`` for values unequal to themselves, for objects without content that could be compared, and for containers that
    contain themselves. No encoding is the beginning of another.
    """
    encode = _SCALARS.get(type(value))
    if encode is not None:
        return encode(value)
    finished: dict[int, tuple[Any, bytes]] = {}
    open_containers: list[_Container] = []
    open_ids: set[int] = set()
    current = value
    while True:
        encoded = _encode_known(current, finished)
        if encoded is None:
            if id(current) in open_ids:
                raise NotCanonical("the value contains itself")
            open_containers.append(_open(current))
            open_ids.add(id(current))
        elif not open_containers:
            return encoded
        else:
            open_containers[-1].parts.append(encoded)
        while (following := next(open_containers[-1].remaining, _END)) is _END:
            container = open_containers.pop()
            open_ids.discard(id(container.value))
            encoded = container.close()
            finished[id(container.value)] = (container.value, encoded)
            if not open_containers:
                return encoded
            open_containers[-1].parts.append(encoded)
        current = following


_END = object()


class _Container:
    """A container whose parts are being encoded: one part per item, a key and an item for mappings."""

    __slots__ = ("arity", "is_ordered", "parts", "remaining", "tag", "value")

    def __init__(self, value: Any, tag: bytes, items: list[Any], arity: int, is_ordered: bool) -> None:
        self.value = value
        self.tag = tag
        self.remaining = iter(items)
        self.arity = arity
        self.is_ordered = is_ordered
        self.parts: list[bytes] = []

    def close(self) -> bytes:
        groups = [b"".join(self.parts[start : start + self.arity]) for start in range(0, len(self.parts), self.arity)]
        digest = hashlib.sha256(self.tag)
        for group in groups if self.is_ordered else sorted(groups):
            digest.update(group)
        return b"H" + digest.digest()


def _encode_known(value: Any, finished: Mapping[int, tuple[Any, bytes]]) -> bytes | None:
    """*value*'s bytes if it is not a container, or one that is finished; else None."""
    if value is None:
        return b"N"
    encode = _SCALARS.get(type(value))
    if encode is not None:
        return encode(value)
    known = finished.get(id(value))
    if known is not None:
        return known[1]
    if isinstance(value, Enum):
        return framed(b"E" + _type_name(value), _text(str(value.name)))
    for base, content in _SUBCLASSED:
        if isinstance(value, base):
            if not _equals_itself(value):
                raise NotCanonical(f"a value of type {type(value).__qualname__} is unequal to itself")
            return framed(b"C" + _type_name(value), _SCALARS[base](content(value)))
    if isinstance(value, range | bytearray):
        return framed(b"R" + _type_name(value), repr(value).encode() if isinstance(value, range) else bytes(value))
    return None


def _open(value: Any) -> _Container:
    """Begin *value*, which is not known yet. Its class may be foreign code, so whatever that raises means that it cannot be compared."""
    kind = type(value)
    try:
        if isinstance(value, Mapping):
            items = [part for pair in value.items() for part in pair]
            return _Container(value, b"D" if kind is dict else b"M" + _type_name(value), items, 2, False)
        if isinstance(value, set | frozenset):
            return _Container(value, b"S" + _type_name(value), list(value), 1, False)
        if isinstance(value, Sequence):
            tag = b"L" if kind is list else b"T" if kind is tuple else b"Q" + _type_name(value)
            return _Container(value, tag, list(value), 1, True)
    except Exception as error:
        raise NotCanonical(f"a value of type {kind.__qualname__} cannot be read: {type(error).__name__}: {error}") from error
    raise NotCanonical(f"values of type {kind.__module__}.{kind.__qualname__} cannot be compared by content")


def _equals_itself(value: Any) -> bool:
    try:
        return bool(value == value)
    except Exception:
        return False


def framed(tag: bytes, body: bytes) -> bytes:
    """*tag*, the length of *body* in 8 bytes and *body*: a row of these can be cut apart in one way only.

    All keys of results are hashes over such rows: signatures, digests of code, and the keys that hold on other machines.
    """
    return tag + len(body).to_bytes(8, "big") + body


def _text(value: str) -> bytes:
    return framed(b"s", value.encode("utf-8", "surrogatepass"))


def _type_name(value: Any) -> bytes:
    return _text(f"{type(value).__module__}.{type(value).__qualname__}")


def _real(value: float) -> bytes:
    if value != value:
        raise NotCanonical("not a number (NaN) is unequal to itself")
    return b"f" + struct.pack(">d", value)


_SCALARS: dict[type, Callable[[Any], bytes]] = {
    bool: lambda value: b"1" if value else b"0",
    int: lambda value: framed(b"i", b"%x" % value),
    float: _real,
    str: _text,
    bytes: lambda value: framed(b"b", value),
    complex: lambda value: b"c" + _real(value.real) + _real(value.imag),
}
# How to read the plain value of a subclass's instance without the subclass's own conversions.
_SUBCLASSED: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: memoryview(value).tobytes()),
)


def is_link(value: Any) -> bool:
    """Whether an input refers to another node's output: ``[node id, output number]``."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)


class InputSignatures:
    """The signatures of one prompt's nodes, each worked out once, when it or a node below it is first asked for.

    *node_at* gives a node by id (``{"class_type": …, "inputs": {…}}``) or None; nodes may appear later, by expansion. *changed* gives
    the node's IS_CHANGED value. *names_itself* says whether the node's id belongs to its signature. *replaced* gives the nodes that stand
    in for others since, by id: where a loop puts another node in the place of one, whatever was worked out before is forgotten.
    For one task at a time.
    """

    def __init__(
        self,
        node_at: Callable[[str], Mapping[str, Any] | None],
        changed: Callable[[str], Awaitable[Any]],
        names_itself: Callable[[str], bool],
        replaced: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._node_at = node_at
        self._replaced = replaced
        self._replaced_before: dict[str, Any] = {}
        self._changed = changed
        self._names_itself = names_itself
        self._known: dict[str, Signature] = {}
        self._encoded_names: dict[str, bytes] = {}

    async def add(self, node_ids: Iterable[str]) -> None:
        """Work out the signatures of *node_ids* and of everything above them."""
        for node_id in node_ids:
            await self.get(node_id)

    def known(self, node_id: str) -> Signature | None:
        """The signature of a node that was worked out, or None."""
        return self._known.get(node_id)

    async def get(self, node_id: str) -> Signature:
        """The signature of *node_id*: 64 hexadecimal digits, or an ``Uncacheable``."""
        self._forget_if_replaced()
        path: list[tuple[str, Iterator[str]]] = []
        on_path: set[str] = set()
        following: str | None = node_id
        while following is not None:
            if following in on_path:
                self._known[following] = Uncacheable(f"node {following} depends on itself")
            elif following not in self._known:
                parents = _parents(self._node_at(following))
                if parents:
                    path.append((following, iter(parents)))
                    on_path.add(following)
                else:
                    self._known[following] = await self._sign(following)
            following = await self._next_parent(path, on_path)
        return self._known[node_id]

    def _forget_if_replaced(self) -> None:
        now, before = self._replaced(), self._replaced_before
        if len(now) != len(before) or any(before.get(node_id) is not node for node_id, node in now.items()):
            self._replaced_before = dict(now)
            self._known.clear()

    async def _next_parent(self, path: list[tuple[str, Iterator[str]]], on_path: set[str]) -> str | None:
        """Sign the nodes at the end of *path* whose parents are all known; the first parent that is not, or None at the end."""
        while path:
            node_id, parents = path[-1]
            for parent in parents:
                if parent not in self._known:
                    return parent
            path.pop()
            on_path.discard(node_id)
            if node_id not in self._known:
                self._known[node_id] = await self._sign(node_id)
        return None

    async def _sign(self, node_id: str) -> Signature:
        node = self._node_at(node_id)
        if node is None:
            return Uncacheable(f"node {node_id} does not exist")
        inputs = node["inputs"]
        try:
            parts = [
                self._encoded(node["class_type"]),
                canonical_bytes(await self._changed(node_id)),
                canonical_bytes(node_id if self._names_itself(node_id) else None),
            ]
            for name in sorted(inputs):
                value = inputs[name]
                if not is_link(value):
                    parts += self._encoded(name), b"=", canonical_bytes(value)
                    continue
                parent = self._known[value[0]]
                if isinstance(parent, Uncacheable):
                    return Uncacheable(parent.reason)
                parts += self._encoded(name), b">", parent.encode(), canonical_bytes(_socket(value[1]))
        except NotCanonical as problem:
            return Uncacheable(f"node {node_id}: {problem}")
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def _encoded(self, name: Any) -> bytes:
        """Of an input or a class: the same few in all nodes."""
        encoded = self._encoded_names.get(name)
        if encoded is None:
            encoded = self._encoded_names[name] = canonical_bytes(name)
        return encoded


def _parents(node: Mapping[str, Any] | None) -> list[str]:
    return [] if node is None else [value[0] for value in node["inputs"].values() if is_link(value)]


def _socket(number: Any) -> Any:
    """An output's number: ``1``, ``1.0`` and ``True`` mean the same output."""
    return int(number) if isinstance(number, bool) or (isinstance(number, float) and number.is_integer()) else number
