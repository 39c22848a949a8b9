"""Lets cubiq's ComfyUI_InstantID, unmodified, remember what it computes of a face: opt in by ``KEEPWARM_REMEMBER_INSTANTID=1``.

Its nodes analyse the face and run the resampler for every new text and seed. With this, both are answered by content: the pixels, the
analyser's files, the adapter and its place. Everything else in the pack runs as it is.
"""

import functools
import importlib
import itertools
import logging
import os
import pathlib
import sys
import threading
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from comfy_api.latest import ComfyAPISync

log = logging.getLogger(__name__)

ENVIRONMENT = "KEEPWARM_REMEMBER_INSTANTID"
NODE = "ApplyInstantID"
ANALYSIS, ADAPTER, RESAMPLER = "extractFeatures", "InstantID", "get_image_embeds"
Value = TypeVar("Value")


class Numbers:
    """A number for each object as long as it lives, never given twice."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._counter = itertools.count()
        self._lock = threading.Lock()

    def of(self, thing: Any) -> int:
        """The number of *thing*. Raises ``TypeError`` for objects that cannot be referred to weakly."""
        with self._lock:
            if thing not in self._known:
                self._known[thing] = next(self._counter)
            return self._known[thing]


class Call:
    """A call that counts by the name of its function alone: whoever asks names all that it depends on beside it."""

    def __init__(self, name: str, compute: Callable[[], Any]) -> None:
        self._name = name
        self._compute = compute

    def patch_identity_key(self) -> str:
        """The name."""
        return self._name

    def __call__(self) -> Any:
        return self._compute()


class InstantIDMemo:
    """Remembers the pack's analysis and resampler through *remembered*: of (parameters, call) it gives what an equal one gave."""

    def __init__(self, remembered: Callable[[Any, Callable[[], Any]], Any]) -> None:
        self._remembered = remembered
        self._numbers = Numbers()
        self._is_installed = False

    def install(self, node_classes: Mapping[str, Any]) -> bool:
        """Wrap the functions of the pack that brought *node_classes*'s ``ApplyInstantID``, once; whether they are wrapped."""
        if self._is_installed or NODE not in node_classes:
            return self._is_installed
        names = vars(sys.modules.get(node_classes[NODE].__module__, types.ModuleType("gone")))  # its methods may be wrapped by others
        analysis: Any = names.get(ANALYSIS)
        adapter: Any = names.get(ADAPTER)
        if not callable(analysis) or not callable(getattr(adapter, RESAMPLER, None)):
            log.warning(
                "%s has no effect: this version of ComfyUI_InstantID has no %s or no %s.%s", ENVIRONMENT, ANALYSIS, ADAPTER, RESAMPLER
            )
            self._is_installed = True
            return False
        names[ANALYSIS] = self._analysis(analysis)
        adapter.get_image_embeds = self._resampler(adapter.get_image_embeds)
        self._is_installed = True
        log.info("ComfyUI_InstantID: faces and their tokens are remembered by content (%s)", ENVIRONMENT)
        return True

    def _analysis(self, analyse: Callable[..., Value]) -> Callable[..., Value]:
        @functools.wraps(analyse)
        def extract_features(insightface: Any, image: Any, extract_kps: bool = False) -> Value:
            params = (self._analyser(insightface), image, bool(extract_kps))
            call = Call("InstantID's analysis", lambda: analyse(insightface, image, extract_kps=extract_kps))
            return _own(self._remembered(params, call))

        return extract_features

    def _resampler(self, resample: Callable[..., Value]) -> Callable[..., Value]:
        @functools.wraps(resample)
        def get_image_embeds(adapter: Any, clip_embed: Any, clip_embed_zeroed: Any) -> Value:
            params = (self._weights(adapter), str(clip_embed.device), clip_embed, clip_embed_zeroed)
            return _own(self._remembered(params, Call("InstantID's resampler", lambda: resample(adapter, clip_embed, clip_embed_zeroed))))

        return get_image_embeds

    def _analyser(self, insightface: Any) -> tuple[Any, ...]:
        """What *insightface* finds depends on: its models' files, if it says them, else the object; and the threshold of its detector."""
        models = getattr(insightface, "models", None) or {}
        files = [_state(getattr(model, "model_file", None)) for model in models.values()]
        known = tuple(zip(models, files, strict=True)) if files and None not in files else self._numbers.of(insightface)
        detector = getattr(insightface, "det_model", None)
        return (
            type(insightface).__qualname__,
            known,
            repr(getattr(detector, "det_thresh", None)),
            repr(getattr(detector, "nms_thresh", None)),
        )

    def _weights(self, adapter: Any) -> tuple[Any, ...]:
        """The adapter as it stands: the object, and each weight's place, kind and count of changes."""
        places = tuple(
            (weight.data_ptr(), str(weight.dtype), str(weight.device), _changes(weight)) for weight in adapter.image_proj_model.parameters()
        )
        return (self._numbers.of(adapter), places)


def _changes(tensor: Any) -> int:
    """How often *tensor* was written into; -1 where torch does not count: tensors, and data, made in inference mode."""
    try:
        return int(tensor._version)
    except RuntimeError:
        return -1


def _state(path: Any) -> tuple[str, int, int] | None:
    """What tells whether the file *path* is still the same; None without such a file."""
    try:
        file = pathlib.Path(path)
        found = file.stat()
    except (OSError, TypeError):
        return None
    return (str(file), found.st_size, found.st_mtime_ns)


def _own(value: Any) -> Any:
    """A copy of *value*'s tensors: the pack may change what it gets."""
    if isinstance(value, tuple):
        return tuple(_own(item) for item in value)
    return value.clone() if hasattr(value, "clone") else value


def install(environment: Mapping[str, str] | None = None) -> InstantIDMemo | None:
    """Have the memo wrap the pack before the first prompt, when every pack is loaded; None where nobody opted in or nothing remembers."""
    environment = os.environ if environment is None else environment
    if environment.get(ENVIRONMENT, "").lower() not in ("1", "true", "yes", "on"):
        return None
    server = getattr(importlib.import_module("server").PromptServer, "instance", None)
    remembered = getattr(getattr(ComfyAPISync(), "patching", None), "remembered", None)
    if server is None or remembered is None:
        log.warning("%s has no effect: this server remembers nothing for node packs", ENVIRONMENT)
        return None
    memo = InstantIDMemo(remembered)

    def before_each_prompt(body: Any) -> Any:
        memo.install(importlib.import_module("nodes").NODE_CLASS_MAPPINGS)
        return body

    server.add_on_prompt_handler(before_each_prompt)
    return memo
