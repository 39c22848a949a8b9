"""Takes the patches off a built model, and gives them to another clone of the same base."""

from __future__ import annotations

import gc
import hashlib
import operator
import types
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Protocol, Self, TypeVar, cast

import torch
from torch import Tensor

from comfy.patch_identity.fingerprints import Fingerprint, fingerprints
from comfy.patch_identity.registry import CannotKeep
from comfy.patch_identity.tensor_digests import DIGEST_BYTES, NotFingerprintable
from comfy.patching.attachments import Attachments
from comfy.patching.content_identity import ContentIdentity, table_digest
from comfy.patching.hook_patches import HookPatches
from comfy.patching.model_options import ModelOptions
from comfy.patching.protocols import Patcher
from comfy.patching.weight_patches import WeightPatches
from comfy.ram_model_cache.storage import own_patcher, patcher_of
from comfy.wrapper_tensors import inner_tensors

Patches = tuple[ModelOptions, Attachments, WeightPatches, HookPatches]
COMPONENTS = ("_options", "_attachments", "_weight_patches", "_hook_patches")
components: Callable[[object], Patches] = operator.attrgetter(*COMPONENTS)
SET_BY_LOADING = {
    "comfy_patched_weights",
    "comfy_cast_weights",
    "prev_comfy_cast_weights",
    "weight_function",
    "bias_function",
    "fetcher",
    "weight_fetcher",
}
MAX_OBJECTS = 200_000
PLAIN = (str, bytes, int, float, complex, type(None))
PASSED_OVER = (type, types.ModuleType, types.CodeType, *PLAIN)


class Clonable(Protocol):
    """A patcher, or an object around one."""

    def clone(self) -> Self: ...


Model = TypeVar("Model", bound=Clonable)


class PatcherCarrier:
    """For ``ModelPatcher`` objects, and objects around one (``CLIP``). Implements the registry's ``Carrier``."""

    def owner(self, base: object) -> torch.nn.Module:
        """The module."""
        module: torch.nn.Module = own_patcher(base).model
        return module

    def fingerprint(self, base: object) -> Fingerprint:
        """By all that *base* carries. An object in it that cannot be compared is the same only if it is the very same object."""
        patcher = cast(Patcher, patcher_of(base))
        if not all(hasattr(patcher, name) for name in COMPONENTS):
            return Fingerprint(fingerprints().unique(), f"a {type(base).__name__} is no model that keeps its patches in the known way")
        options, attachments, weights, hooks = components(patcher)
        own = {**_own_attributes(patcher), **_own_attributes(base)}
        state = (
            type(base),
            ContentIdentity(patcher).of_all().bytes,
            options.read(),
            [getattr(attachments, name) for name in ("callbacks", "wrappers", "injections", "attachments", "additional_models")],
            (weights.object_patches, weights.weight_wrapper_patches, weights.force_cast_weights),
            (hooks.current_hooks, hooks.forced_hooks, hooks.hook_mode.name, hooks.is_clip),
            [(name, own[name]) for name in sorted(own)],
        )
        return fingerprints().of(state, same_objects=True)

    def clone(self, base: Model) -> Model:
        """By its own ``clone``."""
        return base.clone()

    def take(self, base: Model, built: Model) -> tuple[Patches, Mapping[Hashable, int]]:
        """Copies of *built*'s components. Raises :class:`CannotKeep` when it differs from a clone of *base* in more than these."""
        own, patcher = own_patcher(base), patcher_of(built)
        if patcher is None or patcher.model is not own.model or type(patcher) is not type(own) or type(built) is not type(base):
            raise CannotKeep("what was built is not a clone of the base")
        for before, after in ((_own_attributes(base), _own_attributes(built)), (_own_attributes(own), _own_attributes(patcher))):
            changed = sorted(name for name in before.keys() | after.keys() if not _is_same(before, after, name))
            if changed:
                raise CannotKeep(f"building changed {', '.join(changed)} of the {type(built).__name__} itself")
        patches = copies(components(patcher))
        if patches[1].additional_models:
            raise CannotKeep("it brings models of its own along")
        return patches, storages_in(patches, own.model)

    def state(self, patches: Patches) -> bytes:
        """A digest of everything in *patches* that somebody could have changed since: objects, numbers, texts, contents of tensors."""
        options, attachments, weights, hooks = patches
        digest = hashlib.blake2b(table_digest(weights.read()), digest_size=DIGEST_BYTES)
        changeable = (options, attachments, weights.object_patches, weights.weight_wrapper_patches, hooks.hook_patches)
        for value in _reachable(changeable, with_plain=True):
            if isinstance(value, Tensor):  # one that is on a device now counts as what it is a copy of
                digest.update(_digest_of(value))
            elif value is not changeable:
                digest.update((repr(value) if isinstance(value, PLAIN) else f"{type(value).__name__} {id(value)}").encode())
        return digest.digest()

    def give(self, base: Model, patches: Patches) -> Model:
        """A clone of *base* with copies of *patches*."""
        twin = base.clone()
        patcher = patcher_of(twin)
        for name, component in zip(COMPONENTS, copies(patches), strict=True):
            setattr(patcher, name, component)
        return twin


