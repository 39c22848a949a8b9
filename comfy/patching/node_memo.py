"""Remembers the patched models that nodes returned: equal inputs and equal code give them out again, also where the result is gone."""

from __future__ import annotations

import logging
import threading
import time
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy.patch_identity.fingerprints import Fingerprint, Fingerprints
from comfy.patch_identity.registry import CannotKeep, PatchRegistry
from comfy.patch_identity.reuse_figures import ReuseFigures
from comfy.ram_model_cache.storage import patcher_of
from comfy.units import MIB

log = logging.getLogger(__name__)
MAX_CALLS = 256
# Results of nodes are made in inference mode and have no counter of changes: they are read at each comparison.
REREADS_BYTES = 64 * MIB
PLAIN = (bool, int, float, str, type(None))
API = ("comfy_api.", "comfy_execution.")
OF_PATCHES = ("entries", "bytes", "max_entries", "max_bytes", "outdated", "evictions", "base_gone")
Inputs = Mapping[str, Sequence[Any]]
Outputs = list[list[Any]]
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Input:
    """An output that is an input, handed on."""

    place: Place


@dataclass(frozen=True, slots=True)
class _Patched:
    """An output that is the model at *place* of the inputs with patches, which the registry keeps under *key*."""

    place: Place
    key: bytes


@dataclass(frozen=True, slots=True)
class _Plain:
    """An output that is a number or a text."""

    value: Any


Recipe = tuple[tuple[_Input | _Patched | _Plain, ...], ...]


@dataclass(slots=True)
class _Books:
    calls: OrderedDict[bytes, tuple[Recipe, float]] = field(default_factory=OrderedDict)
    figures: ReuseFigures = field(default_factory=ReuseFigures)


