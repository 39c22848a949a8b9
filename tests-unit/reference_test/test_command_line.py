"""docs/reference/command-line.md lists every flag as it is.

Write it anew with ``KEEPWARM_WRITE_DOCS=1 ./test.sh tests-unit/reference_test``.
"""

import os
import pathlib

from comfy.cli_flags import INERT_FLAGS, build_parser

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "reference" / "command-line.md"
HEAD = """# Command line

`./run.sh [flags]` or `python main.py [flags]`. Names and values are ComfyUI's.
This page is written from the parser, and a test keeps it so.
Flags marked *no effect* are accepted so that launchers keep working; the server names those it was given in one line at start.
"""


def page():
    lines = [HEAD]
    for group in build_parser()._action_groups:
        flags = [action for action in group._group_actions if action.option_strings and "--help" not in action.option_strings]
        if not flags:
            continue
        lines += [f"## {str(group.title).capitalize()}\n", "| flag | meaning |", "| --- | --- |"]
        for action in flags:
            name = action.option_strings[0]
            value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
            meaning = "*no effect*" if name in INERT_FLAGS else action.help or ""
            lines.append(f"| `{name}{value}` | {meaning.replace('|', chr(92) + '|')} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def test_every_flag_is_on_the_page_as_it_is():
    if os.environ.get("KEEPWARM_WRITE_DOCS"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()
