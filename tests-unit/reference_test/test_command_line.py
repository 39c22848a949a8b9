"""docs/reference/command-line.md lists every flag as it is.

Write it again with ``KEEPWARM_WRITE_DOCS=1 ./test.sh tests-unit/reference_test``.
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

TAIL = """
## The file of `--extra-model-paths-config`

The file is YAML in UTF-8. It maps section names to `base_path`, `is_default` (true or false) and folder keys such as `checkpoints`,
each with a path or lines of paths. Paths are taken as written, so a folder `0123` needs no quotes. A file that cannot be read, a section
or key that is there twice, and a value that is not a path end the start with a message that names the file and the entry. The same holds
for `extra_model_paths.yaml` beside `main.py`, which is read without a flag.
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
    return "\n".join(lines).rstrip() + "\n" + TAIL


def test_every_flag_is_on_the_page_as_it_is():
    if os.environ.get("KEEPWARM_WRITE_DOCS"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()
