"""The files behind one prompt: their states when keys were made, and whether they are still in these states.

A result that is kept must come from the files that its key tells of. So states are noted before anything else looks at the files; the
keys of this process cover them; and after a node has run, its result is kept only if no file that it or a node above it names has changed
since then.
"""

import asyncio
import hashlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from comfy_execution.graph_utils import is_link
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.prompt_files.file_state import State, file_state, unsettled_s
from comfy_execution.prompt_files.known_folders import FileRoots, FolderNames
from comfy_execution.prompt_files.named_files import NamedFiles

log = logging.getLogger(__name__)

# The file system answers within this, or the prompt goes on without knowing the files.
SURVEY_TIMEOUT_S = 2.0
# Of a node with more files above it only its own are looked at again; those of the nodes above were when these had run.
MAX_ABOVE = 64


class FoundFile(NamedTuple):
    """A file that a node names: what for (see ``NamedFiles.behind``), its real path and its state; None when it cannot be looked at."""

    kind: str
    path: str
    state: State | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """The files that a node names, and the names of files that were not there."""

    files: tuple[FoundFile, ...]
    absent: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Below:
    """What follows from the files of a node and of those above it: a text that covers their states, "" without any, the files, and the
    names of files that were not there."""

    mark: str
    files: frozenset[tuple[str, State | None]]
    absent: frozenset[str] = frozenset()


_NOTHING = _Below("", frozenset())


