"""Loads what a config names, holds it, and knows what came of each entry."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from ..units import megabytes
from .config import KINDS, PreloadConfig, Problem, Wanted
from .disks import DiskTurns
from .in_order import LoadsInOrder
from .keepers import Keeper
from .loader_calls import LoaderCall, Unloadable, loader_call

log = logging.getLogger(__name__)


class State(Enum):
    """Where an entry stands."""

    WAITING = "waiting"
    LOADING = "loading"
    HELD = "held"
    NOT_HELD = "not held"
    FAILED = "failed"
    LET_GO = "let go"


@dataclass(slots=True)
class Entry:
    """One model of the config; *file_sizes* are those of its files when the plan was made. Its preloader writes it."""

    wanted: Wanted
    call: LoaderCall
    file_sizes: Mapping[str, int]
    state: State = State.WAITING
    seconds: float = 0.0
    why: str = ""

    @property
    def file_bytes(self) -> int:
        """What its files take on the disk."""
        return together_bytes([self])

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"{KINDS[self.wanted.kind].name} {' + '.join(self.wanted.files)}"


def together_bytes(entries: Iterable[Entry]) -> int:
    """What the files of *entries* take on the disk, each counted once."""
    return sum({path: size for entry in entries for path, size in entry.file_sizes.items()}.values())


@dataclass(frozen=True, slots=True)
class Plan:
    """What can be loaded, and what is wrong with the rest."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


def make_plan(config: PreloadConfig, classes: Mapping[str, type], folders: Any) -> Plan:
    """The plan for *config* with the loader nodes among *classes*; reads no model."""
    entries, problems = [], list(config.problems)
    for wanted in config.models:
        try:
            call = loader_call(wanted, classes, folders)
            entries.append(Entry(wanted, call, {path: os.path.getsize(path) for path in call.files}))
        except Unloadable as error:
            problems.append(error.problem)
        except OSError as error:
            problems.append(Problem(wanted.path, f"{error.filename} cannot be read: {error.strerror}"))
        except Exception as error:  # what a loader node that a pack has replaced may raise
            problems.append(Problem(wanted.path, f"its loader node cannot be asked what it takes: {type(error).__name__}: {error}"))
    return Plan(tuple(entries), tuple(problems))


def plan_text(plan: Plan, capacity_bytes: int | None) -> str:
    """The plan for people: a line per model, what is wrong, and whether it fits."""
    lines = [f"{entry.title}: {megabytes(entry.file_bytes)} (key {entry.wanted.cache_key!r})" for entry in plan.entries]
    lines += [f"left out: {problem}" for problem in plan.problems]
    total_bytes = together_bytes(plan.entries)
    lines.append(f"together {megabytes(total_bytes)}" + ("" if capacity_bytes is None else f" of at most {megabytes(capacity_bytes)}"))
    if capacity_bytes is not None and total_bytes > capacity_bytes:
        lines.append(
            f"That does not fit: raise --ram-model-cache-mb, or take models out; not held will be {_named(beyond(plan, capacity_bytes))}"
        )
    return "\n".join(lines)


def beyond(plan: Plan, capacity_bytes: int) -> list[Entry]:
    """The entries of *plan*, loaded in its order, that do not fit in *capacity_bytes* by the sizes of their files."""
    fitting: list[Entry] = []
    for entry in plan.entries:
        if together_bytes([*fitting, entry]) <= capacity_bytes:
            fitting.append(entry)
    return [entry for entry in plan.entries if entry not in fitting]


def _named(entries: Iterable[Entry]) -> str:
    return ", ".join(f"{entry.title} ({entry.wanted.path})" for entry in entries)