class NodeMemo:
    """What nodes made of which models, up to *max_calls*; their patches are in *registry*, which bounds them and lets them go.

    Whoever asks has made sure that the node may be remembered. Used on the thread that runs nodes; any thread may ask for figures.
    """

    def __init__(
        self, registry: PatchRegistry, prints: Fingerprints, max_calls: int = MAX_CALLS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.registry, self._prints = registry, prints
        self.max_calls = max_calls
        self._clock = clock
        self._lock = threading.Lock()
        self._books = _Books()

    def ask(self, node: type, inputs: Inputs, others: Any = ()) -> MemoAnswer:
        """What is known of calling *node* with the lists *inputs*; *others* is what else its result depends on (the states of files).

        Never changes a model. Reads inputs that are tensors.
        """
        started_s = self._clock()
        try:
            key, known = self._key(node, inputs, others)
        except _Incomparable as reason:
            with self._lock:
                self._books.figures.incomparable(f"{node.__name__}: {reason}")
            return MemoAnswer(self, None, inputs, None, started_s)
        outputs = self._recall(key, inputs, started_s)
        return MemoAnswer(self, key, inputs, known, self._clock(), outputs)

    def keep(self, key: bytes, inputs: Inputs, known: Fingerprint, outputs: Outputs, seconds: float) -> None:
        """Remember *outputs*. Says in the figures why, if they cannot be."""
        try:
            recipe = self._recipe(key, inputs, known, outputs, seconds)
        except CannotKeep as why:
            with self._lock:
                self._books.figures.not_kept(str(why))
            return
        with self._lock:
            self._books.calls[key] = recipe, seconds
            self._books.figures.made_seconds += seconds
            while len(self._books.calls) > self.max_calls:
                self._books.calls.popitem(last=False)

    def clear(self) -> int:
        """Forget everything; returns the bytes of tensors that were kept."""
        with self._lock:
            self._books.calls.clear()
        return self.registry.clear()

    def describe(self) -> dict[str, Any]:
        """Figures as plain data, for ``GET /caches``; sizes in bytes, times in seconds, *reasons* with how often each came up."""
        kept = self.registry.describe()
        with self._lock:
            return {
                "calls": len(self._books.calls),
                "max_calls": self.max_calls,
                **self._books.figures.described(),
                **{name: kept[name] for name in OF_PATCHES},
            }

    def check(self) -> list[str]:
        """What does not hold of the books, in words."""
        with self._lock:
            found = [] if len(self._books.calls) <= self.max_calls else [f"{len(self._books.calls)} calls are over the bound"]
        return found + self.registry.check()

    def _key(self, node: type, inputs: Inputs, others: Any) -> tuple[bytes, Fingerprint]:
        """A digest of everything that the call depends on. Raises :class:`_Incomparable`."""
        code = self._prints.of([node, *functions_of(node)], same_objects=True)
        parts: list[Any] = [code.digest, others]
        for name in sorted(inputs):
            for item in inputs[name]:
                if patcher_of(item) is None:
                    parts.append((name, item))
                    continue
                digest, reason = self.registry.base_key(item)
                if reason:
                    raise _Incomparable(f"{name}: {reason}")
                parts.append((name, b"model", digest))
        found = self._prints.of(parts, REREADS_BYTES)
        if code.reason or found.reason:
            raise _Incomparable(code.reason or found.reason)
        return found.digest, found

    def _recall(self, key: bytes, inputs: Inputs, started_s: float) -> Outputs | None:
        with self._lock:
            recipe, seconds = self._books.calls.get(key, (None, 0.0))
            if recipe is not None:
                self._books.calls.move_to_end(key)
        outputs = None if recipe is None else self._follow(recipe, inputs)
        with self._lock:
            if outputs is None:
                self._books.calls.pop(key, None)
                self._books.figures.misses += 1
            else:
                self._books.figures.hit(seconds - (self._clock() - started_s))
        return outputs

    def _follow(self, recipe: Recipe, inputs: Inputs) -> Outputs | None:
        """The outputs; None when something that they need is gone."""
        outputs: Outputs = []
        for socket in recipe:
            outputs.append([])
            for step in socket:
                if isinstance(step, _Plain):
                    outputs[-1].append(step.value)
                    continue
                base = inputs[step.place[0]][step.place[1]]
                if isinstance(step, _Patched):
                    kept = self.registry.find(step.key)
                    if kept is None:
                        return None
                    base = self.registry.give(base, kept)
                outputs[-1].append(base)
        return outputs

    def _recipe(self, key: bytes, inputs: Inputs, known: Fingerprint, outputs: Outputs, seconds: float) -> Recipe:
        """How to make *outputs* of *inputs*. Keeps the patches of those that are models. Raises :class:`CannotKeep`."""
        steps: list[tuple[_Input | _Patched | _Plain, ...]] = []
        for socket, items in enumerate(outputs):
            made: list[_Input | _Patched | _Plain] = []
            for index, item in enumerate(items):
                place = next((place for place, given in _places(inputs) if given is item), None)
                if isinstance(item, PLAIN):
                    made.append(_Plain(item))
                elif place is not None:
                    made.append(_Input(place))
                else:
                    own_key = key + b"%d,%d" % (socket, index)
                    made.append(_Patched(self._keep_model(own_key, inputs, item, known, seconds), own_key))
            steps.append(tuple(made))
        return tuple(steps)

    def _keep_model(self, key: bytes, inputs: Inputs, built: Any, known: Fingerprint, seconds: float) -> Place:
        """Keep the patches of *built*; returns which input it is a patched clone of."""
        patcher = patcher_of(built)
        for place, base in _places(inputs):
            own = patcher_of(base)
            if patcher is not None and own is not None and own.model is patcher.model:
                self.registry.keep(key, base, built, known, seconds)
                return place
        raise CannotKeep(f"a result is a {type(built).__name__}, which is no patched model of the inputs")


class MemoAnswer:
    """What the memo knows of one call; *outputs* are the results from before, None when there are none. The caller's own."""

    def __init__(
        self, memo: NodeMemo, key: bytes | None, inputs: Inputs, known: Fingerprint | None, started_s: float, outputs: Outputs | None = None
    ) -> None:
        self.outputs = outputs
        self._memo, self._key, self._inputs, self._known, self._started_s = memo, key, inputs, known, started_s

    def keep(self, outputs: Outputs) -> None:
        """The call was made, and gave *outputs*."""
        if self._key is not None and self._known is not None:
            seconds = self._memo._clock() - self._started_s
            self._memo.keep(self._key, self._inputs, self._known, outputs, seconds)


class _Incomparable(ValueError):
    """A call that equals no other; the text says why."""


def functions_of(node: type) -> Iterator[types.FunctionType]:
    """Every function of *node* and the classes it derives from, those of the node API itself left out."""
    for owner in node.__mro__[:-1]:
        if owner.__module__.startswith(API):
            continue
        for value in vars(owner).values():
            plain = getattr(value, "__func__", value)
            if isinstance(plain, types.FunctionType):
                yield plain


def _places(inputs: Inputs) -> Iterator[tuple[Place, Any]]:
    return (((name, index), item) for name, items in inputs.items() for index, item in enumerate(items))
