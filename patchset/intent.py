"""Works out what a checkout is to become: what is applied without a commit is taken off in memory, and put on again with what was chosen.

So the files always are what applying everything to a fresh checkout would make of them, whatever was done in between.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patchset import layers
from patchset.checkout import Checkout
from patchset.outcomes import AnchorError, Outcome, PatchsetError
from patchset.plan import make_plan
from patchset.record import Layer
from patchset.series.definition import Series
from patchset.trees import CommitTree, FileChange, Overlay
from patchset.undoing import take_off


@dataclass(frozen=True, slots=True)
class Standing:
    """One chosen series and a checkout: *summary* in a few words, and what was found at each of its places.

    *rivals* names what is applied and does the same in the same places ("" if nothing does).
    """

    series: Series
    summary: str
    outcomes: tuple[Outcome, ...]
    rivals: str = ""

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The outcomes that forbid applying it."""
        return tuple(outcome for outcome in self.outcomes if outcome.verdict.is_failure)

    @property
    def fits(self) -> bool:
        """Whether it can be applied, or is."""
        return not self.rivals and not self.failures

    @property
    def refusal(self) -> str:
        """Why a rival keeps it out, in a line."""
        return f"{self.series.name} and {self.rivals} do the same in the same places, and {self.rivals} is applied: revert that first"


@dataclass(frozen=True, slots=True)
class Intent:
    """What to write. *removed* takes off what was there without a commit, *layers* go on it, oldest first; *changes* is all of that.

    *loose* names what is applied without a commit, if only in part, *replaced* what of it is there whole.
    """

    standings: tuple[Standing, ...]
    removed: tuple[FileChange, ...]
    layers: tuple[Layer, ...]
    changes: tuple[FileChange, ...]
    loose: frozenset[str]
    replaced: frozenset[str]

    @property
    def new(self) -> list[Layer]:
        """The layers of series that were not applied before, or only in part."""
        return [layer for layer in self.layers if layer.series not in self.replaced]


def intend(
    checkout: Checkout,
    chosen: Sequence[Series],
    known: Mapping[str, Series],
    without: frozenset[str] = frozenset(),
    with_tests: bool = True,
) -> Intent:
    """Add *chosen* to what is applied without a commit, and leave out the series in *without*. Series that do not fit are left out.

    Raises ``PatchsetError`` where files were changed so that what is applied cannot be told from the rest, and for *chosen* series that
    exclude each other.
    """
    require_no_rivals(chosen)
    below = layers.committed(checkout, known)
    loose = layers.uncommitted(checkout, known, below)
    whole = [layer.series for layer in loose if layer.series not in without and _is_whole(layer, checkout, known)]
    foreign = [name for name in whole if name not in known]
    if foreign:
        raise PatchsetError(f"{', '.join(foreign)}: applied by another version of Keepwarm. Revert everything first, then apply again")
    base = Overlay(checkout)
    take_off(base, loose, checkout, known)
    overlay, made, standings = Overlay(base), [], []
    names = {series.name for series in chosen} - without
    there = [known[name] for name in (*(layer.series for layer in below), *whole)]
    for series in known.values():
        if series.name not in names and series.name not in whole:
            continue
        rivals = ", ".join(other.name for other in there if series.is_rival_of(other))
        if rivals and series.name not in whole:
            standings.append(Standing(series, f"not together with {rivals}, which is applied", (), rivals))
            continue
        plan = make_plan(series, overlay, with_tests)
        if series.name in whole and plan.failures:
            raise AnchorError(series.name, plan.failures)
        is_there = series.name in whole or (plan.is_noop and not plan.failures)
        is_part = not is_there and any(layer.series == series.name for layer in loose)
        if not plan.failures and not plan.is_noop:
            made.append(Layer(series.name, tuple(change for change in plan.changes if not change.changes_nothing)))
            for change in made[-1].changes:
                overlay.put(change.path, change.after)
        if series.name in names:
            told = "does not fit" if plan.failures else "already applied" if is_there else "can be applied"
            standings.append(Standing(series, f"in part there; {told}" if is_part else told, plan.outcomes))
    final = Overlay(checkout)
    for change in (*base.changes(), *overlay.changes()):
        final.put(change.path, overlay.read(change.path))
    return Intent(
        tuple(standings), base.changes(), tuple(made), final.changes(), frozenset(layer.series for layer in loose), frozenset(whole)
    )


def require_no_rivals(chosen: Sequence[Series]) -> None:
    """Raise ``PatchsetError`` where two of *chosen* exclude each other."""
    for one, other in itertools.combinations(chosen, 2):
        if one.is_rival_of(other):
            raise PatchsetError(f"{one.name} and {other.name} do the same in the same places: name one of them, not both")


def require_clean(checkout: Checkout, intent: Intent, needs_git: bool) -> None:
    """Raise ``PatchsetError`` where files that are to be changed (with commits: any) hold uncommitted work of the user's."""
    if not checkout.is_git:
        if needs_git:
            raise PatchsetError(f"{checkout.root} is no git checkout; leave out --branch and --commit, or clone ComfyUI with git")
        return
    changed, head, base = checkout.changed_files(), CommitTree(checkout), Overlay(checkout)
    if needs_git and (intent.replaced or any(head.read(change.path) is not None for change in intent.removed)):
        raise PatchsetError(
            f"{', '.join(sorted(intent.loose))}: applied without a commit of this tool. Revert that first, commit what was undone "
            "if commits of yours have it, then apply with commits"
        )
    for change in intent.removed:
        base.put(change.path, change.after)
    paths = {change.path for change in intent.changes}
    touched = [path for path in changed if (needs_git or path in paths) and base.read(path) != head.read(path)]
    if touched:
        raise PatchsetError(f"these files have uncommitted changes: {', '.join(sorted(touched))}. Commit or stash them first.")


def _is_whole(layer: Layer, checkout: Checkout, known: Mapping[str, Series]) -> bool:
    if all(checkout.read(change.path) == change.after for change in layer.changes):
        return True
    series = known.get(layer.series)
    plan = None if series is None else make_plan(series, checkout)
    return plan is not None and plan.is_noop and not plan.failures
