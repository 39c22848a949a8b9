"""What the tool does to a checkout: check, apply, revert, update. Each returns lines to print or raises ``PatchsetError``."""

from collections.abc import Mapping, Sequence

from patchset import journal, record, reverting
from patchset.checkout import NEWEST_TESTED, Checkout, open_checkout
from patchset.intent import Intent, Standing, intend, require_clean, require_no_rivals
from patchset.journal import Journal
from patchset.outcomes import AnchorError, PatchsetError
from patchset.plan import write_all
from patchset.record import Layer
from patchset.series import SERIES
from patchset.series.definition import Series
from patchset.trees import FileChange

Known = Mapping[str, Series]


def check(checkout: Checkout, chosen: Sequence[Series], known: Known = SERIES, verbose: bool = False) -> tuple[list[str], bool]:
    """One line per series and per place that it does not find (*verbose*: every place); whether every series fits."""
    journal.require_none(checkout)
    lines = [f"ComfyUI {checkout.version_text} in {checkout.root}"]
    if checkout.version[:2] > NEWEST_TESTED:
        lines.append(f"newer than what was tested (0.{NEWEST_TESTED[1]}); what is found in the files decides")
    standings = intend(checkout, chosen, known).standings
    for standing in standings:
        shown = standing.outcomes if verbose else standing.failures
        lines += [f"{standing.series.name}: {standing.summary}", *(f"  {outcome}" for outcome in shown)]
    return lines, all(standing.fits for standing in standings)


def fitting(checkout: Checkout, chosen: Sequence[Series], known: Known, strict: bool, with_tests: bool = True) -> tuple[Intent, list[str]]:
    """What to write for those of *chosen* that fit, and why others do not. Raises ``PatchsetError`` if none does, or, *strict*, not all."""
    intent = intend(checkout, chosen, known, with_tests=with_tests)
    unfit = [standing for standing in intent.standings if not standing.fits]
    if unfit and (strict or len(unfit) == len(intent.standings)):
        if any(standing.rivals for standing in unfit):
            raise PatchsetError("\n".join(standing.refusal for standing in unfit if standing.rivals))
        raise AnchorError(
            ", ".join(standing.series.name for standing in unfit),
            [failure for standing in unfit for failure in standing.failures],
            leave_out=len(unfit) < len(intent.standings),
        )
    return intent, [line for standing in unfit for line in _left_out(standing)]


def _left_out(standing: Standing) -> list[str]:
    if standing.rivals:
        return [f"{standing.series.name}: left out; {standing.refusal}"]
    return [
        f"{standing.series.name}: left out, since it does not fit ComfyUI as it is there:",
        *(f"  {failure}" for failure in standing.failures),
    ]


def apply(
    checkout: Checkout,
    chosen: Sequence[Series],
    branch: str | None = None,
    commit: bool = False,
    strict: bool = False,
    known: Known = SERIES,
) -> list[str]:
    """Write every series that fits (*strict*: all or none); with *commit*, one commit each (on a new *branch* if named).

    What an interrupted call left behind is put back first.
    """
    with journal.alone(checkout):
        return [*journal.heal(checkout), *_apply(checkout, chosen, branch, commit or branch is not None, strict, known)]


def _apply(checkout: Checkout, chosen: Sequence[Series], branch: str | None, commit: bool, strict: bool, known: Known) -> list[str]:
    if checkout.is_git and not checkout.git("rev-parse", "-q", "--verify", "HEAD", check=False):
        raise PatchsetError(f"{checkout.root} is a git repository without a commit; commit its files first, or clone ComfyUI with git")
    intent, told = fitting(checkout, chosen, known, strict)
    there = [f"{standing.series.name}: already applied" for standing in intent.standings if standing.summary == "already applied"]
    if not intent.new and not intent.changes:
        record.save(checkout, intent.layers)
        return [*told, *there, "nothing to do"]
    require_clean(checkout, intent, commit)
    if branch is not None and checkout.git("branch", "--list", branch):
        raise PatchsetError(f"a branch named {branch} exists already; name another, or delete it")
    before = checkout.git("symbolic-ref", "--short", "HEAD", check=False) if checkout.is_git else ""
    start = checkout.git("rev-parse", "HEAD") if checkout.is_git else ""
    steps = [*intent.removed, *(change for layer in intent.layers for change in layer.changes)] if commit else intent.changes
    subjects = tuple(known[layer.series].subject for layer in intent.layers)
    names = tuple(layer.series for layer in intent.layers)
    done: list[str] = []
    with journal.whole_or_not(checkout, Journal("apply", names, subjects, tuple(steps), start, branch, before or None)):
        if branch is not None:
            checkout.git("switch", "-q", "-c", branch)
            checkout.git("config", f"branch.{branch}.{reverting.BEFORE}", before or start)
        if not commit:
            write_all(checkout.root, steps)
            record.save(checkout, intent.layers)
            done = [f"{layer.series}: applied to {len(layer.changes)} files" for layer in intent.new]
        else:
            write_all(checkout.root, intent.removed)
            record.save(checkout, [])
            done = [_commit(checkout, layer, known[layer.series]) for layer in intent.layers]
    return [*told, *there, *done]


