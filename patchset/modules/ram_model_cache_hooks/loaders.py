"""Wraps ComfyUI's loader functions so that what they load stays in the RAM model cache, part by part.

A wrapped loader takes and returns what it did before. Each part of a file (model, text encoder, VAE, …) has a key of its own; on a miss
only the missing parts are read. Loads whose options cannot be compared, and loads made to get weights of their own, run as ever.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import json
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

from comfy.ram_model_cache.cache import RamModelCache
from comfy.ram_model_cache.storage import patcher_of
from comfy.ram_model_cache.values import Loaded
from comfy.ram_model_cache.weights_key import NotCacheable, WeightsKey, weights_key

PATHS_REMEMBERED = 512
HEADER_LIMIT_BYTES = 100_000_000
CHECKPOINT_PARTS = {"model": "output_model", "clip": "output_clip", "vae": "output_vae", "clip_vision": "output_clipvision"}
PART_PREFIXES = {"model.diffusion_model.": "model", "first_stage_model.": "vae", "vae.": "vae"}
Function = Callable[..., Any]
Read = Callable[[Collection[str]], Mapping[str, Any]]

_independent: contextvars.ContextVar[bool] = contextvars.ContextVar("independent_weights", default=False)


def independently(load: Function) -> Function:
    """*load*, with everything it calls loaded anew: its caller wants weights that it shares with nobody."""
    if getattr(load, "loads_independently", False):
        return load

    @functools.wraps(load)
    def load_anew(*args: Any, **kwargs: Any) -> Any:
        token = _independent.set(True)
        try:
            return load(*args, **kwargs)
        finally:
            _independent.reset(token)

    load_anew.loads_independently = True  # type: ignore[attr-defined]
    return load_anew


def release_recreation(value: Any) -> None:
    """Have the loader noted on the patcher of *value* for re-creation load anew, since it is called to get independent weights."""
    patcher: Any = None if value is None else patcher_of(value)
    noted = getattr(patcher, "cached_patcher_init", None)
    if noted is not None:
        patcher.cached_patcher_init = (independently(noted[0]), *noted[1:])


class CachedControlNet:
    """A ControlNet as the cache sees models: with a ``patcher`` and a ``clone`` that shares the weights and nothing else."""

    def __init__(self, net: Any) -> None:
        self.net = net
        self.patcher: Any = getattr(net, "control_model_wrapped", None)

    def clone(self) -> CachedControlNet:
        """One more, with a clone of the patcher."""
        net = self.net.copy()
        net.control_model_wrapped = self.patcher.clone()
        return CachedControlNet(net)


class CachedLoaders:
    """Makes cached loaders out of plain ones. *element_bytes* is what the device keeps per weight at least; *loads_lazily* tells whether
    weights stay in their files until used; *note_loaded* is told each patcher just loaded. Any thread.
    """

    def __init__(
        self, cache: RamModelCache, element_bytes: int, loads_lazily: Callable[[], bool], note_loaded: Callable[[Any], None]
    ) -> None:
        self._cache, self._element_bytes = cache, element_bytes
        self._loads_lazily, self._note_loaded = loads_lazily, note_loaded
        self._paths: OrderedDict[str, str] = OrderedDict()
        self._empty: OrderedDict[Hashable, Any] = OrderedDict()

    # Loaders

    def checkpoint(self, load: Function) -> Function:
        """Of ``load_checkpoint_guess_config``: up to four parts of one file."""
        bind = _binder(load)

        @functools.wraps(load)
        def load_checkpoint(*args: Any, **kwargs: Any) -> Any:
            given = bind(args, kwargs)
            wanted = [part for part, flag in CHECKPOINT_PARTS.items() if given[flag]]

            def read(parts: Collection[str]) -> Mapping[str, Any]:
                flags = {flag: part in parts for part, flag in CHECKPOINT_PARTS.items()}
                return dict(zip(("model", "clip", "vae", "clip_vision"), load(**{**given, **flags})))

            options = {name: given[name] for name in ("model_options", "te_model_options")}
            found = self._parts(read, wanted, [given["ckpt_path"]], options, given)
            return tuple(found.get(part) for part in CHECKPOINT_PARTS)

        return load_checkpoint

    def text_encoder(self, load: Function) -> Function:
        """Of ``load_clip``: one text encoder from one or more files."""
        return self._single(load, "clip", "ckpt_paths", ("clip_type", "model_options"))

    def diffusion_model(self, load: Function) -> Function:
        """Of ``load_diffusion_model``."""
        return self._single(load, "model", "unet_path", ("model_options",))

    def clip_vision(self, load: Function) -> Function:
        """Of ``clip_vision.load``."""
        return self._single(load, "clip_vision", "ckpt_path", ())

    def controlnet(self, load: Function) -> Function:
        """Of ``load_controlnet``. One whose weights depend on another model is loaded as ever; its name may say how it is averaged."""
        bind = _binder(load)

        @functools.wraps(load)
        def load_controlnet(*args: Any, **kwargs: Any) -> Any:
            given = bind(args, kwargs)
            path = given["ckpt_path"]

            def read(parts: Collection[str]) -> Mapping[str, Any]:
                net = load(**given)
                return {"controlnet": None if net is None else CachedControlNet(net)}

            options = {"model_options": given["model_options"], "name": os.path.basename(path)}
            why = "" if given["model"] is None else "its weights depend on the model it is for"
            found = self._parts(read, ["controlnet"], [path], options, given, why)["controlnet"]
            return None if found is None else found.net

        return load_controlnet

    def vae_node(self, full_path: Callable[[str, str], str | None]) -> Callable[[Function], Function]:
        """Of the node method ``VAELoader.load_vae``; *full_path* finds a file by folder and name. VAEs of no or several files are left."""

        def decorate(load: Function) -> Function:
            @functools.wraps(load)
            def load_vae(node: Any, vae_name: str) -> Any:
                if vae_name == "pixel_space" or vae_name in node.image_taes:
                    return load(node, vae_name)
                folder = "vae_approx" if os.path.splitext(vae_name)[0] in node.video_taes else "vae"
                path = full_path(folder, vae_name)
                if path is None:
                    return load(node, vae_name)

                def read(parts: Collection[str]) -> Mapping[str, Any]:
                    return {"vae": load(node, vae_name)[0]}

                return (self._parts(read, ["vae"], [path], {}, {})["vae"],)

            return load_vae

        return decorate

    def _single(self, load: Function, part: str, place: str, options: Sequence[str]) -> Function:
        bind = _binder(load)

        @functools.wraps(load)
        def load_one(*args: Any, **kwargs: Any) -> Any:
            given = bind(args, kwargs)
            paths = given[place] if isinstance(given[place], list | tuple) else [given[place]]
            chosen = {"loader": load.__name__, **{name: given[name] for name in options}}
            return self._parts(lambda parts: {part: load(**given)}, [part], paths, chosen, given)[part]

        return load_one

    # Cached or not

    def _parts(
        self,
        read: Read,
        wanted: Sequence[str],
        paths: Sequence[str],
        options: Mapping[str, Any],
        given: Mapping[str, Any],
        why_not: str = "",
    ) -> dict[str, Any]:
        """The *wanted* parts of *paths*: from the cache, or by *read*, which takes the names of missing parts."""
        keys: dict[str, WeightsKey] = {}
        if _independent.get() or given.get("disable_dynamic"):
            why_not = "weights of its own were asked for"
        try:
            for part in wanted:
                told = {**options, "embedding_directory": given["embedding_directory"]} if part == "clip" else options
                keys[part] = weights_key(part, paths, told)
        except NotCacheable as error:
            why_not = why_not or str(error)
        except OSError:  # no such file: the loader says so in its own words
            return self._plain(read, wanted)
        if why_not or not wanted:
            self._cache.note_bypass(" + ".join(map(os.path.basename, paths)), why_not or "no part of it was asked for")
            return self._plain(read, wanted)
        self._remember(paths, next(iter(keys.values())))
        return self._fetch(read, keys, paths)

    def _plain(self, read: Read, wanted: Sequence[str]) -> dict[str, Any]:
        found = dict(read(wanted))
        for value in found.values():
            release_recreation(value)
        return found

    def _fetch(self, read: Read, keys: Mapping[str, WeightsKey], paths: Sequence[str]) -> dict[str, Any]:
        found = {part: self._empty[key] for part, key in keys.items() if key in self._empty}
        parts: dict[Hashable, str] = {key: part for part, key in keys.items() if part not in found}
        sizes = functools.cache(lambda: part_sizes(paths, tuple(keys)))

        def estimate(part: str) -> int:
            file_bytes, count = sizes()[part]
            return max(file_bytes, count * self._element_bytes) if not self._loads_lazily() else 0

        def load(missing: list[Hashable]) -> dict[Hashable, Loaded]:
            fresh = read([parts[key] for key in missing])
            for value in fresh.values():
                release_recreation(value)
                if value is not None and patcher_of(value) is not None:
                    self._note_loaded(patcher_of(value))
            return {key: Loaded(fresh[parts[key]], None, sizes()[parts[key]][0]) for key in missing}

        if parts:
            estimates: dict[Hashable, Any] = {key: functools.partial(estimate, part) for key, part in parts.items()}
            for key, value in self._cache.fetch(estimates, load).items():
                found[parts[key]] = value
                if parts[key] == "vae" and value is not None and patcher_of(value) is None:
                    self._note_empty(key, value)
        return found

    def _note_empty(self, key: Hashable, value: Any) -> None:
        """Remember a VAE without weights, which a file without one gives: it is there to complain when used."""
        if getattr(value, "first_stage_model", None) is None and getattr(key, "is_current", bool)():
            self._empty[key] = value
            while len(self._empty) > PATHS_REMEMBERED:
                self._empty.popitem(last=False)

    # Names

    def _remember(self, paths: Sequence[str], key: WeightsKey) -> None:
        for path, real in zip(paths, key.paths):
            self._paths.pop(path, None)
            self._paths[path] = real
        while len(self._paths) > PATHS_REMEMBERED:
            self._paths.popitem(last=False)

    def paths_named(self, names: Collection[str]) -> list[str]:
        """Real paths of the files loaded so far that any of *names*, relative to a model folder, may mean; sorted."""
        found = set()
        for path, real in list(self._paths.items()):
            parts = path.replace("\\", "/").split("/")
            if any("/".join(parts[start:]) in names for start in range(len(parts))):
                found.add(real)
        return sorted(found)


def part_sizes(paths: Sequence[str], parts: Collection[str]) -> dict[str, tuple[int, int]]:
    """{part: (bytes in *paths*, weights)} from the headers of safetensors files. The only part has all; without a header the first has."""
    found = dict.fromkeys(parts, (0, 0))
    first = next(iter(parts))
    for path in paths:
        for name, size_bytes, count in _tensors(path):
            part = first if len(found) == 1 or not name else _part_of(name)
            if part in found:
                found[part] = (found[part][0] + size_bytes, found[part][1] + count)
    return found


def _part_of(name: str) -> str:
    return next((part for prefix, part in PART_PREFIXES.items() if name.startswith(prefix)), "clip")


def _tensors(path: str) -> list[tuple[str, int, int]]:
    """(name, bytes, elements) of each tensor by a safetensors header; of any other file one entry without a name, at two bytes each."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 0 < length < HEADER_LIMIT_BYTES:
            try:
                return [
                    (name, entry["data_offsets"][1] - entry["data_offsets"][0], math.prod(entry["shape"]))
                    for name, entry in json.loads(file.read(length)).items()
                    if name != "__metadata__"
                ]
            except (ValueError, AttributeError, LookupError, TypeError):  # not that format
                pass
        size_bytes = os.fstat(file.fileno()).st_size
    return [("", size_bytes, size_bytes // 2)]


def _binder(load: Function) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """A function that names the arguments of a call of *load*, defaults included."""
    signature = inspect.signature(load)

    def bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    return bind
