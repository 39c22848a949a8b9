"""``python -m patchset``: check, apply, revert or run a series on a ComfyUI checkout."""

import argparse
import sys
from collections.abc import Sequence

from patchset import commands, journal, live
from patchset.checkout import open_checkout
from patchset.outcomes import PatchsetError
from patchset.series import SERIES
from patchset.series.definition import Series


def build_parser() -> argparse.ArgumentParser:
    """The command line of the tool."""
    parser = argparse.ArgumentParser(prog="python -m patchset", description="Apply Keepwarm's core changes to a ComfyUI checkout.")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, meaning in (
        ("check", "say which anchors are found; change nothing"),
        ("apply", "change the checkout"),
        ("revert", "undo what apply did"),
        ("run", "start the untouched checkout with the changes in memory"),
    ):
        command = subparsers.add_parser(name, help=meaning)
        command.add_argument("checkout", help="the folder of ComfyUI")
        command.add_argument("--series", action="append", choices=sorted(SERIES), help="only this series (repeatable; default: all)")
        if name == "apply":
            command.add_argument("--dry-run", action="store_true", help="print the diff and change nothing")
            command.add_argument("--branch", metavar="NAME", help="make this branch first; implies --commit")
            command.add_argument("--commit", action="store_true", help="one commit per series, by your git identity")
        if name == "run":
            command.add_argument("--python", help="the Python that runs ComfyUI (default: this one)")
            command.usage = "%(prog)s [-h] [--series NAME] [--python PYTHON] CHECKOUT [-- FLAGS OF COMFYUI ...]"
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked, 1 when it refused, with the reason on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    given, flags = build_parser().parse_args(words[:end]), words[end + 1 :]
    chosen: list[Series] = [SERIES[name] for name in given.series or SERIES]
    try:
        checkout = open_checkout(given.checkout)
        if given.command == "check":
            lines, sound = commands.check(checkout, chosen)
            print("\n".join(lines))
            return 0 if sound else 1
        if given.command == "revert":
            print("\n".join(commands.revert(checkout, chosen)))
            return 0
        if given.command == "run" or given.dry_run:
            journal.require_none(checkout)
        if given.command == "run":
            return live.run(checkout, commands.plans_in_order(checkout, chosen, with_tests=False), flags, given.python)
        if given.dry_run:
            for plan in commands.plans_in_order(checkout, chosen):
                print("".join(change.diff() for change in plan.changes), end="")
            return 0
        print("\n".join(commands.apply(checkout, chosen, given.branch, given.commit or given.branch is not None)))
        return 0
    except PatchsetError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
