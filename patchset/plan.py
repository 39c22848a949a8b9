"""Works out, without touching the checkout, what a series would write; then writes it."""

import difflib
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import libcst as cst

from patchset import tree_files
from patchset.checkout import Checkout
from patchset.outcomes import AnchorError, Outcome, PatchsetError, Verdict
from patchset.series.definition import PROJECT, Series


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file: its bytes before (None: it did not exist) and after (None: it is removed)."""

    path: str
    before: bytes | None
    after: bytes | None

    @property
    def changes_nothing(self) -> bool:
        """Whether both sides are equal."""
        return self.before == self.after

    def diff(self) -> str:
        """The change as a unified diff."""
        old, new = ((side or b"").decode("utf-8").splitlines(keepends=True) for side in (self.before, self.after))
        return "".join(
            difflib.unified_diff(
                old, new, "/dev/null" if self.before is None else f"a/{self.path}", "/dev/null" if self.after is None else f"b/{self.path}"
            )
        )


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


def make_plan(series: Series, checkout: Checkout, with_tests: bool = True, earlier: Mapping[str, bytes] | None = None) -> Plan:
    """Run every transform of *series* in memory, on the files as they are or, where given, as *earlier* series leave them."""
    edits = series.edits(checkout.version)
    if not edits:
        return Plan(series, (Outcome(Verdict.NOT_NEEDED, "", series.name, ""),), ())
    outcomes: list[Outcome] = []
    changes: list[FileChange] = []
    for path in dict.fromkeys(edit.path for edit in edits):
        before = _read(path, checkout, earlier)
        if before is None:
            outcomes += [Outcome(Verdict.MISSING, path, edit.anchor, "the file") for edit in edits if edit.path == path]
            continue
        try:
            module = cst.parse_module(before)
        except cst.ParserSyntaxError as error:
            raise PatchsetError(f"{checkout.root / path} is not valid Python: {error}; nothing was changed") from error
        for edit in edits:
            if edit.path == path:
                module, outcome = edit.apply(module)
                outcomes.append(outcome)
        changes.append(FileChange(path, before, module.bytes))
    changes += [_copy(here, there, _read(there, checkout, earlier), outcomes) for here, there in series.copied(with_tests)]
    return Plan(series, tuple(outcomes), tuple(changes))


def _read(path: str, checkout: Checkout, earlier: Mapping[str, bytes] | None) -> bytes | None:
    return (earlier or {}).get(path) or checkout.read(path)


def _copy(here: str, there: str, have: bytes | None, outcomes: list[Outcome]) -> FileChange:
    wanted = (PROJECT / here).read_bytes()
    if have is None or have == wanted:
        outcomes.append(Outcome(Verdict.APPLIED if have is None else Verdict.ALREADY_THERE, there, "the file", "no file of that name"))
    else:
        outcomes.append(Outcome(Verdict.AMBIGUOUS, there, "the file", "no other file of that name"))
    return FileChange(there, have, wanted)


def require_sound(plan: Plan) -> None:
    """Raise ``AnchorError`` when any anchor of *plan* is missing or ambiguous."""
    if plan.failures:
        raise AnchorError(plan.series.name, plan.failures)


def write_all(root: pathlib.Path, changes: Iterable[FileChange]) -> None:
    """Write every change, one after the other. Raises ``OSError``; the caller's journal then puts back what was written."""
    for change in changes:
        if not change.changes_nothing:
            tree_files.write(root, change.path, change.after)
