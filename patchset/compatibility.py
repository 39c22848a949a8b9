"""``python -m patchset.compatibility CHECKOUT…``: a Markdown table of which series fit which checkouts, for docs/howto.

With ``--try`` series and requests are really applied, to copies: each alone and all together, once and again, and undone; the table of that
is for docs/reference. Below either stands a digest of all edits, by which a test notices that the table was made before an edit changed.
"""

import argparse
import dataclasses
import hashlib
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence

from patchset import commands
from patchset.checkout import NEWEST_TESTED, OLDEST, Checkout, Version, open_checkout
from patchset.intent import intend
from patchset.outcomes import PatchsetError
from patchset.plan import make_plan, transformed
from patchset.requests import REQUESTS
from patchset.series import SERIES
from patchset.series.definition import Series

KNOWN = {**SERIES, **REQUESTS}
WENT_WELL = "yes"
TRIED = ["ComfyUI", "series alone", "all series", "requests alone", "all requests"]
# Without hooks and signing of the user's own.
GIT = ("git", "-c", "user.name=Trial", "-c", "user.email=trial@localhost", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null")


def table(folders: Sequence[str]) -> str:
    """One row per checkout, newest first, one column per series. Raises ``PatchsetError`` for a folder that holds no ComfyUI."""
    rows = [["ComfyUI", *SERIES], ["---"] * (len(SERIES) + 1)]
    for checkout in _newest_first(folders):
        standings = intend(checkout, list(SERIES.values()), SERIES).standings
        rows.append([checkout.version_text, *(standing.summary for standing in standings)])
    return _markdown(rows)


def tried_table(folders: Sequence[str]) -> str:
    """One row per checkout, newest first: how many can be applied, applied again and undone; below it what went wrong. Checkouts that do
    not differ in what series and requests read are tried once. Raises ``PatchsetError`` for a folder that holds no ComfyUI.
    """
    rows, problems = [TRIED, ["---"] * len(TRIED)], []
    known_results: dict[str, dict[str, str]] = {}
    for checkout in _newest_first(folders):
        key = _what_is_read(checkout)
        if key not in known_results:
            transformed.cache_clear()
            known_results[key] = {name: try_out(checkout, chosen) for name, chosen in cases().items()}
        results = known_results[key]
        print(checkout.version_text, results, file=sys.stderr, flush=True)
        alone = [_how_many(results, names) for names in (SERIES, REQUESTS)]
        rows.append([checkout.version_text, alone[0], results[TRIED[2]], alone[1], results[TRIED[4]]])
        problems += [f"{checkout.version_text}, {name}: {told}" for name, told in results.items() if told != WENT_WELL]
    return "\n\n".join([_markdown(rows), *problems])


def cases() -> dict[str, list[Series]]:
    """What is tried: every series and request by its name (on what it builds on), all series, and all requests with the series that are
    requests themselves.
    """
    alone = {name: [*(KNOWN[below] for below in series.builds_on), series] for name, series in KNOWN.items()}
    as_they_are = [series for series in SERIES.values() if not any(series.is_rival_of(request) for request in REQUESTS.values())]
    return alone | {TRIED[2]: list(SERIES.values()), TRIED[4]: [*as_they_are, *REQUESTS.values()]}


def try_out(checkout: Checkout, chosen: Sequence[Series]) -> str:
    """Apply *chosen* to a copy, again, and undo it: ``WENT_WELL``, or what went wrong. The checkout itself is not changed.

    The copy has the files that *chosen* touch, and the version; where several are chosen it is a git repository.
    """
    known = {series.name: series for series in chosen}
    with tempfile.TemporaryDirectory(prefix="keepwarm-trial-") as folder:
        copy = _copy(checkout, pathlib.Path(folder) / "ComfyUI", known)
        before = _contents(copy.root)
        try:
            commands.apply(copy, chosen, strict=True, known=known)
            once = _contents(copy.root)
            if not _knows_its_result(chosen[-1], copy):
                return f"not known by what it made: {chosen[-1].name}"
            told = commands.apply(copy, chosen, strict=True, known=known)
            if once == before or told[-1] != "nothing to do" or _contents(copy.root) != once:
                return "applying it again changes something"
            commands.revert(copy, chosen, known)
        except PatchsetError as error:
            return str(error).replace("\n", "; ")
        if _contents(copy.root) != before or copy.state_folder.exists() or (copy.is_git and copy.git("status", "--porcelain", "--ignored")):
            return "not all of it is undone"
    return WENT_WELL


def _copy(checkout: Checkout, root: pathlib.Path, known: Mapping[str, Series]) -> Checkout:
    root.mkdir()
    for path in {*_touched(checkout, known), "comfyui_version.py", "execution.py"}:
        content = checkout.read(path)
        if content is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
    for arguments in () if len(known) == 1 else (["init", "-q"], ["add", "-A", "-f"], ["commit", "-q", "-m", "as it is"]):
        subprocess.run([*GIT, "-C", str(root), *arguments], check=True)
    return open_checkout(root)


def _touched(checkout: Checkout, known: Mapping[str, Series]) -> set[str]:
    """The files that *known* edit or bring."""
    edited = {edit.path for series in known.values() for edit in series.edits(checkout.version)}
    return edited | {there for series in known.values() for _, there in series.copied(with_tests=True)}


def _knows_its_result(series: Series, checkout: Checkout) -> bool:
    plan = make_plan(series, checkout)
    return plan.is_noop and not plan.failures


def digest(known: Mapping[str, Series] = SERIES) -> str:
    """Of what the series look for and put in its place, in the oldest and the newest version: 12 hexadecimal digits."""
    versions = ((*OLDEST, 0), (*NEWEST_TESTED, 0))
    return hashlib.sha256(b"".join(_edits(known, version) for version in versions)).hexdigest()[:12]


def _edits(known: Mapping[str, Series], version: Version) -> bytes:
    rows = (["\0".join([series.name, type(edit).__name__, *_texts(edit)]) for edit in series.edits(version)] for series in known.values())
    return "".join(text for row in rows for text in row).encode()


def _texts(edit: object) -> Iterator[str]:
    """The fields of an edit that are text."""
    if dataclasses.is_dataclass(edit):
        for field in dataclasses.fields(edit):
            value = getattr(edit, field.name)
            if isinstance(value, str):
                yield value


def _what_is_read(checkout: Checkout) -> str:
    """A digest of the edits for the checkout's version and of every file that they, or the files that are brought, touch."""
    found = hashlib.sha256(_edits(KNOWN, checkout.version))
    for path in sorted(_touched(checkout, KNOWN)):
        content = checkout.read(path)
        found.update(f"\0{path}\0{'none' if content is None else hashlib.sha256(content).hexdigest()}".encode())
    return found.hexdigest()


def _contents(root: pathlib.Path) -> dict[str, bytes]:
    """Every file and folder but git's own; a folder counts as empty bytes."""
    paths = (path for path in root.rglob("*") if ".git" not in path.relative_to(root).parts)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"" for path in paths}


def _newest_first(folders: Sequence[str]) -> list[Checkout]:
    return sorted((open_checkout(folder) for folder in folders), key=lambda checkout: checkout.version, reverse=True)


def _how_many(results: Mapping[str, str], names: Iterable[str]) -> str:
    told = [results[name] for name in names]
    return f"{told.count(WENT_WELL)} of {len(told)}"


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and the digest; 1 with the reason when a folder cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m patchset.compatibility", description="Which series fit which checkouts of ComfyUI.")
    parser.add_argument("folders", nargs="*", metavar="CHECKOUT")
    parser.add_argument("--try", dest="really", action="store_true", help="apply, apply again and undo series and requests in copies")
    given = parser.parse_args(argv)
    try:
        print((tried_table if given.really else table)(given.folders), f"Edits: {digest(KNOWN if given.really else SERIES)}", sep="\n\n")
    except PatchsetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