def _commit(checkout: Checkout, layer: Layer, series: Series) -> str:
    write_all(checkout.root, layer.changes)
    made = reverting.commit(checkout, layer.changes, series.subject, series.message.strip())
    return f"{layer.series}: applied to {len(layer.changes)} files, commit {made[:12]}"


def diff(checkout: Checkout, chosen: Sequence[Series], strict: bool, known: Known = SERIES) -> tuple[str, list[str]]:
    """What ``apply`` would change, as a unified diff, and which series it would leave out."""
    journal.require_none(checkout)
    intent, told = fitting(checkout, chosen, known, strict)
    return "".join(change.diff() for change in intent.changes), told


def in_memory(checkout: Checkout, chosen: Sequence[Series], known: Known = SERIES) -> tuple[tuple[FileChange, ...], list[str]]:
    """The files as they would be with *chosen* applied, their tests left out, and which series are left out."""
    journal.require_none(checkout)
    intent, told = fitting(checkout, chosen, known, strict=False, with_tests=False)
    return intent.changes, told


def revert(checkout: Checkout, chosen: Sequence[Series], known: Known = SERIES) -> list[str]:
    """Undo what ``apply`` did: the files become what they were, with what others changed since. What was committed is undone by commits,
    or by going back to the branch before; what lies above it without a commit is taken off for that, and put on again. What an
    interrupted call left behind is put back first.
    """
    with journal.alone(checkout):
        told = journal.heal(checkout)
        committed, loose = reverting.applied(checkout, known)
        names = {series.name for series in chosen}
        above = [known[name] for name in loose if name in known and name not in names] if names & set(committed) else []
        if not above:
            return [*told, *reverting.revert(checkout, chosen, known)]
        reverting.revert(checkout, above, known)
        try:
            told += reverting.revert(checkout, chosen, known)
        finally:
            left_out = [line for line in _apply(checkout, above, None, False, False, known) if not line.endswith(" files")]
        return [*told, *left_out]


def update(checkout: Checkout, known: Known = SERIES) -> list[str]:
    """Undo what is applied, ``git pull``, and apply the same again, committed or not as it was."""
    if not checkout.is_git or not checkout.git("rev-parse", "--abbrev-ref", "@{upstream}", check=False):
        raise PatchsetError(f"{checkout.root} is no git branch that follows another; revert, update ComfyUI your way, then apply again")
    with journal.alone(checkout):
        told = journal.heal(checkout)
        committed, loose = reverting.applied(checkout, known)
        gone = [name for name in loose if name not in known]
        told += [f"{name}: applied by another version of Keepwarm, and not known to this one; it is not applied again" for name in gone]
        loose = [name for name in loose if name in known]
        require_no_rivals([known[name] for name in (*committed, *loose)])
        told += reverting.revert(checkout, list(known.values()), known, leave_branch=False)
        problem = ""
        try:
            if checkout.changed_files():
                raise PatchsetError("files have uncommitted changes. Commit or stash them first")
            old = checkout.version_text
            checkout.git("pull", "-q", "--no-rebase", "--no-edit")
            checkout = open_checkout(checkout.root)
            told.append(f"ComfyUI {old} became {checkout.version_text}")
        except PatchsetError as error:
            problem = str(error)
            checkout.git("merge", "--abort", check=False)
        for names, with_commits in ((committed, True), (loose, False)):
            if names:
                told += _apply(checkout, [known[name] for name in names], None, with_commits, False, known)
    if problem:
        raise PatchsetError(f"{problem}\nComfyUI was not updated; what was applied is applied again")
    return told
