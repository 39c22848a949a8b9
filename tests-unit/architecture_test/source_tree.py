"""The project's Python sources as syntax trees, for the rules in this folder."""

import ast
import functools
import pathlib
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOP_LEVEL = (
    "main.py",
    "server.py",
    "nodes.py",
    "execution.py",
    "folder_paths.py",
    "node_helpers.py",
    "latent_preview.py",
    "protocol.py",
    "comfyui_version.py",
    "cuda_malloc.py",
    "hook_breaker_ac10a0.py",
)
PACKAGES = (
    "comfy",
    "comfy_execution",
    "comfy_api",
    "comfy_extras",
    "app",
    "api_server",
    "middleware",
    "utils",
    "patchset",
    "serverless",
    "fleet",
    "custom_nodes/keepwarm",
    "starter",
    "scripts",
)


CHECKED_FOLDERS = (*PACKAGES, "benchmarks", "examples", "tests", "tests-unit")


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its path below the project, dotted module name and syntax tree."""

    path: str
    module: str
    tree: ast.Module
    lines: int


def files(folders: Iterable[str]) -> Iterator[tuple[str, int]]:
    """(path, lines) of each Python file below *folders* ("" for those at the top) that git tracks or would track."""
    for name in _listed():
        if any(name.startswith(f"{folder}/") if folder else "/" not in name for folder in folders):
            yield name, (ROOT / name).read_text(encoding="utf-8").count("\n")


def sources() -> Iterator[Source]:
    """Every Python file of the product: no tests, benchmarks or examples."""
    for name in _listed():
        if (name in TOP_LEVEL or name.startswith(tuple(package + "/" for package in PACKAGES))) and not name.endswith("_test.py"):
            yield _parsed(name)


@functools.cache
def _listed() -> tuple[str, ...]:
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.py"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return tuple(name for name in sorted(set(listed)) if (ROOT / name).is_file())


@functools.cache
def _parsed(name: str) -> Source:
    text = (ROOT / name).read_text(encoding="utf-8")
    return Source(name, name[:-3].replace("/", ".").removesuffix(".__init__"), ast.parse(text, name), text.count("\n") + 1)


def imports_at_module_level(source: Source) -> Iterator[tuple[str, int]]:
    """(absolute dotted name, line) of each import outside functions; ``if TYPE_CHECKING`` blocks do not count."""
    waiting: list[ast.stmt] = list(source.tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{origin(source, node)}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting.extend(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            waiting.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))
            waiting.extend(statement for handler in getattr(node, "handlers", ()) for statement in handler.body)
        elif isinstance(node, ast.ClassDef):
            waiting.extend(node.body)


def origin(source: Source, node: ast.ImportFrom) -> str:
    """The absolute name of the module that a ``from … import`` reads from."""
    if not node.level:
        return node.module or ""
    package = source.module.split(".") if source.path.endswith("__init__.py") else source.module.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])
