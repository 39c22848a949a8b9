"""Which files of weights this server has in memory, under the names that prompts use, and what those files contain."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import folder_paths
from comfy.ram_model_cache.states import State
from comfy.ram_model_cache.values import Entry
from comfy.ram_model_cache.weights_key import FileIdentity, FingerprintMemo, content_fingerprint

log = logging.getLogger(__name__)
Places = Mapping[str, tuple[tuple[str, str], ...]]


class Entries(Protocol):
    """What is needed of the RAM model cache."""

    def entries(self, describe: Callable[[Entry, float], Any]) -> list[Any]:
        """What *describe* says of every entry."""

    def stats(self) -> Any:
        """Sizes, with ``cap_bytes``; None for no cache."""


@dataclass(slots=True)
class _Warm:
    """What is in memory of one file, all its parts together."""

    file: FileIdentity
    bytes: int = 0
    reload_s: float = 0.0
    on_device: bool = False
    held: bool = False


class FileContents:
    """Fingerprints of files, each taken once per state of the file, on a thread that ends when none is left to take. Any thread."""

    def __init__(self, memo: FingerprintMemo | None, fingerprint: Callable[..., str] = content_fingerprint) -> None:
        """*memo* remembers them over restarts."""
        self._memo, self._fingerprint = memo, fingerprint
        self._lock = threading.Lock()
        self._known: dict[FileIdentity, str | None] = {}
        self._waiting: deque[FileIdentity] = deque()
        self._works = False

    def of(self, file: FileIdentity) -> str | None:
        """The fingerprint of *file*; None while it is not known, which this call has changed. Never blocks on the file."""
        with self._lock:
            if file in self._known:
                return self._known[file]
            self._known[file] = None
            self._waiting.append(file)
            starts, self._works = not self._works, True
        if starts:
            threading.Thread(target=self._take, name="content-fingerprint", daemon=True).start()
        return None

    def _take(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._works = False
                    return
                file = self._waiting.popleft()
            try:
                found = self._fingerprint(file.path, self._memo)
                is_same = FileIdentity.of(file.path) == file
            except Exception as error:  # whatever: no file may end the thread that the others wait for
                log.warning("%s cannot be read to know what it contains, so other servers' copies count as different: %r", file.path, error)
                continue
            if is_same:
                with self._lock:
                    self._known[file] = found


class ModelPlaces:
    """The (kind of folder, name) pairs under which prompts find each file of weights, by real path. Blocks on the file system.

    *names_of* lists the files of a kind (``folder_paths.get_filename_list``), *path_of* gives the path of one.
    """

    def __init__(self, kinds: Callable[[], Iterable[str]], names_of: Callable[[str], list[str]], path_of: Callable[[str, str], str | None]):
        self._kinds, self._names_of, self._path_of = kinds, names_of, path_of
        self._lists: dict[str, list[str]] = {}
        self._sizes: dict[tuple[str, str], tuple[str, int]] = {}
        self._places: Places = {}
        self.version = 0

    def current(self) -> Places:
        """The pairs now; :attr:`version` grows when a list has changed."""
        lists = {kind: self._names_of(kind) for kind in self._kinds()}
        if lists != self._lists:
            self._read(lists)
        return self._places

    def files(self) -> list[dict[str, Any]]:
        """Every file as ``{folder, name, bytes}``, as of the last :meth:`current`."""
        return [{"folder": kind, "name": name, "bytes": size} for (kind, name), (_, size) in self._sizes.items()]

    def _read(self, lists: dict[str, list[str]]) -> None:
        places: dict[str, tuple[tuple[str, str], ...]] = {}
        sizes: dict[tuple[str, str], tuple[str, int]] = {}
        for kind, names in lists.items():
            for name in names:
                path = self._path_of(kind, name)
                if path is None or not os.path.isfile(path):
                    continue
                real, place = os.path.realpath(path), (kind, name.replace(os.sep, "/"))
                places[real] = (*places.get(real, ()), place)
                sizes[place] = real, os.path.getsize(real)
        self._lists, self._places, self._sizes = lists, places, sizes
        self.version += 1


class WarmModels:
    """Describes what *cache* keeps, file by file."""

    def __init__(self, cache: Callable[[], Entries], places: ModelPlaces, contents: FileContents) -> None:
        self._cache, self.places, self._contents = cache, places, contents

    def cap_bytes(self) -> int:
        """The cap of the RAM model cache, 0 without one."""
        stats = self._cache().stats()
        return 0 if stats is None else stats.cap_bytes

    def files(self) -> tuple[int, list[dict[str, Any]]]:
        """A version that grows with every change, and every file in the model folders as ``{folder, name, bytes}``."""
        return self.places.version, self.places.files()

    def describe(self) -> list[dict[str, Any]]:
        """One dict per place of each file that is kept; sizes in bytes, times in seconds. Blocks for a look at the folders."""
        places = self.places.current()
        warm: dict[FileIdentity, _Warm] = {}
        for seen in self._cache().entries(_seen):
            if seen is not None:
                _add(warm, *seen)
        return [
            {
                "folder": folder,
                "name": name,
                "identity": self._contents.of(one.file),
                "file_bytes": one.file.size,
                "bytes": one.bytes,
                "reload_s": round(one.reload_s, 4),
                "tier": "vram" if one.on_device else "ram",
                "held": one.held,
            }
            for one in warm.values()
            for folder, name in places.get(one.file.path, ())
        ]


def describe_warmth(cache: Callable[[], Entries], kinds: Callable[[], Iterable[str]]) -> WarmModels:
    """What *cache* keeps of the files in this server's folders of all *kinds*."""
    memo = FingerprintMemo(os.path.join(folder_paths.get_system_user_directory(), "content_fingerprints"))
    places = ModelPlaces(kinds, folder_paths.get_filename_list, folder_paths.get_full_path)
    return WarmModels(cache, places, FileContents(memo))


def _seen(entry: Entry, now_s: float) -> tuple[tuple[FileIdentity, ...], int, float, bool, bool] | None:
    """What is to be known of *entry*, which the cache's lock guards; None for one that is not kept."""
    files = getattr(entry.key, "files", ())
    if entry.state is not State.KEPT or not files:
        return None
    return files, entry.size_bytes, entry.seconds, entry.on_devices > 0, entry.held


def _add(warm: dict[FileIdentity, _Warm], files: tuple[FileIdentity, ...], size: int, seconds: float, on_device: bool, held: bool) -> None:
    """Count a part with its files; one made of several is shared out by their sizes."""
    whole = sum(file.size for file in files) or 1
    for file in files:
        one = warm.setdefault(file, _Warm(file))
        one.bytes += size * file.size // whole
        one.reload_s += seconds * file.size / whole
        one.on_device = one.on_device or on_device
        one.held = one.held or held
