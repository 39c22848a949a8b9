"""Undoes series: those without a commit by writing what lies below them, committed ones by a commit or by leaving their branch."""

import re
from collections.abc import Mapping, Sequence

from patchset import journal, layers, record
from patchset.checkout import Checkout
from patchset.intent import intend
from patchset.journal import Journal
from patchset.outcomes import PatchsetError
from patchset.plan import make_plan, write_all
from patchset.record import Layer
from patchset.series.definition import Series
from patchset.trees import FileChange, Overlay
from patchset.undoing import take_off

# Git's own note on a branch made by ``apply --branch``: what was checked out before. It goes with the branch.
BEFORE = "keepwarmBefore"
NOT_APPLIED = "not applied; nothing to undo"
Known = Mapping[str, Series]


def applied(checkout: Checkout, known: Known) -> tuple[list[str], list[str]]:
    """The names of the series that commits brought, and of those applied without one."""
    below = layers.committed(checkout, known)
    return [layer.series for layer in below], [layer.series for layer in layers.uncommitted(checkout, known, below)]


def revert(checkout: Checkout, chosen: Sequence[Series], known: Known, leave_branch: bool = True) -> list[str]:
    """Undo *chosen*, and if those are all, also what another version of this tool applied. Raises ``PatchsetError``."""
    names = {series.name for series in chosen}
    committed, loose = applied(checkout, known)
    if names >= known.keys():
        names |= set(loose)
    lines = _revert_loose(checkout, names & set(loose), known) if names & set(loose) else []
    record.save(checkout, [layer for layer in record.load(checkout) if layer.series in loose and layer.series not in names])
    while waiting := [layer for layer in layers.committed(checkout, known) if layer.series in names]:
        _require_committed(checkout, waiting, undone=lines)
        lines += (leave_branch and _leave_branch(checkout, waiting)) or [_revert_commit(checkout, waiting[-1], known)]
    lines += [_not_found(checkout, series) for series in chosen if series.name not in {*committed, *loose}]
    return lines


def commit(checkout: Checkout, changes: Sequence[FileChange], title: str, message: str = "") -> str:
    """Commit the files of *changes*, nothing else; the commit's name. Files that are gone and that git never had are left out."""
    names = [change.path for change in changes]
    tracked = set(checkout.git("ls-files", "-z", "--", *names).split("\0"))
    paths = [name for name in names if name in tracked or checkout.read(name) is not None]
    if paths:
        checkout.git("add", "-A", "--", *paths)
        checkout.git("commit", "-q", "-m", title, *(["-m", message] if message else []), "--", *paths)
    return checkout.git("rev-parse", "HEAD")


def _revert_loose(checkout: Checkout, names: set[str], known: Known) -> list[str]:
    wanted = intend(checkout, [], known, without=frozenset(names))
    head = checkout.git("rev-parse", "HEAD") if checkout.is_git else ""
    with journal.whole_or_not(checkout, Journal("revert", tuple(sorted(names)), (), wanted.changes, head)):
        write_all(checkout.root, wanted.changes)
        record.save(checkout, wanted.layers)
    return [f"{', '.join(sorted(names))}: undone in {len(wanted.changes)} files"]


def _leave_branch(checkout: Checkout, waiting: Sequence[Layer]) -> list[str]:
    """Go back to where ``apply --branch`` started from, if the branch has nothing but what is to be undone."""
    branch = checkout.git("symbolic-ref", "--short", "HEAD", check=False)
    before = checkout.git("config", "--get", f"branch.{branch}.{BEFORE}", check=False) if branch else ""
    is_branch = before in checkout.git("branch", "--format=%(refname:short)").split()
    if not is_branch and not re.fullmatch("[0-9a-f]{40,64}", before):
        return []
    made = set(checkout.git("rev-list", f"{before}..HEAD", "--", check=False).split())
    if not made or not made <= {layer.commit for layer in waiting}:
        return []
    checkout.git("switch", "-q", *([before] if is_branch else ["--detach", before]))
    names = ", ".join(layer.series for layer in waiting if layer.commit in made)
    return [f"{names}: back on {before if is_branch else before[:12]}; the branch {branch} is kept"]


def _require_committed(checkout: Checkout, waiting: Sequence[Layer], undone: list[str]) -> None:
    touched = {change.path for layer in waiting for change in layer.changes} & set(checkout.changed_files())
    if touched and undone:  # what was applied without a commit was committed by the user since, and is undone in the files now
        raise PatchsetError(f"{'; '.join(undone)}. Your commits have it still: commit what was undone, then repeat this for the rest.")
    if touched:
        raise PatchsetError(
            f"these files have uncommitted changes: {', '.join(sorted(touched))}. Commit or stash them first "
            "(what was applied without a commit: revert it as well)."
        )


def _revert_commit(checkout: Checkout, layer: Layer, known: Known) -> str:
    """One commit that takes *layer* out from under those above it."""
    stack = layers.committed(checkout, known)
    index = [each.series for each in stack].index(layer.series)
    overlay = Overlay(checkout)
    take_off(overlay, stack[index:], checkout, known)
    for other in stack:
        if other.series != layer.series:
            plan = make_plan(known[other.series], overlay)
            if plan.failures:
                raise PatchsetError(f"{other.series} does not fit without {layer.series}; revert both")
            for change in plan.changes:
                overlay.put(change.path, change.after)
    changes, series = overlay.changes(), known[layer.series]
    if not changes:
        raise PatchsetError(f"{layer.series}: cannot be told from what was changed since; do `git revert {str(layer.commit)[:12]}`")
    title, head = layers.undo_title(series), checkout.git("rev-parse", "HEAD")
    with journal.whole_or_not(checkout, Journal("revert", (series.name,), (title,), changes, head)):
        write_all(checkout.root, changes)
        commit(checkout, changes, title)
    return f"{series.name}: undone in {len(changes)} files"


def _not_found(checkout: Checkout, series: Series) -> str:
    """Why nothing is undone: it is not there, or it was there before anything that git remembers."""
    brought = [there for _, there in series.copied(with_tests=False) if checkout.read(there) is not None]
    plan = make_plan(series, checkout) if brought else None
    if plan is not None and plan.is_noop and not plan.failures:
        return f"{series.name}: part of ComfyUI as it was cloned or copied; nothing to undo"
    return f"{series.name}: {NOT_APPLIED}"
