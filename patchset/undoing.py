"""Takes layers off files in memory: exactly where the bytes are known, else by a merge that keeps what others changed since.

A file that does not have a layer (``git checkout`` took it away, say) is left as it is.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import libcst as cst

from patchset.checkout import Checkout, Version
from patchset.merging import merged
from patchset.outcomes import PatchsetError, Verdict
from patchset.plan import transformed
from patchset.record import Layer
from patchset.series.definition import Series
from patchset.trees import CommitTree, FileChange, Overlay

VERSIONS_LOOKED_AT = 20


class CannotUndo(PatchsetError):
    """Files were changed where a layer changed them. *paths* names them."""

    def __init__(self, layer: Layer, paths: Sequence[str], advice: str) -> None:
        self.paths = paths
        super().__init__(f"{layer.series}: changed since it was applied: {', '.join(paths)}. {advice}")


def take_off(overlay: Overlay, layers: Sequence[Layer], checkout: Checkout, known: Mapping[str, Series]) -> None:
    """Take *layers* (newest last, as they lie on each other) off the files of *overlay*. Raises ``CannotUndo``."""
    for index in reversed(range(len(layers))):
        series = known.get(layers[index].series)
        stuck = [change.path for change in layers[index].changes if not _is_free(overlay, layers[: index + 1], change, checkout, series)]
        if stuck:
            raise CannotUndo(layers[index], stuck, _advice(checkout, layers[index], stuck))


def _is_free(overlay: Overlay, layers: Sequence[Layer], change: FileChange, checkout: Checkout, series: Series | None) -> bool:
    """Take *change* of the last of *layers* off its file; whether the file is free of it now."""
    path, content = change.path, overlay.read(change.path)
    if content == change.after:
        overlay.put(path, change.before)
        return True
    earlier = [below.before for layer in layers if (below := layer.change_of(path)) is not None]
    if content in earlier:
        return True
    if content is None or change.before is None or change.after is None:  # whose file it is cannot be told from parts of it
        return content is None
    is_clean = checkout.is_git and checkout.read_committed("HEAD", path) == content
    if is_clean and series is not None and is_untouched(series, overlay.version, path, content):
        return True
    without = _exactly_without(series, overlay, path, content, [*earlier, *versions(checkout, path)]) if series is not None else None
    if without is None:
        without = merged(change.after, content, change.before)
    if without is not None:
        overlay.put(path, without)
    return without is not None


def is_in(layer: Layer, overlay: Overlay, series: Series | None, apart_from: Collection[str] = ()) -> bool:
    """Whether any file, *apart_from* some, has the bytes that *layer* left, or what its *series* makes there."""
    for change in layer.changes:
        if change.path in apart_from:
            continue
        content = overlay.read(change.path)
        if content == change.after:
            return True
        if content is None or content == change.before or change.before is None:
            continue
        if series is None or not is_untouched(series, overlay.version, change.path, content):
            return True
    return False


def is_untouched(series: Series, version: Version, path: str, content: bytes) -> bool:
    """Whether the file has nothing of what *series* makes there."""
    try:
        _, outcomes = transformed(series, version, path, content)
    except cst.ParserSyntaxError:  # a merge by hand that is not done yet
        return False
    return bool(outcomes) and not any(outcome.verdict is Verdict.ALREADY_THERE for outcome in outcomes)


def _exactly_without(series: Series, overlay: Overlay, path: str, content: bytes, candidates: Iterable[bytes | None]) -> bytes | None:
    """The first of *candidates* that *series* turns into *content*."""
    for candidate in dict.fromkeys(candidates):
        if candidate is None or candidate == content:
            continue
        try:
            after, outcomes = transformed(series, overlay.version, path, candidate)
        except cst.ParserSyntaxError:
            continue
        if outcomes and after == content:
            return candidate
    return None


def versions(checkout: Checkout, path: str) -> Iterator[bytes | None]:
    """The file as it was committed, newest first."""
    if checkout.is_git:
        for commit in checkout.git("log", f"-{VERSIONS_LOOKED_AT}", "--format=%H", "HEAD", "--", path, check=False).split():
            yield CommitTree(checkout, commit).read(path)


def _advice(checkout: Checkout, layer: Layer, paths: Sequence[str]) -> str:
    names = " ".join(paths)
    if not checkout.is_git:
        return "Undo those changes first, so that nothing of yours is lost."
    if layer.commit is not None:
        return f"Do `git revert {layer.commit[:12]}` and settle the conflict there."
    if all(checkout.read_committed("HEAD", path) == checkout.read(path) for path in paths):
        return f"Your commits have it so: set the lines that the series changed to what they were (`git log -p -- {names}` shows them)."
    return f"Undo those changes first, so that nothing of yours is lost; `git checkout -- {names}` gives up every change of theirs."
