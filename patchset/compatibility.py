"""``python -m patchset.compatibility CHECKOUT…``: a Markdown table of which series fit which checkouts."""

import sys
from collections.abc import Sequence

from patchset.checkout import open_checkout
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


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 with the reason when a folder cannot be read."""
    try:
        print(table(sys.argv[1:] if argv is None else argv))
    except PatchsetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