def copies(patches: Patches) -> Patches:
    """Components that are equal and change independently."""
    options, attachments, weights, hooks = patches
    return options.clone(), attachments.clone(), weights.clone(), hooks.clone()


def storages_in(patches: Patches, module: torch.nn.Module) -> dict[Hashable, int]:
    """{storage: bytes} of the tensors that *patches* refer to. Raises :class:`CannotKeep` when they refer to *module* or a patcher."""
    found: dict[Hashable, int] = {}
    for value in _reachable(patches):
        if value is module or (hasattr(type(value), "clone") and hasattr(value, "clone_base_uuid")):
            raise CannotKeep("its patches refer to a model, which they would keep alive")
        parts = inner_tensors(value) if isinstance(value, Tensor) and value.device.type != "meta" else ()
        for storage in (part.untyped_storage() for part in parts):
            found[(value.device.type, value.device.index, storage.data_ptr(), storage.nbytes())] = storage.nbytes()
    return found


def _reachable(start: Any, with_plain: bool = False) -> Iterator[Any]:
    """Every object that *start* keeps alive, but for classes, code and names of modules; numbers and texts on request."""
    seen: dict[int, Any] = {}
    waiting: deque[Any] = deque([start])
    while waiting:
        value = waiting.popleft()
        if with_plain and isinstance(value, PLAIN):
            yield value
        if isinstance(value, PASSED_OVER) or id(value) in seen:
            continue
        seen[id(value)] = value
        if len(seen) > MAX_OBJECTS:
            raise CannotKeep(f"its patches refer to more than {MAX_OBJECTS} objects")
        yield value
        if isinstance(value, types.FunctionType):
            waiting.extend((value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__))
        elif not isinstance(value, Tensor):
            getattr(value, "__dict__", None)  # from now on its attributes are reached in the same way each time
            waiting.extend(_without_loading(value) if isinstance(value, torch.nn.Module) else gc.get_referents(value))


def _digest_of(tensor: Tensor) -> bytes:
    try:
        return fingerprints().tensors.digest(tensor)
    except NotFingerprintable:
        return str(id(tensor)).encode()


def _without_loading(module: torch.nn.Module) -> list[Any]:
    """What *module* refers to, without what loading it to a device notes on it."""
    return [item for name, value in vars(module).items() if name not in SET_BY_LOADING for item in (name, value)]


def _own_attributes(thing: object) -> dict[str, Any]:
    return {name: value for name, value in vars(thing).items() if name not in (*COMPONENTS, "_shared", "parent", "patcher", "size")}


def _is_same(before: dict[str, Any], after: dict[str, Any], name: str) -> bool:
    if name not in before or name not in after:
        return False
    old, new = before[name], after[name]
    return old is new or fingerprints().of(old, same_objects=True).digest == fingerprints().of(new, same_objects=True).digest