class Preloader:
    """One per process. :meth:`run` blocks and is called once; everything else may be called from any thread."""

    def __init__(self, plan: Plan, keeper: Keeper, clock: Callable[[], float] = time.perf_counter) -> None:
        self.plan = plan
        self.keeper = keeper
        self._clock = clock
        self._disks = DiskTurns()
        self._stopped = threading.Event()

    def run(self, progress: Callable[[Iterable[Entry]], Iterable[Entry]] = iter) -> None:
        """Load every entry; *progress* is handed each as it ends, to show how far it is. An entry that fails says so and is passed over."""
        started_s = self._clock()
        capacity_bytes = self.keeper.capacity_bytes()
        if capacity_bytes is not None and (outside := beyond(self.plan, capacity_bytes)):
            log.warning("By the sizes of the files there is no room in %s for %s", megabytes(capacity_bytes), _named(outside))
        order = LoadsInOrder(self.keeper.room_bytes)

        def load(numbered: tuple[int, Entry]) -> Entry:
            place, entry = numbered
            with order.turn(place, entry.file_bytes):
                return self._load(entry)

        with ThreadPoolExecutor(self.keeper.at_once, "preload") as pool:
            for _ in progress(pool.map(load, enumerate(self.plan.entries))):
                pass
        for entry in self.plan.entries:  # what found no room beside a prompt's models then, or was refused
            if entry.state is State.NOT_HELD:
                self._load(entry)
        held = [entry for entry in self.plan.entries if entry.state is State.HELD]
        of = "" if capacity_bytes is None else f" of at most {megabytes(capacity_bytes)}"
        log.info(
            "Preloaded %d of %d models, %s%s, in %.1f s",
            len(held),
            len(self.plan.entries),
            megabytes(together_bytes(held)),
            of,
            self._clock() - started_s,
        )

    def is_complete(self) -> bool:
        """Whether everything that the config names is held, and nothing in it is wrong."""
        return not self.plan.problems and all(self.described_entry(entry)["state"] == State.HELD.value for entry in self.plan.entries)

    def stop(self) -> None:
        """Begin no further load."""
        self._stopped.set()

    def find(self, key: str) -> Entry | None:
        """The entry whose ``cache_key`` is *key*."""
        return next((entry for entry in self.plan.entries if entry.wanted.cache_key == key), None)

    def add(self, wanted: Wanted, call: LoaderCall) -> Entry:
        """An entry for *wanted* beside those of the config, not loaded yet; the one with its key if there is one. Raises ``OSError``."""
        entry = self.find(wanted.cache_key)
        if entry is None:
            entry = Entry(wanted, call, {path: os.path.getsize(path) for path in call.files})
            self.plan = replace(self.plan, entries=(*self.plan.entries, entry))
        return entry

    def keys(self, kind: str) -> list[str]:
        """The keys of the entries in the list *kind*."""
        return [entry.wanted.cache_key for entry in self.plan.entries if entry.wanted.kind == kind]

    def load(self, entry: Entry) -> None:
        """Load and hold *entry* now, also after it was let go or failed."""
        self._load(entry)

    def let_go(self, entry: Entry) -> bool:
        """No longer hold *entry*; whether it was held."""
        was_held = self.keeper.let_go(entry.call)
        entry.state = State.LET_GO
        return was_held

    def described(self) -> dict[str, Any]:
        """Every entry, as JSON data; sizes in bytes, times in seconds."""
        return {
            "models": [self.described_entry(entry) for entry in self.plan.entries],
            "problems": [{"path": problem.path, "message": problem.text} for problem in self.plan.problems],
        }

    def described_entry(self, entry: Entry) -> dict[str, Any]:
        """*entry* as JSON data; whether it is held is looked up."""
        state, why = entry.state, entry.why
        if state is State.HELD and not self.keeper.holds(entry.call):
            state, why = State.NOT_HELD, "it was dropped, or its file was replaced"
        return {
            "cache_key": entry.wanted.cache_key,
            "kind": KINDS[entry.wanted.kind].name,
            "files": list(entry.wanted.files),
            "options": dict(entry.wanted.options),
            "description": entry.wanted.description,
            "state": state.value,
            "file_bytes": entry.file_bytes,
            "seconds": round(entry.seconds, 3),
            **({"why": why} if why else {}),
        }

    def _load(self, entry: Entry) -> Entry:
        if self._stopped.is_set():
            return entry
        entry.state = State.LOADING
        try:
            with self._disks.turn(entry.call.files):
                started_s = self._clock()
                no_room = self.keeper.load(entry.call)
        except Exception as error:
            entry.state, entry.why = State.FAILED, f"{type(error).__name__}: {error}"
            log.warning("Not preloaded: %s (%s): %s", entry.title, entry.wanted.path, entry.why)
            return entry
        entry.seconds = self._clock() - started_s
        speed = f", {entry.file_bytes / max(entry.seconds, 1e-9) / 1e9:.2f} GB/s"
        if not no_room:
            entry.state, entry.why = State.HELD, ""
            log.info("Preloaded %s: %s in %.1f s%s", entry.title, megabytes(entry.file_bytes), entry.seconds, speed)
        else:
            entry.state, entry.why = State.NOT_HELD, no_room
            log.warning("Not preloaded: %s (%s): %s", entry.title, entry.wanted.path, no_room)
        return entry
