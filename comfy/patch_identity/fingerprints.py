"""Fingerprints of what node authors patch models with: equal exactly when the values would act alike.

Numbers, strings, containers, tensors, frozen dataclasses, functions (code, closure, defaults, bound parameters) and objects that declare
a key are compared by content. Everything else is unique: equal to nothing, with the reason. Digests hold in this process only.
Portable: torch and the modules beside it.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import os
import struct
import types
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from comfy.patch_identity.functions import code_parts, module_of, plain_globals
from comfy.patch_identity.tensor_digests import (
    DIGEST_BYTES,
    NotFingerprintable,
    TensorDigests,
    Tokens,
    Witness,
    check_plain,
    content_digest,
    root_of,
    version_of,
)

KEY_METHOD = "patch_identity_key"
LASTING = "patch_identity_lasts"
MAX_DEPTH = 64
PLAIN = frozenset(
    (bool, int, bytes, complex, type(None), type(Ellipsis), torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format)
)
CONTAINERS = frozenset((tuple, list, dict, set, frozenset))
Where = str | tuple[Any, str, Any]  # the value itself, or (the value around it, how this one lies in it, under what name)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A digest of a value; *reason* says why the value is unique ("" when it is not).

    *witnesses* are the tensors it covers: it is out of date as soon as one of them no longer holds. *is_lasting*: nothing else in the value
    can change by itself.
    """

    digest: bytes
    reason: str = ""
    witnesses: tuple[Witness, ...] = ()
    is_lasting: bool = True

    def is_current(self) -> bool:
        """Whether no tensor was changed in place since."""
        return all(witness.holds() for witness in self.witnesses)


class Fingerprints:
    """Takes fingerprints; remembers what it read of tensors while they live. For the thread that runs nodes.

    An object is compared by content if its own class (not only a base) has a method ``patch_identity_key()`` that returns a value made of
    what can be compared, and says by it everything the object's behaviour depends on. ``patch_identity_lasts = True`` on that class
    promises that the key of an object never changes, so that it is asked for once.
    """

    def __init__(self) -> None:
        self.tensors = TensorDigests()
        self.tokens = Tokens()
        self._of_lasting: weakref.WeakKeyDictionary[Any, Fingerprint] = weakref.WeakKeyDictionary()

    def of(self, value: Any, rereads_bytes: int | None = None, same_objects: bool = False) -> Fingerprint:
        """The fingerprint of *value*; never raises for what it cannot compare. With *same_objects* such a thing equals itself.

        A tensor made in inference mode has no counter of changes and would be read at every comparison: *rereads_bytes* is the size
        up to which that is acceptable (None: any); a larger one makes the value unique.
        """
        walk = _Walk(self, rereads_bytes, same_objects)
        try:
            walk.add(value, "it", 0)
        except NotFingerprintable as reason:
            walk.watch_tensors()
            return Fingerprint(self.unique(), str(reason), tuple(walk.witnesses), walk.is_lasting)
        walk.read_tensors()
        digest = hashlib.blake2b(b"".join(walk.parts), digest_size=DIGEST_BYTES).digest()
        return Fingerprint(digest, "", tuple(walk.witnesses), walk.is_lasting)

    def of_lasting(self, thing: Any, rereads_bytes: int | None = None) -> Fingerprint:
        """The fingerprint of *thing*, which never changes but for its tensors: its parts are walked again only once one of these has.

        Its class must leave comparing and hashing by identity alone.
        """
        noted = self._of_lasting.get(thing)
        if noted is None or not noted.is_current():
            noted = self.of(thing, rereads_bytes)
            if noted.is_lasting and not noted.reason:
                self._of_lasting[thing] = noted
        return noted

    def unique(self) -> bytes:
        """A digest that no value has."""
        return b"unique" + self.tokens.fresh().to_bytes(DIGEST_BYTES - 6, "little")


@functools.cache
def fingerprints() -> Fingerprints:
    """The process's own."""
    return Fingerprints()


