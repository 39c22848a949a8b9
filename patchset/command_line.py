"""The command line of the tool."""

import argparse
import sys
from collections.abc import Sequence

from patchset import commands, live
from patchset.checkout import Checkout, open_checkout
from patchset.outcomes import PatchsetError
from patchset.requests import REQUESTS
from patchset.reverting import NOT_APPLIED
from patchset.series import SERIES
from patchset.series.definition import Series

COMMANDS = {
    "check": "say which series fit; change nothing",
    "apply": "change the checkout: every series that fits",
    "revert": "undo what apply did",
    "update": "revert, git pull, apply again",
    "run": "start the untouched checkout with the changes in memory",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser, with a subparser per command."""
    parser = argparse.ArgumentParser(prog="python -m patchset", description="Apply Keepwarm's core changes to a ComfyUI checkout.")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, meaning in COMMANDS.items():
        command = subparsers.add_parser(name, help=meaning)
        command.add_argument("checkout", help="the folder of ComfyUI")
        if name != "update":
            command.add_argument("--series", action="append", choices=sorted(SERIES), help="only this series (repeatable; default: all)")
            command.add_argument(
                "--request", action="append", choices=sorted(REQUESTS), help="what is meant for ComfyUI itself (repeatable)"
            )
        if name == "check":
            command.add_argument("--verbose", action="store_true", help="name every place, also those that are found")
        if name == "apply":
            command.add_argument("--strict", action="store_true", help="change nothing unless every series fits")
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
    try:
        checkout = open_checkout(given.checkout)
        known = {**SERIES, **REQUESTS}
        if given.command == "update":
            print("\n".join(commands.update(checkout, known)))
            return 0
        named = [*(given.series or ()), *(given.request or ())]
        return _run(checkout, given, [known[name] for name in named] or list(SERIES.values()), known, flags)
    except PatchsetError as error:
        print(error, file=sys.stderr)
        return 1


def _run(checkout: Checkout, given: argparse.Namespace, chosen: list[Series], known: commands.Known, flags: list[str]) -> int:
    if given.command == "check":
        lines, sound = commands.check(checkout, chosen, known, given.verbose)
        print("\n".join(lines))
        return 0 if sound else 1
    if given.command == "revert":
        everything = given.series is None and given.request is None
        lines = commands.revert(checkout, list(known.values()) if everything else chosen, known)
        print("\n".join(line for line in lines if not (everything and _is_of_no_interest(line))))
        return 0
    if given.command == "run":
        changes, told = commands.in_memory(checkout, chosen, known)
        print(*told, sep="\n", end="\n" * bool(told), file=sys.stderr)
        return live.run(checkout, changes, flags, given.python)
    if given.dry_run:
        text, told = commands.diff(checkout, chosen, given.strict, known)
        print(*told, sep="\n", end="\n" * bool(told), file=sys.stderr)
        print(text, end="")
        return 0
    print("\n".join(commands.apply(checkout, chosen, given.branch, given.commit, given.strict, known)))
    return 0


def _is_of_no_interest(line: str) -> bool:
    """Whether *line* says of a request, which few apply, that it is not applied."""
    name, _, told = line.partition(": ")
    return name in REQUESTS and told == NOT_APPLIED
