"""Works out, without touching the checkout, what a series would write; then writes it."""

import functools
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass

import libcst as cst

from patchset import tree_files
from patchset.checkout import Version
from patchset.outcomes import Outcome, PatchsetError, Verdict
from patchset.series.definition import PROJECT, Series
from patchset.trees import FileChange, Tree


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying one series to one checkout would do."""

    series: Series
    outcomes: tuple[Outcome, ...]
    changes: tuple[FileChange, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The outcomes that forbid applying it."""
        return tuple(outcome for outcome in self.outcomes if outcome.verdict.is_failure)

    @property
    def is_noop(self) -> bool:
        """Whether the checkout already is as the series wants it."""
        return all(change.changes_nothing for change in self.changes)


def make_plan(series: Series, tree: Tree, with_tests: bool = True) -> Plan:
    """Run every transform of *series* in memory, on the files of *tree*. Raises ``PatchsetError`` for files that are not Python."""
    edits = series.edits(tree.version)
    if not edits:
        return Plan(series, (Outcome(Verdict.NOT_NEEDED, "", series.name, ""),), ())
    outcomes: list[Outcome] = []
    changes: list[FileChange] = []
    for path in dict.fromkeys(edit.path for edit in edits):
        before = tree.read(path)
        if before is None:
            outcomes += [Outcome(Verdict.MISSING, path, edit.anchor, "the file") for edit in edits if edit.path == path]
            continue
        try:
            after, told = transformed(series, tree.version, path, before)
        except cst.ParserSyntaxError as error:
            raise PatchsetError(f"{tree.root / path} is not valid Python: {error}; nothing was changed") from error
        outcomes += told
        changes.append(FileChange(path, before, after))
    changes += [_copy(here, there, tree.read(there), outcomes) for here, there in series.copied(with_tests)]
    return Plan(series, tuple(outcomes), tuple(changes))


@functools.lru_cache(maxsize=512)  # one command asks about the same file several times
def transformed(series: Series, version: Version, path: str, content: bytes) -> tuple[bytes, tuple[Outcome, ...]]:
    """*content* with the edits that *series* makes in *path*, and what each found. Raises ``ParserSyntaxError``."""
    parsed = module = _parsed(content)
    outcomes = []
    for edit in series.edits(version):
        if edit.path == path:
            module, outcome = edit.apply(module)
            outcomes.append(outcome)
    return content if module is parsed else module.bytes, tuple(outcomes)


@functools.lru_cache(maxsize=32)  # every series looks at the same few files
def _parsed(content: bytes) -> cst.Module:
    return cst.parse_module(content)


def _copy(here: str, there: str, have: bytes | None, outcomes: list[Outcome]) -> FileChange:
    wanted = (PROJECT / here).read_bytes()
    if have is None or have == wanted:
        outcomes.append(Outcome(Verdict.APPLIED if have is None else Verdict.ALREADY_THERE, there, "the file", "no file of that name"))
    else:
        outcomes.append(Outcome(Verdict.AMBIGUOUS, there, "the file", "no other file of that name"))
    return FileChange(there, have, wanted)


def write_all(root: pathlib.Path, changes: Iterable[FileChange]) -> None:
    """Write every change, one after the other. Raises ``OSError``; the caller's journal then puts back what was written."""
    for change in changes:
        if not change.changes_nothing:
            tree_files.write(root, change.path, change.after)
