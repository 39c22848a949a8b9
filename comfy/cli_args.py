"""The server's settings: one parser, and one namespace ``args`` that every module and node pack reads.

Importing this module fills ``args`` with defaults. Only a program that called ``comfy.options.enable_args_parsing()`` before has
its command line read here; ``parse`` fills the same object in place at any time.
"""

import argparse
import sys
from collections.abc import Sequence

from comfy import cli_flags, options
from comfy.cli_flags import INERT_FEATURES, INERT_FLAGS, LatentPreviewMethod, PerformanceFeature

__all__ = ["LatentPreviewMethod", "PerformanceFeature", "args", "inert_flags_given", "parse", "parser"]

parser: argparse.ArgumentParser = cli_flags.build_parser()
args: argparse.Namespace = parser.parse_args([])


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read *argv* (default: the process's own) into the shared ``args`` and return it.

    A usage error prints what is wrong and raises ``SystemExit(2)``, as argparse does.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    parsed = parser.parse_args(given)
    cli_flags.settle(parsed, parser)
    vars(args).clear()
    vars(args).update(vars(parsed))
    return args


def inert_flags_given(argv: Sequence[str]) -> list[str]:
    """The flags in *argv* that are accepted for compatibility and have no effect in this server; of ``--fast`` the features."""
    names = {word.split("=", 1)[0] for word in argv if word.startswith("--")}
    return [*sorted(names & INERT_FLAGS), *_inert_features(argv)]


def _inert_features(argv: Sequence[str]) -> list[str]:
    known, inside, found = {feature.value for feature in INERT_FEATURES}, False, set()
    for word in argv:
        flag, _, value = word.partition("=")
        inside = flag == "--fast" if word.startswith("-") else inside
        if inside and (value or word) in known:
            found.add(f"--fast {value or word}")
    return sorted(found)


if options.args_parsing_enabled():
    parse()