class _Walk:
    """One walk over a value: the bytes to hash, and what was met on the way."""

    def __init__(self, owner: Fingerprints, rereads_bytes: int | None, same_objects: bool) -> None:
        self.parts: list[bytes] = []
        self.witnesses: list[Witness] = []
        self.is_lasting = True
        self._owner = owner
        self._rereads_bytes = rereads_bytes
        self._same_objects = same_objects
        self._open: dict[int, int] = {}
        self._tensors: list[tuple[int, Tensor]] = []

    def add(self, value: Any, where: Where, depth: int) -> None:
        """Add *value*, found at *where*. Raises :class:`NotFingerprintable`."""
        kind = type(value)
        if kind is float:
            self._write(b"f", _FLOAT(value))
        elif kind is str:
            self._write(b"s", value.encode("utf-8", "surrogatepass"))
        elif kind in PLAIN:
            self._write(b"p", f"{kind.__name__} {value!r}".encode("utf-8", "surrogatepass"))
        elif isinstance(value, Tensor):
            self._add_tensor(value, where)
        elif depth > MAX_DEPTH:
            raise NotFingerprintable(f"{_named(where)} is nested more than {MAX_DEPTH} deep")
        elif kind is tuple:
            self._add_container(value, kind, where, depth + 1)
        elif id(value) in self._open:  # a function may refer to itself
            self._write(b"o", str(self._open[id(value)]).encode())
        else:
            self._open[id(value)] = len(self._open)
            self._add_nested(value, kind, where, depth + 1)
            del self._open[id(value)]

    def _write(self, tag: bytes, content: bytes) -> None:
        self.parts.append(b"%s%d:%s" % (tag, len(content), content))

    def _add_all(self, tag: bytes, values: Iterable[Any], where: Where, depth: int) -> None:
        values = list(values)
        self._write(tag, str(len(values)).encode())
        for value in values:
            self.add(value, where, depth)

    def _add_token(self, thing: Any, where: Where) -> None:
        try:
            self._write(b"t", str(self._owner.tokens.of(thing)).encode())
        except TypeError:
            raise NotFingerprintable(f"{_named(where)} holds a {type(thing).__name__}, which cannot be told from others") from None

    def _add_tensor(self, tensor: Tensor, where: Where) -> None:
        version = version_of(tensor)
        if isinstance(tensor, torch.nn.Parameter) and version is not None:  # a model's own weight is not read: it stands for itself
            self.witnesses.append(Witness(weakref.ref(tensor), version, tensor.data_ptr(), b""))
            self._add_token(tensor, where)
            self._write(b"v", str(version).encode())
            return
        if version is None and self._rereads_bytes is not None and tensor.nbytes > self._rereads_bytes:
            raise NotFingerprintable(
                f"{_named(where)} holds a tensor of {tensor.nbytes} bytes made in inference mode: changes to it cannot be seen"
            )
        check_plain(tensor)
        self._tensors.append((len(self.parts), tensor))
        self.parts.append(b"")

    def watch_tensors(self) -> None:
        """Note the tensors that were met without reading them."""
        for _, tensor in self._tensors:
            version = version_of(tensor)
            if version is not None:
                watched = root_of(tensor)
                self.witnesses.append(Witness(weakref.ref(watched), version, watched.data_ptr(), b""))

    def read_tensors(self) -> None:
        """Add the contents of the tensors that were met, read together."""
        self._owner.tensors.read_ahead(tensor for _, tensor in self._tensors)
        for position, tensor in self._tensors:
            witness = self._owner.tensors.witness(tensor)
            self.witnesses.append(witness)
            self.parts[position] = b"T" + witness.digest
        self._tensors.clear()

    def _add_nested(self, value: Any, kind: type, where: Where, depth: int) -> None:
        if kind in CONTAINERS:
            self._add_container(value, kind, where, depth)
        elif isinstance(value, type | types.ModuleType):
            self._write(b"c", getattr(value, "__qualname__", value.__name__).encode())
            self._add_token(value, where)
        elif isinstance(value, CALLABLES):
            self._add_callable(value, where, depth)
        elif isinstance(value, enum.Enum):
            self._add_all(b"e", (kind, value.name), where, depth)
        elif kind is numpy.ndarray and value.dtype.hasobject is False:
            self.is_lasting = False
            contents = content_digest(torch.from_numpy(numpy.frombuffer(value.tobytes(), dtype=numpy.uint8).copy()))
            self._add_all(b"n", (str(value.dtype), value.shape, contents), where, depth)
        elif isinstance(value, numpy.generic):
            self._add_all(b"g", (str(value.dtype), value.tobytes()), where, depth)
        elif isinstance(value, os.PathLike) and kind.__module__.startswith("pathlib"):
            self._add_all(b"P", (kind, os.fspath(value)), where, depth)
        else:
            self._add_object(value, kind, where, depth)

    def _add_container(self, value: Any, kind: type, where: Where, depth: int) -> None:
        self.is_lasting = self.is_lasting and kind in (tuple, frozenset)
        if kind is dict:  # in order: what is called in turn depends on it
            self._write(b"D", str(len(value)).encode())
            for key, item in value.items():
                self.add(key, (where, "of", "a key"), depth)
                self.add(item, (where, "at", key), depth)
        elif kind in (set, frozenset):
            self._write(b"S", b"".join(sorted(self._digest_of(item, where) for item in value)))
        else:
            self._write(b"L" if kind is list else b"U", str(len(value)).encode())
            for index, item in enumerate(value):
                self.add(item, (where, "at", index), depth)

    def _digest_of(self, value: Any, where: Where) -> bytes:
        """The digest of *value* alone, for items without an order."""
        found = self._owner.of(value, self._rereads_bytes, self._same_objects)
        if found.reason:
            raise NotFingerprintable(f"{_named(where)}: {found.reason}")
        self.witnesses += found.witnesses
        return found.digest

    def _add_object(self, value: Any, kind: type, where: Where, depth: int) -> None:
        """An object by the key that its class declares, or by its fields if nothing can change them."""
        declared = kind.__dict__.get(KEY_METHOD)
        if declared is not None:
            was_lasting = self.is_lasting
            self._add_all(b"k", (kind, declared(value)), (where, "of", "the key"), depth)
            self.is_lasting = was_lasting and kind.__dict__.get(LASTING) is True
        elif is_dataclass(kind) and kind.__dataclass_params__.frozen and "__dataclass_fields__" in kind.__dict__:  # type: ignore[attr-defined]
            self._add_all(b"d", (kind, *(getattr(value, field.name) for field in fields(kind))), where, depth)
        elif isinstance(value, tuple) and "_fields" in kind.__dict__:
            self._add_all(b"N", (kind, tuple(value)), where, depth)
        elif self._same_objects:
            self._add_token(value, where)
        else:
            raise NotFingerprintable(f"{_named(where)} holds a {kind.__module__}.{kind.__qualname__}, whose class declares no {KEY_METHOD}")

    def _add_callable(self, value: Any, where: Where, depth: int) -> None:
        if isinstance(value, functools.partial):
            self._add_all(b"q", (value.func, value.args, value.keywords, vars(value)), (where, "in", "a partial"), depth)
        elif isinstance(value, types.MethodType):
            self._add_all(b"m", (value.__func__, value.__self__), (where, "in", value.__qualname__), depth)
        elif isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            bound = () if owner is None or isinstance(owner, types.ModuleType) else (owner,)
            self._add_all(b"b", (value.__module__, value.__qualname__, *bound), where, depth)
        elif isinstance(value, types.FunctionType):
            self._add_function(value, where, depth)
        else:
            self._add_token(value, where)

    def _add_function(self, function: types.FunctionType, where: Where, depth: int) -> None:
        name = (where, "in", function.__qualname__)
        module = module_of(function)
        if module is None:
            raise NotFingerprintable(f"{_named(name)} belongs to no imported module")
        cells = [_contents(cell, name) for cell in function.__closure__ or ()]
        extra = dict(vars(function))
        self._add_all(b"F", (module, function.__qualname__, function.__defaults__, function.__kwdefaults__, extra), name, depth)
        self._add_all(b"C", code_parts(function.__code__), name, depth)
        self._add_all(b"G", plain_globals(function), name, depth)
        for variable, cell in zip(function.__code__.co_freevars, cells, strict=True):
            self.add(cell, (name, "of", variable), depth)
        self.is_lasting = self.is_lasting and not cells and not extra


_FLOAT = struct.Struct("<d").pack
CALLABLES = (
    functools.partial,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
)


def _named(where: Where) -> str:
    if isinstance(where, str):
        return where
    around, how, name = where
    return f"{_named(around)}[{name!r}]" if how == "at" else f"{name} {how} {_named(around)}"


def _contents(cell: types.CellType, where: Where) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        raise NotFingerprintable(f"a variable of {_named(where)} has no value yet") from None
