"""``run``: start an untouched checkout with a series applied in memory, by an import hook in the started process.

The transformed sources are worked out here and handed over in a temporary folder, so the checkout's own Python needs nothing installed.
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from types import FrameType

from patchset.checkout import Checkout
from patchset.trees import FileChange

HOOK = pathlib.Path(__file__).with_name("import_hook.py")


def run(checkout: Checkout, changes: Iterable[FileChange], flags: list[str], python: str | None = None) -> int:
    """Start ``main.py`` of *checkout* under *python* with *changes* in effect; returns its exit status. Writes nothing to the checkout."""
    with tempfile.TemporaryDirectory(prefix="keepwarm-patchset-") as folder:
        write_overlay(checkout, changes, pathlib.Path(folder))
        return _run_to_its_end([python or sys.executable, str(HOOK), folder, *flags], checkout.root)


def write_overlay(checkout: Checkout, changes: Iterable[FileChange], overlay: pathlib.Path) -> None:
    """Fill the folder *overlay* with what the hook reads: the changed Python files, and which modules of *checkout* they are."""
    modules: dict[str, str] = {}
    for change in changes:
        if change.path.endswith(".py") and change.after is not None:
            copy = overlay / change.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(change.after)
            modules[change.path[:-3].replace("/", ".").removesuffix(".__init__")] = change.path
    (overlay / "overlay.json").write_text(json.dumps({"root": str(checkout.root), "modules": modules}), encoding="utf-8")


def _run_to_its_end(command: list[str], folder: pathlib.Path) -> int:
    """Run *command*, hand a request to end on to it, and wait for it; its exit status."""
    process = subprocess.Popen(command, cwd=folder)

    def end(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
