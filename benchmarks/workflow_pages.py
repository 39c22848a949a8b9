"""Hold the conversion of saved workflows against the official page, template by template.

    python benchmarks/workflow_pages.py TEMPLATES --url http://127.0.0.1:8188 [--answers FOLDER] [--report FILE]

TEMPLATES is the folder of *.json files of the package comfyui-workflow-templates-json. At --url a server with the official page and
as many of the templates' node classes as possible must be running, such as a plain ComfyUI; its models do not matter. What the page
says is kept in --answers and not asked again.

    python benchmarks/workflow_pages.py --samples FOLDER --url URL

writes what the page says into the samples of FOLDER (tests-unit/app_test/workflow_pages/samples); any server with the page will do.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import urllib.request
from typing import Any

PROJECT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks")]

from page_prompts import FIXED_TIME, differences, open_page, read_prompt, running_browser, saved_workflows  # noqa: E402

from app.workflow_pages.conversion import page_to_prompt  # noqa: E402
from app.workflow_pages.errors import WorkflowFormatError  # noqa: E402
from app.workflow_pages.node_building import VIRTUAL_CLASSES  # noqa: E402

WORKFLOWS_PER_TAB = 40


def ask_page(url: str, workflows: dict[str, Any], answers: pathlib.Path) -> None:
    """Write the page's prompt for each workflow that has none yet to *answers*."""
    waiting = {name: one for name, one in workflows.items() if not (answers / f"{name}.json").exists()}
    if not waiting:
        return
    with running_browser() as browser:
        tab = None
        for count, (name, workflow) in enumerate(waiting.items()):
            if tab is None or count % WORKFLOWS_PER_TAB == 0:
                if tab is not None:
                    tab.close()
                tab = open_page(browser, url)
            output, errors = read_prompt(tab, workflow)
            (answers / f"{name}.json").write_text(json.dumps({"output": output, "errors": errors}), encoding="utf-8")
            print(f"\r{count + 1}/{len(waiting)} {name:<60}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def object_info(url: str, answers: pathlib.Path) -> dict[str, Any]:
    """The server's node classes, kept beside the answers that depend on them."""
    kept = answers / "classes" / "object_info.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(f"{url}/object_info", timeout=120) as answer:
            kept.write_bytes(answer.read())
    read: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return read


def classes_of(workflow: dict[str, Any]) -> set[str]:
    """The node classes a workflow needs from the server."""
    subgraphs = (workflow.get("definitions") or {}).get("subgraphs") or []
    kinds = {node["type"] for graph in [workflow, *subgraphs] for node in graph["nodes"]}
    return kinds - {graph["id"] for graph in subgraphs} - VIRTUAL_CLASSES


def compare(workflows: dict[str, Any], answers: pathlib.Path, classes: dict[str, Any]) -> dict[str, Any]:
    """Convert every workflow and report those whose prompt is not the page's."""
    report: dict[str, Any] = {"equal": 0, "of": 0, "equal_with_unknown_classes": 0, "of_with_unknown_classes": 0, "differ": {}}
    for name, workflow in workflows.items():
        answer = json.loads((answers / f"{name}.json").read_text(encoding="utf-8"))
        suffix = "" if classes_of(workflow) <= classes.keys() else "_with_unknown_classes"
        try:
            ours = page_to_prompt(workflow, classes.get, choose=lambda options: options[0], now=lambda: FIXED_TIME)
            found = differences(answer["output"], ours) if answer["output"] is not None else ["the page made nothing of it"]
        except WorkflowFormatError as error:
            found = [f"refused: {error}"]
        report[f"of{suffix}"] += 1
        if found:
            report["differ"][name] = found
        else:
            report[f"equal{suffix}"] += 1
    return report


def write_samples(url: str, folder: pathlib.Path) -> None:
    """Ask the page anew for every sample, with the samples' own node classes."""
    classes = json.loads((folder / "object_info.json").read_text(encoding="utf-8"))
    with running_browser() as browser:
        tab = open_page(browser, url, classes)
        for path in sorted(folder.glob("[0-9]*.json")):
            sample = json.loads(path.read_text(encoding="utf-8"))
            sample["prompt"], errors = read_prompt(tab, sample["workflow"])
            path.write_text(json.dumps(sample, indent=1) + "\n", encoding="utf-8")
            print(path.name, sample["rule"], *errors)


def main() -> int:
    """Compare, or write the samples; ends with 1 when under 99 % are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("templates", type=pathlib.Path, nargs="?")
    parser.add_argument("--url", required=True)
    parser.add_argument("--answers", type=pathlib.Path)
    parser.add_argument("--report", type=pathlib.Path)
    parser.add_argument("--samples", type=pathlib.Path)
    given = parser.parse_args()
    if given.samples is not None:
        write_samples(given.url, given.samples)
        return 0
    if given.templates is None:
        parser.error("name the folder of templates, or --samples")
    workflows = saved_workflows(given.templates)
    with tempfile.TemporaryDirectory() as scratch:
        answers = given.answers or pathlib.Path(scratch)
        answers.mkdir(parents=True, exist_ok=True)
        classes = object_info(given.url, answers)
        ask_page(given.url, workflows, answers)
        report = compare(workflows, answers, classes)
    if given.report is not None:
        given.report.write_text(json.dumps(report, indent=1), encoding="utf-8")
    for name, found in report["differ"].items():
        print(name, *found[:5], sep="\n    ")
    print(
        f"{report['equal']} of {report['of']} templates equal the page's prompt; of those with classes the server does not have "
        f"{report['equal_with_unknown_classes']} of {report['of_with_unknown_classes']}"
    )
    return 0 if report["of"] and report["equal"] >= 0.99 * report["of"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
