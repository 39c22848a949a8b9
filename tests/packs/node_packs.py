"""Which node packs of a folder this server imports, unmodified, each in a server of its own; and the table of it in the documents.

    KEEPWARM_PACKS=FOLDER PYTHONPATH=LIBRARIES python tests/node_packs.py

writes the table of ``docs/reference/compatibility.md``. A file ``commits.txt`` in the folder may say which version each pack is, one
"name commit" per line. Libraries that packs ask for are up to the environment; a pack that fails for want of one is a row that says so.
"""

import os
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from live_server import ROOT, LiveServer

VARIABLE = "KEEPWARM_PACKS"
DOCUMENT = ROOT / "docs" / "reference" / "compatibility.md"
BEGIN, END = "<!-- packs: begin -->", "<!-- packs: end -->"
OWN = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "app", "nodes", "server", "execution", "folder_paths", "latent_preview")


@dataclass(frozen=True, slots=True)
class PackResult:
    """What one pack came to: its nodes in ``/object_info``, and why it did not load, or "" """

    name: str
    commit: str
    nodes: int
    failure: str = ""

    @property
    def wants_library(self) -> str:
        """The library that was not installed, if that is why it failed; else ""."""
        found = re.search(r"No module named '([\w.]+)'", self.failure)
        return found[1] if found and found[1].split(".")[0] not in OWN else ""

    def row(self) -> str:
        """Its line of the table."""
        if not self.failure:
            return f"| {self.name} | {self.commit} | yes | {self.nodes} | |"
        why = f"its own requirement `{self.wants_library}` was not installed" if self.wants_library else f"`{self.failure}`"
        return f"| {self.name} | {self.commit} | no | {self.nodes} | {why} |"


def packs_folder() -> pathlib.Path | None:
    """The folder that the environment names, or None."""
    named = os.environ.get(VARIABLE)
    return pathlib.Path(named) if named else None


def packs_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """The packs of *folder*, by name."""
    found = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(found, key=lambda path: path.name.lower())


def commits_of(folder: pathlib.Path) -> dict[str, str]:
    """{pack: commit} as far as *folder* says."""
    listed = folder / "commits.txt"
    return dict(line.split() for line in listed.read_text().splitlines()) if listed.is_file() else {}


def try_pack(pack: pathlib.Path, commit: str, base: pathlib.Path) -> PackResult:
    """Start a server in *base* with a copy of *pack* and ask it for its nodes."""
    shutil.copytree(pack, base / "custom_nodes" / pack.name)
    (base / "models" / "checkpoints").mkdir(parents=True)  # which every installation has
    server = LiveServer(base, "--disable-metadata")
    try:
        described = server.get("/object_info")
        failure = failure_in(server.log(), pack.name)
    finally:
        server.stop()
    nodes = sum(str(node.get("python_module", "")) == f"custom_nodes.{pack.name}" for node in described.values())
    return PackResult(pack.name, commit, nodes, failure)


def failure_in(log: str, name: str) -> str:
    """The reason that the server's table of import times gives for pack *name*, or ""."""
    found = re.search(rf"seconds \(IMPORT FAILED\): \S*/{re.escape(name)}: (.*)", log)
    if found is None:
        return ""
    shorter = re.sub(r"/\S*/custom_nodes/", "custom_nodes/", found[1])
    return re.sub(r"\s*\(/\S*/([^/ ]+)\)", r" (\1)", shorter).replace("|", "/").strip()


def results(folder: pathlib.Path) -> Iterator[PackResult]:
    """What each pack of *folder* comes to."""
    commits = commits_of(folder)
    for pack in packs_in(folder):
        base = pathlib.Path(tempfile.mkdtemp(prefix="keepwarm-pack-"))
        try:
            yield try_pack(pack, commits.get(pack.name, ""), base)
        finally:
            shutil.rmtree(base, ignore_errors=True)


def table(rows: list[PackResult]) -> str:
    """The part of the document between its marks."""
    loaded = sum(not row.failure for row in rows)
    lines = [f"{loaded} of {len(rows)} packs import, with {sum(row.nodes for row in rows)} nodes.", ""]
    lines += ["| Pack | Commit | Imports | Nodes | Why not |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*lines, *(row.row() for row in rows)]) + "\n"


def written_table(text: str) -> str:
    """What a document holds between the marks. Raises ``ValueError`` without them."""
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() + "\n"


def with_table(text: str, new: str) -> str:
    """The document with *new* between the marks. Raises ``ValueError`` without them."""
    return text[: text.index(BEGIN) + len(BEGIN)] + "\n\n" + new + "\n" + text[text.index(END) :]


def main() -> None:
    """Write the table."""
    folder = packs_folder()
    if folder is None:
        raise SystemExit(f"set {VARIABLE} to a folder of node packs")
    rows = []
    for result in results(folder):
        rows.append(result)
        print(result.row(), flush=True)
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8"), table(rows)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
