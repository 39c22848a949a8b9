"""Send a workflow to a worker and save what comes back: ``python serverless/send_request.py WORKFLOW --url URL``.

With ``--repeat N`` it sends the workflow N times with new seeds and prints which runs were warm. Standard library only.
"""

import argparse
import json
import os
import pathlib
import random
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

if __package__ in (None, ""):
    # Run as a file: its folder is on the path, the project is not.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from serverless.client_endpoints import Answer, Endpoint, Request, SendError, endpoint_for, fetch
from serverless.client_workflow import BadWorkflow, ObjectInfo, load_workflow, with_new_seeds, with_values
from serverless.workflow_normalization import normalize_workflow_for_caching

BAR_CELLS = 30


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of ``--repeat``."""

    seconds: float
    report: dict[str, Any] | None

    def cells(self, number: int) -> list[str]:
        """The row as text; ``-`` for what is not known."""
        report = self.report or {}
        models = report.get("models") or {}
        read_bytes, hits, saved_s = models.get("read_bytes"), models.get("hits"), models.get("saved_s")
        worker_s = (report.get("seconds") or {}).get("worker_s")
        ran = f"{report['nodes'] - report['cached']} of {report['nodes']}" if "nodes" in report else "-"
        return [
            str(number),
            f"{self.seconds:.2f}",
            str(report.get("temperature", "unknown")),
            "-" if read_bytes is None else f"{read_bytes / 1e6:.1f}",
            "-" if hits is None else str(hits),
            "-" if saved_s is None else f"{saved_s:.2f}",
            ran,
            "-" if worker_s is None else f"{worker_s * 1000:.0f}",
        ]


def table(rows: Sequence[RunRow]) -> str:
    """The runs, and how much faster warm ones were."""
    head = ["run", "seconds", "models", "MB from disk", "hits", "saved s", "nodes run", "worker ms"]
    lines = [head, *(row.cells(number) for number, row in enumerate(rows, 1))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines)
    warm = sorted(row.seconds for row in rows if (row.report or {}).get("temperature") == "warm")
    cold = sorted(row.seconds for row in rows if (row.report or {}).get("temperature") == "cold")
    if warm and cold:
        text += f"\ncold {cold[len(cold) // 2]:.2f} s, warm {warm[len(warm) // 2]:.2f} s (medians of {len(cold)} and {len(warm)})"
    return text


class ProgressBar:
    """A line that is redrawn on a terminal; nothing elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()

    def show(self, progress: dict[str, Any]) -> None:
        """Draw a report of the worker."""
        percent = progress.get("percent")
        if self._is_terminal and isinstance(percent, int | float):
            full = round(BAR_CELLS * min(max(percent, 0), 100) / 100)
            self._stream.write(f"\r[{'#' * full}{'.' * (BAR_CELLS - full)}] {percent:5.1f} %  node {progress.get('node')}\033[K")
            self._stream.flush()

    def clear(self) -> None:
        """Empty the line."""
        if self._is_terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="send_request.py", description="Send a workflow to a worker and save what comes back.")
    parser.add_argument("workflow", type=pathlib.Path, help="the workflow's file, in API format or as the page saves it")
    parser.add_argument(
        "--url",
        default="http://127.0.0.1:8000",
        help="the worker (default: %(default)s); https://api.runpod.ai/v2/ENDPOINT for RunPod, …/api/v2 for Comfy API v2",
    )
    parser.add_argument("--kind", choices=("auto", "local", "runpod", "v2"), default="auto", help="what listens there (default: find out)")
    parser.add_argument("--api-key", default=os.environ.get("RUNPOD_API_KEY"), help="default: RUNPOD_API_KEY from the environment")
    parser.add_argument("--image", action="append", default=[], metavar="[NAME=]FILE", help="an input file of the workflow; repeatable")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="change an input; NODE is an id or a class")
    parser.add_argument("--object-info", metavar="FILE|URL", help="/object_info of a server with the workflow's nodes, or its address")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results"), help="where files go (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="send it N times and print which runs were warm")
    parser.add_argument("--same-seeds", action="store_true", help="do not give repeated runs new seeds")
    parser.add_argument("--no-normalize", action="store_true", help="send the node ids of the file")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for one run (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None, out: TextIO = sys.stdout, clock: Callable[[], float] = time.monotonic) -> int:
    """Send the workflow, save its files, print the outcome; returns the exit status."""
    given = make_parser().parse_args(arguments)
    try:
        workflow = with_values(load_workflow(given.workflow, _object_info(given.object_info)), given.set)
        images = _images(given.image)
        endpoint = endpoint_for(given.url, given.api_key, given.kind)
        rows = [_run_once(given, endpoint, workflow, images, number, out, clock) for number in range(max(given.repeat, 1))]
    except (BadWorkflow, SendError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if given.repeat > 1:
        print(table(rows), file=out)
    return 0


def _run_once(
    given: argparse.Namespace,
    endpoint: Endpoint,
    workflow: dict[str, Any],
    images: dict[str, bytes],
    number: int,
    out: TextIO,
    clock: Callable[[], float],
) -> RunRow:
    if number and not given.same_seeds:
        workflow = with_new_seeds(workflow, random.Random())
    names = None if given.no_normalize else normalize_workflow_for_caching(workflow)
    bar = ProgressBar(sys.stderr)
    original = (lambda node: node) if names is None else names.original_id
    began_s = clock()
    try:
        answer = endpoint.run(
            Request(workflow if names is None else names.workflow, images),
            given.timeout,
            lambda progress: bar.show({**progress, "node": original(str(progress.get("node")))}),
        )
    except SendError as error:
        raise SendError(str(error) if names is None else names.original_text(str(error))) from None
    finally:
        bar.clear()
    seconds = clock() - began_s
    for line in _saved(answer, given.output):
        print(line, file=out)
    return RunRow(seconds, answer.report)


def _saved(answer: Answer, folder: pathlib.Path) -> list[str]:
    """Write the files, never over an existing one; returns the lines to print."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for file in answer.files:
        path = _free_path(folder, pathlib.PurePosixPath(file.name).name or "result")
        path.write_bytes(file.read())
        lines.append(str(path))
    return lines + list(answer.texts) + [f"error: {error}" for error in answer.errors]


def _free_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{pathlib.PurePath(name).stem}-{number}{pathlib.PurePath(name).suffix}"
    return path


def _images(arguments: Sequence[str]) -> dict[str, bytes]:
    images = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        path = pathlib.Path(file if equals else argument)
        try:
            images[name if equals else path.name] = path.read_bytes()
        except OSError as error:
            raise BadWorkflow(f"--image {argument}: {error}") from None
    return images


def _object_info(place: str | None) -> ObjectInfo | None:
    if place is None:
        return None
    if "://" not in place:
        return lambda: dict(json.loads(pathlib.Path(place).read_text(encoding="utf-8")))
    url = place if place.rstrip("/").endswith("/object_info") else f"{place.rstrip('/')}/object_info"
    return lambda: dict(json.loads(fetch(urllib.request.Request(url))))


if __name__ == "__main__":
    sys.exit(main())
