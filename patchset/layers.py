"""What is applied to a checkout: commits of this tool in its history, what the record says, and what its files show.

Git is asked first: a commit is known by its title, and gone when it is not in the checked-out history. The record has only what was not
committed. Changes that neither knows, such as those that ``git stash pop`` brought back, are told by what the last commit lacks.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from patchset import record
from patchset.checkout import Checkout
from patchset.plan import transformed
from patchset.record import Layer
from patchset.series.definition import PROJECT, Series
from patchset.trees import CommitTree, FileChange, Overlay
from patchset.undoing import is_in, is_untouched, versions


def committed(checkout: Checkout, known: Mapping[str, Series]) -> list[Layer]:
    """The series that commits in the checked-out history brought and that are still there, oldest first."""
    if not checkout.is_git:
        return []
    by_title = {series.subject: series for series in known.values()}
    undone = {undo_title(series): series for series in by_title.values()}
    found: list[Layer] = []
    decided: set[str] = set()
    for commit, title in checkout.commits_titled(by_title):
        series = by_title.get(title) or undone.get(title)
        if series is not None and series.name not in decided:
            decided.add(series.name)
            if title in by_title:
                found.append(Layer(series.name, _changes_of(checkout, commit, series, by_title), commit))
    return _still_in(found[::-1], checkout, known, [])


def uncommitted(checkout: Checkout, known: Mapping[str, Series], below: Collection[Layer]) -> list[Layer]:
    """What was applied and not committed, oldest first. *below* are the committed layers."""
    committed_names = {layer.series for layer in below}
    layers = [layer for layer in record.load(checkout) if layer.series not in committed_names]
    layers = _still_in(layers, checkout, known, below)
    names = committed_names | {layer.series for layer in layers}
    bringers = Counter(there for series in known.values() for _, there in series.copied(with_tests=True))
    shared = {path for path, number in bringers.items() if number > 1}
    return [*layers, *_shown(checkout, [series for series in known.values() if series.name not in names], [*below, *layers], shared)]


def undo_title(series: Series) -> str:
    """The title of a commit that undoes the commit of *series*."""
    return f'Revert "{series.subject}"'


def _still_in(layers: Sequence[Layer], checkout: Checkout, known: Mapping[str, Series], below: Collection[Layer]) -> list[Layer]:
    """Those of *layers* that the files have. A file that several bring says of none that it is there while another's own files do."""
    disk, everyone = Overlay(checkout), [*below, *layers]
    shared = {
        change.path for layer in everyone for change in layer.changes if change.before is None and _bringers(change.path, everyone) > 1
    }
    found = [layer for layer in layers if is_in(layer, disk, known.get(layer.series), apart_from=shared)]
    for layer in layers:
        held = {change.path for other in (*below, *found) for change in other.changes}
        if layer not in found and is_in(layer, disk, known.get(layer.series), apart_from=shared & held):
            found.append(layer)
    return [layer for layer in layers if layer in found]


def _bringers(path: str, layers: Collection[Layer]) -> int:
    return sum(layer.change_of(path) is not None for layer in layers)


def _changes_of(checkout: Checkout, commit: str, series: Series, titles: Collection[str]) -> tuple[FileChange, ...]:
    """What *commit* did to the files of *series*."""
    paths = _paths(series, checkout)
    touched = checkout.git("diff-tree", "--no-commit-id", "--name-only", "--no-renames", "-r", "-z", commit, check=False).split("\0")
    before, after = CommitTree(checkout, f"{commit}^"), CommitTree(checkout, commit)
    brought = [there for _, there in series.copied(with_tests=True) if there not in touched and after.read(there) is not None]
    shared = [FileChange(path, None, after.read(path)) for path in brought if _was_brought(checkout, commit, path, titles)]
    edited = dict.fromkeys(edit.path for edit in series.edits(checkout.version) if edit.path not in touched)
    # What the user had committed before that.
    shared += [change for path in edited if (change := _edit(checkout, series, path)) is not None]
    return (*(FileChange(path, before.read(path), after.read(path)) for path in touched if path in paths), *shared)


def _was_brought(checkout: Checkout, commit: str, path: str, titles: Collection[str]) -> bool:
    """Whether a commit with one of *titles* added the file: a series that brings it as well."""
    return checkout.git("log", "-1", "--diff-filter=A", "--format=%s", commit, "--", path, check=False) in titles


def _shown(checkout: Checkout, candidates: list[Series], found: list[Layer], shared: Collection[str]) -> list[Layer]:
    """The *candidates* that the files have, at least in part, though nothing says who put them there: ``git stash pop`` did, or the user
    committed them. What was before is what the newest commit without them has. *found* are the layers known so far; the files *shared* by
    several series are a sign of none.
    """
    if not checkout.is_git:
        return []
    known_files = {change.path for layer in found for change in layer.changes}
    layers = []
    for series in candidates:
        copied = [(here, there) for here, there in series.copied(with_tests=True) if there not in known_files]
        brought = [FileChange(there, None, (PROJECT / here).read_bytes()) for here, there in copied]
        there = [change for change in brought if checkout.read(change.path) == change.after]
        own = [change for change in there if change.path not in shared]
        if series.copied(with_tests=True) and not own and not _is_partly_committed(checkout, series):
            continue
        edited = [_edit(checkout, series, path) for path in dict.fromkeys(edit.path for edit in series.edits(checkout.version))]
        changes = [change for change in edited if change is not None]
        if changes or own:
            layers.append(Layer(series.name, (*changes, *there)))
    return layers


def _is_partly_committed(checkout: Checkout, series: Series) -> bool:
    """Whether edits could be there without any of the files that go with them: something of the checkout is not as it came."""
    paths = {edit.path for edit in series.edits(checkout.version)}
    return bool(paths & set(checkout.changed_files())) or bool(
        checkout.git("log", "-1", "--format=%h", "HEAD", "--", *(there for _, there in series.copied(with_tests=False)), check=False)
    )


def _edit(checkout: Checkout, series: Series, path: str) -> FileChange | None:
    """What *series* changed in the file, if it has its edits, by the newest version that has none of them."""
    content = checkout.read(path)
    if content is None or is_untouched(series, checkout.version, path, content):
        return None
    for version in versions(checkout, path):
        if version is not None and version != content and is_untouched(series, checkout.version, path, version):
            after, outcomes = transformed(series, checkout.version, path, version)
            if not any(outcome.verdict.is_failure for outcome in outcomes):
                return FileChange(path, version, after)
    return None


def _paths(series: Series, checkout: Checkout) -> set[str]:
    return {*(edit.path for edit in series.edits(checkout.version)), *(there for _, there in series.copied(with_tests=True))}
