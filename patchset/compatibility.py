"""``python -m patchset.compatibility CHECKOUT…``: a Markdown table of which series fit which checkouts, for docs/howto.

Below it stands a digest of all edits, by which a test notices that the table was made before an edit changed.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Iterator, Sequence

from patchset.checkout import NEWEST_TESTED, OLDEST, open_checkout
from patchset.intent import intend
from patchset.outcomes import PatchsetError
from patchset.series import SERIES


def table(folders: Sequence[str]) -> str:
    """One row per checkout, newest first, one column per series. Raises ``PatchsetError`` for a folder that holds no ComfyUI."""
    checkouts = sorted((open_checkout(folder) for folder in folders), key=lambda checkout: checkout.version, reverse=True)
    rows = [["ComfyUI", *SERIES], ["---"] * (len(SERIES) + 1)]
    for checkout in checkouts:
        standings = intend(checkout, list(SERIES.values()), SERIES).standings
        rows.append([checkout.version_text, *(standing.summary for standing in standings)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def digest() -> str:
    """Of what the series look for and put in its place, in the oldest and the newest version: 12 hexadecimal digits."""
    found = hashlib.sha256()
    for version in ((*OLDEST, 0), (*NEWEST_TESTED, 0)):
        for series in SERIES.values():
            for edit in series.edits(version):
                found.update("\0".join([series.name, type(edit).__name__, *_texts(edit)]).encode())
    return found.hexdigest()[:12]


def _texts(edit: object) -> Iterator[str]:
    """The fields of an edit that are text."""
    if dataclasses.is_dataclass(edit):
        for field in dataclasses.fields(edit):
            value = getattr(edit, field.name)
            if isinstance(value, str):
                yield value


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and the digest; 1 with the reason when a folder cannot be read."""
    try:
        print(table(sys.argv[1:] if argv is None else argv), f"Edits: {digest()}", sep="\n\n")
    except PatchsetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