class PromptFiles:
    """Of one prompt; used by the coroutine that runs it."""

    def __init__(
        self,
        roots: Callable[[], FileRoots],
        names: FolderNames,
        dynprompt: DynamicPrompt,
        node_class: Callable[[str], Any],
        timeout_s: float = SURVEY_TIMEOUT_S,
    ) -> None:
        """*roots* is called on a worker thread; *node_class* gives node classes by type."""
        self._roots = roots
        self._names = names
        self._dynprompt = dynprompt
        self._node_class = node_class
        self._timeout_s = timeout_s
        self._surveyed: set[str] = set()
        self._own: dict[str, tuple[FoundFile, ...]] = {}
        self._absent: dict[str, frozenset[str]] = {}
        self._below: dict[str, _Below] = {}
        # Nodes whose files are not known, or have changed since they were surveyed, and those below that have run since.
        self._doubtful: set[str] = set()
        self._told: set[str] = set()

    async def survey(self, node_ids: Iterable[str]) -> None:
        """Note the states of the files that the texts of *node_ids* name; before anything else looks at them. On an event loop.

        Takes up to ``TICK_S`` longer when a file was changed just now. When the file system does not answer in time, that is said, and no
        result of the nodes that name something, or of those below, is kept.
        """
        values: dict[str, list[Any]] = {}
        for node_id in node_ids:
            if node_id not in self._surveyed and self._dynprompt.has_node(node_id):
                self._surveyed.add(node_id)
                inputs = self._dynprompt.get_node(node_id)["inputs"].values()
                if texts := [value for value in inputs if isinstance(value, str | list | dict) and not is_link(value)]:
                    values[node_id] = texts
        if not values:
            return
        found = await self._look(values)
        wait_s = max((unsettled_s(file.state) for seen in (found or {}).values() for file in seen.files), default=0.0)
        if wait_s:
            await asyncio.sleep(wait_s)
            found = await self._look(values)
        if found is None:
            self._doubtful |= values.keys()
        else:
            self._own.update({node_id: seen.files for node_id, seen in found.items() if seen.files})
            self._absent.update({node_id: seen.absent for node_id, seen in found.items() if seen.absent})

    def own(self, node_id: str) -> tuple[FoundFile, ...]:
        """The files that the node itself names, as they were when it was surveyed."""
        return self._own.get(node_id, ())

    def are_none(self, node_id: str) -> bool:
        """Whether the node is known to name no files."""
        return node_id in self._surveyed and node_id not in self._own and node_id not in self._doubtful

    def is_known(self, node_id: str) -> bool:
        """Whether the files that the node names are known, and unchanged as far as anybody looked."""
        return node_id in self._surveyed and node_id not in self._doubtful

    def mark(self, node_id: str) -> str:
        """A text that covers the states of the files that the node and those above it name; "" when they name none.

        A class with ``IS_CHANGED`` tells by that whether the pictures it names have changed, so their states do not count for it.
        """
        return self._reach(node_id).mark if self._own or self._doubtful else ""

    def hold(self, node_id: str) -> bool:
        """Whether every file that the node or one above it names is in the state noted, so that its result belongs to its key.

        Asked when the node has run, after those above it. What has changed is said once per file. Blocks for a ``stat`` per file, and for
        up to *timeout_s* where names of files were not there: these are looked for again.
        """
        if not self._own and not self._absent and not self._doubtful:
            return True
        if node_id in self._doubtful or any(parent in self._doubtful for _, parent in self._parents(node_id)):
            self._doubtful.add(node_id)
            return False
        below = self._reach(node_id)
        changed = next((path for path, state in below.files if file_state(path) != state), None) or self._appeared(below.absent)
        if changed is None:
            return True
        self._doubtful.add(node_id)
        self._tell_changed(changed, node_id)
        return False

    def _appeared(self, absent: frozenset[str]) -> str | None:
        """One of the names *absent* that is there now, or of which nobody knows, because the file system does not answer."""
        if not absent:
            return None
        here: Future[list[str]] = _outcome_of(lambda: NamedFiles(self._roots(), self._names).absent(list(absent)))
        try:
            missing = here.result(self._timeout_s)
        except Exception:
            log.debug("Names without files could not be looked for again", exc_info=True)
            missing = []
        return next(iter(absent.difference(missing)), None)

    def _tell_changed(self, path: str, node_id: str) -> None:
        if path not in self._told:
            self._told.add(path)
            log.warning("%s was changed while the prompt ran: what node %s and those below make is kept for it only", path, node_id)

    async def _look(self, values: Mapping[str, list[Any]]) -> dict[str, _Seen] | None:
        """What was seen by node, for the nodes that name any files; None when that took too long."""
        # Whoever waits for a folder that does not answer is left behind; the second try leaves that folder out.
        for _ in range(2):
            looking = asyncio.wrap_future(_outcome_of(lambda: self._find(values)))
            done, _ = await asyncio.wait({looking}, timeout=self._timeout_s)
            if done:
                return looking.result()
            looking.cancel()
        log.warning(
            "The files that nodes name could not be looked at within %.0f s, so their results are not kept; does a disk or a mount hang?",
            2 * self._timeout_s,
        )
        return None

    def _find(self, values: Mapping[str, list[Any]]) -> dict[str, _Seen]:
        named = NamedFiles(self._roots(), self._names)
        states: dict[str, tuple[str, State | None]] = {}
        found: dict[str, _Seen] = {}
        for node_id, texts in values.items():
            files = [file for text in texts for file in named.behind(text)]
            for _, path in files:
                if path not in states:
                    real = os.path.realpath(path)
                    states[path] = real, file_state(real)
            absent = frozenset(named.absent(texts))
            if files or absent:
                found[node_id] = _Seen(tuple(FoundFile(kind, *states[path]) for kind, path in files), absent)
        return found

    def _parents(self, node_id: str) -> list[tuple[str, str]]:
        """(input, node) of every link."""
        inputs = self._dynprompt.get_node(node_id)["inputs"]
        return [
            (name, value[0])
            for name, value in inputs.items()
            if isinstance(value, list) and is_link(value) and self._dynprompt.has_node(value[0])
        ]

    def _reach(self, node_id: str) -> _Below:
        """Worked out once per node, those above first. A circle, whose nodes cannot run, ends at the node where it was entered."""
        path, opened = [node_id], set()
        while path:
            current = path[-1]
            parents = [] if current in self._below else self._parents(current)
            missing = [parent for _, parent in parents if parent not in self._below and parent not in opened]
            opened.add(current)
            if missing:
                path += missing
                continue
            path.pop()
            if current not in self._below:
                self._below[current] = self._combine(current, parents)
        return self._below[node_id]

    def _combine(self, node_id: str, parents: list[tuple[str, str]]) -> _Below:
        above = [(name, found) for name, parent in sorted(parents) if (found := self._below.get(parent, _NOTHING)) is not _NOTHING]
        own, absent = self._own.get(node_id, ()), self._absent.get(node_id, frozenset())
        if node_id in self._doubtful:
            return _Below(uuid.uuid4().hex, frozenset())
        if not own and not absent:
            if not above:
                return _NOTHING
            if all(found is above[0][1] for _, found in above):
                return above[0][1]
        files = frozenset((file.path, file.state) for file in own)
        united = files.union(*(found.files for _, found in above))
        marked = repr(
            [[file for file in own if self._is_bound(node_id, file)], [(name, found.mark) for name, found in above if found.mark]]
        )
        mark = "" if marked == repr([[], []]) else hashlib.sha256(marked.encode("utf-8", "surrogatepass")).hexdigest()
        names = absent.union(*(found.absent for _, found in above))
        return _Below(mark, united if len(united) <= MAX_ABOVE else files, names if len(names) <= MAX_ABOVE else absent)

    def _is_bound(self, node_id: str, file: FoundFile) -> bool:
        if file.kind not in ("input", "output", "temp"):
            return True
        return not hasattr(self._node_class(self._dynprompt.get_node(node_id)["class_type"]), "IS_CHANGED")


def _outcome_of(function: Callable[[], Any]) -> "Future[Any]":
    """What *function* will give; it runs on a thread that nothing waits for at the end of the process."""
    outcome: Future[Any] = Future()

    def work() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            result = function()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    threading.Thread(target=work, name="prompt-files", daemon=True).start()
    return outcome
