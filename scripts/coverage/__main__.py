"""Count what is covered and write docs/reference/coverage.md.

    python -m scripts.coverage [TEMPLATES] [--output FILE]

TEMPLATES is the folder of the templates' JSON files; without it the variable KEEPWARM_TEMPLATES or the installed package
comfyui-workflow-templates-json is used.
"""

import argparse
import logging
import pathlib
import sys
import tempfile

PROJECT = pathlib.Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs" / "reference" / "coverage.md"


def main(arguments: list[str] | None = None) -> int:
    """Write the page and print its counts; 1, with a message, where there are no templates."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.coverage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("templates", nargs="?", help="folder of the templates' JSON files")
    parser.add_argument("--output", type=pathlib.Path, default=PAGE, help="where the page is written")
    given = parser.parse_args(arguments)
    from scripts.coverage.templates import NoTemplatesError, find_folder, read_templates

    try:
        templates = read_templates(find_folder(given.templates))
    except NoTemplatesError as error:
        print(error, file=sys.stderr)
        return 1
    from scripts.coverage.offer import ask_server, comfyui_names, load_nodes  # late: with them comes the whole server
    from scripts.coverage.page import summary, write_page
    from scripts.coverage.trial import Trial
    from scripts.coverage.verdicts import judge

    load_nodes()
    with tempfile.TemporaryDirectory() as scratch:
        offer, trial = ask_server(), Trial(pathlib.Path(scratch).resolve())
        verdicts = [judge(template, offer, trial) for template in templates]
    names = comfyui_names()
    given.output.write_text(write_page(verdicts, names, offer), encoding="utf-8")
    print(f"{given.output}: {summary(verdicts, names, offer)}")
    return 0


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    raise SystemExit(main())
