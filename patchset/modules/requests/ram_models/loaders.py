"""Wraps the functions that build models from files, so that what they build stays in host RAM, part by part.

A wrapped loader takes and returns what it did before, except that it returns clones of what is kept. A clone's ``parent`` is the kept
patcher, so that the model manager follows it there when the clone goes. Nothing is let go while the manager walks its list of models:
that happens in loaders, between nodes' own work, and in ``clear``.
"""

import contextvars
import copy
import functools
import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from comfy.ram_models.cache import Entry, WorthCache
from comfy.ram_models.keys import NotComparable, is_current, key_of, paths_of

PARTS = {"model": "output_model", "clip": "output_clip", "vae": "output_vae", "clip_vision": "output_clipvision"}
RETURNED = ("model", "clip", "vae", "clip_vision")
MIB = 1024**2
Load = Callable[..., Any]
log = logging.getLogger(__name__)
# Of a weight: its type, its shape, and its first and last elements.
Ends = dict[str, tuple[Any, Any, bytes]]

_apart: contextvars.ContextVar[bool] = contextvars.ContextVar("weights_of_its_own", default=False)


class RamModels:
    """The models kept in *cap_bytes* of host RAM. At 0 it is off: every decorator returns the function it was given."""

    def __init__(self, cap_bytes: int) -> None:
        self.cache = WorthCache(cap_bytes)
        self.told: Callable[[str, str, int, float], None] = log_event
        self._lock = threading.RLock()
        self._noted: dict[Hashable, Ends] = {}
        if cap_bytes:
            log.info("Models stay in up to %d MB of RAM", cap_bytes // MIB)

    # Decorators

    def checkpoint(self, load: Load) -> Load:
        """Of ``load_checkpoint_guess_config``: up to four parts of one file, of which only the missing ones are read."""

        def load_parts(given: dict[str, Any]) -> Any:
            options = {name: given[name] for name in ("model_options", "te_model_options", "embedding_directory")}
            wanted = [part for part, flag in PARTS.items() if given[flag]]

            def read(parts: Sequence[str]) -> dict[str, Any]:
                return dict(zip(RETURNED, load(**{**given, **{flag: part in parts for part, flag in PARTS.items()}})))

            found = self._parts(read, wanted, [given["ckpt_path"]], options, given)
            return tuple(found.get(part) for part in RETURNED)

        return self._wrapped(load, load_parts)

    def text_encoder(self, load: Load) -> Load:
        """Of ``load_clip``: one text encoder of one or more files."""
        return self._single(load, "clip", "ckpt_paths", ("embedding_directory", "clip_type", "model_options"))

    def diffusion_model(self, load: Load) -> Load:
        """Of ``load_diffusion_model``."""
        return self._single(load, "model", "unet_path", ("model_options",))

    def _single(self, load: Load, part: str, place: str, names: Sequence[str]) -> Load:
        def load_one(given: dict[str, Any]) -> Any:
            paths = given[place] if isinstance(given[place], list | tuple) else [given[place]]
            options = {"loader": load.__name__, **{name: given[name] for name in names}}
            return self._parts(lambda parts: {part: load(**given)}, [part], paths, options, given)[part]

        return self._wrapped(load, load_one)

    def _wrapped(self, load: Load, run: Callable[[dict[str, Any]], Any]) -> Load:
        """*load*, run by *run*, which takes its arguments by name."""
        if not self.cache.cap_bytes:
            return load
        signature = inspect.signature(load)

        @functools.wraps(load)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return run(dict(bound.arguments))

        return wrapped

    # Keeping

    def shrink(self, cap_bytes: float, why: str) -> None:
        """Keep no more than *cap_bytes*."""
        with self._lock:
            self._forget(self.cache.shrink(cap_bytes), why)

    def clear(self) -> None:
        """Let go of every model; those in use live as long as they are used."""
        self.shrink(0, "asked to")

    def _parts(
        self,
        read: Callable[[Sequence[str]], dict[str, Any]],
        wanted: Sequence[str],
        paths: Sequence[str],
        options: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The *wanted* parts, kept or read; as ever where weights of their own or incomparable options are asked for."""
        try:
            keys = {part: key_of(part, paths, options) for part in wanted}
        except (NotComparable, OSError):  # a missing file: the loader says so in its own words
            keys = {}
        if not keys or _apart.get() or given.get("disable_dynamic"):
            found = read(wanted)
            for value in found.values():
                _load_apart(value)
            return found
        with self._lock:
            self._forget_outdated()
            kept = self.cache.ask(list(keys.values()))
            found = {part: kept[key] for part, key in keys.items() if key in kept and self._is_sound(key)}
            for part in found:
                self.told("hit", _label(keys[part]), _size(found[part]), 0.0)
            missing = [part for part in wanted if part not in found]
            if missing:
                began = time.perf_counter()
                fresh = read(missing)
                self._take({keys[part]: fresh.get(part) for part in missing}, time.perf_counter() - began)
                found |= {part: fresh.get(part) for part in missing}
            return {part: _clone(value) for part, value in found.items()}

    def _take(self, fresh: dict[Hashable, Any], seconds: float) -> None:
        """Keep what was read in *seconds*, which are shared out by size."""
        whole = max(1, sum(map(_size, fresh.values())))
        for key, value in fresh.items():
            _load_apart(value)
            self._noted[key] = _ends(value)
            share = seconds * _size(value) / whole
            self.told("loaded", _label(key), _size(value), share)
            self._forget(self.cache.put(key, Entry(value, share, functools.partial(_size, value))), "worth less than what stays")

    def _is_sound(self, key: Hashable) -> bool:
        """Whether the weights are what was loaded. Code that writes to weights in place, where a patch was meant, spoils them."""
        now = _ends(self.cache.entries[key].value)
        noted = self._noted[key]
        changed = [name for name in now if name in noted and now[name] != noted[name]]
        if changed:
            log.error("%s: %s was changed in place by a node; it is loaded anew", _label(key), changed[0])
            self._forget([key], "changed in place")
            self.cache.drop(key)
        return not changed

    def _forget_outdated(self) -> None:
        """Let go of what was read from files that have changed since."""
        for key in list(self.cache.entries):
            if not is_current(key):
                self._forget([key], "its file has changed")
                self.cache.drop(key)

    def _forget(self, keys: Sequence[Hashable], why: str) -> None:
        for key in keys:
            self._noted.pop(key, None)
            self.told(f"dropped, {why}", _label(key), 0, 0.0)


def log_event(event: str, label: str, size_bytes: int, seconds: float) -> None:
    """One line in the log for each model that is read, found or let go."""
    log.info("RAM models: %s: %s (%.0f MB, %.2f s)", label, event, size_bytes / MIB, seconds)


def _label(key: Any) -> str:
    return f"{key[0]} of {' + '.join(os.path.basename(path) for path in paths_of(key))}"


def _patcher(value: Any) -> Any:
    """The patcher of a model, text encoder or VAE; None of one without weights."""
    return value if hasattr(value, "model_patches_to") else getattr(value, "patcher", None)


def _clone(value: Any) -> Any:
    if _patcher(value) is None:
        return value
    if hasattr(value, "clone"):
        return value.clone()
    twin = copy.copy(value)
    twin.patcher = value.patcher.clone()
    return twin


def _size(value: Any) -> int:
    """Host RAM of *value*'s weights, wherever they are now: the device gives them back. Of a dynamic model, what was read so far."""
    patcher = _patcher(value)
    if patcher is None:
        return 0
    if getattr(patcher, "is_dynamic", bool)():
        read_so_far = getattr(patcher, "loaded_ram_size", patcher.pinned_memory_size)  # told apart since 0.24
        return int(max(read_so_far(), patcher.pinned_memory_size()))
    return int(patcher.model_size())


def _ends(value: Any) -> Ends:
    """The ends of every weight that lies unpatched in host RAM."""
    patcher = _patcher(value)
    if patcher is None or getattr(patcher, "is_dynamic", bool)():
        return {}
    found = {}
    for name, weight in patcher.model.named_parameters():
        plain = type(weight) in (torch.Tensor, torch.nn.Parameter) and weight.device.type == "cpu" and weight.is_contiguous()
        if plain and weight.numel() and name not in patcher.backup:
            flat = weight.detach().reshape(-1)
            ends = [end.view(torch.uint8).numpy().tobytes() for end in (flat[:2], flat[-2:])]
            found[name] = (weight.dtype, weight.shape, b"".join(ends))
    return found


def _load_apart(value: Any) -> None:
    """Re-creation of a model, by the loader that is noted on its patcher, asks for weights of its own."""
    patcher = _patcher(value)
    noted = getattr(patcher, "cached_patcher_init", None)
    if noted is not None and not isinstance(noted[0], functools.partial):
        patcher.cached_patcher_init = (functools.partial(_call_apart, noted[0]), *noted[1:])


def _call_apart(load: Load, *args: Any, **kwargs: Any) -> Any:
    token = _apart.set(True)
    try:
        return load(*args, **kwargs)
    finally:
        _apart.reset(token)
