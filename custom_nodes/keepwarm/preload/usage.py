"""Which models prompts have used since the start, and what reading them took or would have taken."""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .config import KINDS, Wanted, generated_key
from .loader_calls import Unloadable, loader_call, wanted_of

BYTES_PER_SECOND = 1e9  # where nothing was measured


@dataclass(slots=True)
class Use:
    """One model: prompts that used it, and seconds of reading that were spent on it or saved by keeping it."""

    wanted: Wanted
    file_bytes: Mapping[str, int]
    times: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"used {self.times} times, {self.seconds:.1f} s of reading spent or saved"


class UsageLog:
    """Reads what *queue*, the server's prompt queue, has in its history. :meth:`look` and :meth:`uses` may be called from any thread.

    *classes*: the server's node classes; *folders*: the module ``folder_paths``. Receipts tell the seconds where the server writes them
    into its history; elsewhere they are estimated from the files' sizes.
    """

    def __init__(
        self, queue: Any, classes: Mapping[str, type], folders: Any, find: Callable[[str], Wanted | None] = lambda key: None
    ) -> None:
        """*find* gives the entry of the preload config with a key."""
        self._queue, self._classes, self._folders, self._find = queue, classes, folders, find
        self._lock = threading.Lock()
        self._newest: Any = None
        self._uses: dict[str, Use] = {}

    def look(self) -> bool:
        """Take in the prompts that ended since the last look; whether one of them used a model. Blocks for a ``stat`` per file."""
        found = [self._note(entry) for entry in self._news()]
        return any(found)

    def uses(self) -> list[Use]:
        """What was used, most time first."""
        with self._lock:
            return sorted(self._uses.values(), key=lambda use: (-use.seconds, -use.times, use.wanted.cache_key))

    def _news(self) -> list[Any]:
        """The history's entries behind the newest one that was looked at, oldest first."""
        news = []
        with self._queue.mutex:
            for entry in reversed(self._queue.history.values()):
                if entry is self._newest:
                    break
                news.append(entry)
            self._newest = news[0] if news else self._newest
        return news[::-1]

    def _note(self, entry: Mapping[str, Any]) -> bool:
        calls = {}
        for node in entry["prompt"][2].values():
            wanted = self._wanted(node)
            if wanted is not None:
                calls[generated_key(wanted.kind, wanted.files, wanted.options)] = wanted
        receipts = list(entry["models"]) if "models" in entry else None
        for key, wanted in calls.items():
            self._count(key, wanted, receipts)
        return bool(calls)

    def _wanted(self, node: Mapping[str, Any]) -> Wanted | None:
        inputs = node.get("inputs", {})
        if str(node.get("class_type", "")).startswith("KeepwarmPreloaded"):
            return self._find(inputs.get("cache_key"))
        return wanted_of(node.get("class_type", ""), inputs)

    def _count(self, key: str, wanted: Wanted, receipts: list[Mapping[str, Any]] | None) -> None:
        """One more prompt used *wanted*; the *receipts* of its files are taken out of the list."""
        try:
            files = loader_call(wanted, self._classes, self._folders).files
            sizes = {path: os.path.getsize(path) for path in files}
        except (Unloadable, OSError):
            return  # gone since, or what only this prompt's server knew
        if not sizes:
            return  # a choice of the loader that is no file
        with self._lock:
            use = self._uses.setdefault(key, Use(wanted, sizes))
            use.times += 1
            use.file_bytes = sizes
            use.seconds += sum(sizes.values()) / BYTES_PER_SECOND if receipts is None else _take_seconds(receipts, files)


def _take_seconds(receipts: list[Mapping[str, Any]], files: Iterable[str]) -> float:
    """The seconds of the receipts for *files*, which leave the list."""
    of_files = " + ".join(os.path.basename(os.path.realpath(path)) for path in files)
    own = [receipt for receipt in receipts if str(receipt["model"]).partition(" of ")[2] == of_files]
    for receipt in own:
        receipts.remove(receipt)
    return sum(receipt["seconds"] for receipt in own)


def as_document(uses: Iterable[Use], capacity_bytes: int | None, settings: Mapping[str, bool]) -> dict[str, Any]:
    """A preload config of *uses*, in their order; what does not fit in *capacity_bytes* any more is in it as not enabled."""
    models: dict[str, list[dict[str, Any]]] = {}
    chosen: dict[str, int] = {}
    for use in uses:
        kind, wanted = KINDS[use.wanted.kind], use.wanted
        together = {**chosen, **use.file_bytes}
        fits = capacity_bytes is None or sum(together.values()) <= capacity_bytes
        chosen = together if fits else chosen
        named: Any = list(wanted.files) if kind.file_field == "clip_names" else wanted.files[0]
        entry = {kind.file_field: named, **wanted.options, "cache_key": wanted.cache_key, "description": wanted.description or str(use)}
        models.setdefault(wanted.kind, []).append(entry if fits else {**entry, "enabled": False})
    said = "what was used, most time saved first" + ("" if capacity_bytes is None else f", within {capacity_bytes} bytes")
    return {"version": "1.0", "description": said, "models": models, "settings": dict(settings)}
