"""Who imports whom in the project, whichever way it is written: at the top, in a function, for annotations only, or by a name in a text."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from source_tree import Source, origin

BY_NAME = {"lazy_module", "import_module", "__import__", "find_spec"}


@dataclass(frozen=True, slots=True)
class Imported:
    """One import: the absolute dotted name (a module's, or that of something in it) and the line."""

    name: str
    line: int


def all_imports(source: Source) -> Iterator[Imported]:
    """Every import of *source*, also those inside functions and ``if TYPE_CHECKING``, and modules that a literal names.

    Counted as naming a module: ``lazy_module("x")``, ``importlib.import_module("x")``, ``find_spec("x")``, ``sys.modules["x"]`` and
    ``sys.modules.get("x")``.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (Imported(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Imported(f"{origin(source, node)}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call | ast.Subscript) and (name := _named_by_text(node)) is not None:
            yield Imported(name, node.lineno)


def _named_by_text(node: ast.Call | ast.Subscript) -> str | None:
    if isinstance(node, ast.Subscript):
        names_one, argument = ast.unparse(node.value) == "sys.modules", node.slice
    elif node.args:
        called = ast.unparse(node.func)
        names_one, argument = called.rpartition(".")[2] in BY_NAME or called == "sys.modules.get", node.args[0]
    else:
        return None
    return argument.value if names_one and isinstance(argument, ast.Constant) and isinstance(argument.value, str) else None


def module_of(name: str, modules: Mapping[str, Source]) -> str | None:
    """The module of the project that an imported *name* is, or is in; None for other people's."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def import_graph(sources: Iterable[Source]) -> dict[str, set[str]]:
    """For each module of the project those that it imports, itself left out. Packages are not counted with their submodules."""
    modules = {source.module: source for source in sources}
    return {
        name: {target for one in all_imports(source) if (target := module_of(one.name, modules)) not in (None, name)}
        for name, source in modules.items()
    }


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, sorted: what Kosaraju's two walks find with more than one member."""
    order: list[str] = []
    seen: set[str] = set()
    for name in graph:
        order += _finished_after(name, graph, seen)
    behind: dict[str, set[str]] = {name: set() for name in graph}
    for name, targets in graph.items():
        for target in targets:
            behind[target].add(name)
    seen.clear()
    groups = [sorted(_finished_after(name, behind, seen)) for name in reversed(order)]
    return sorted(group for group in groups if len(group) > 1)


def _finished_after(start: str, graph: Mapping[str, set[str]], seen: set[str]) -> list[str]:
    """What a depth-first walk from *start* reaches that is not *seen* yet, each name after all that it leads to."""
    finished: list[str] = []
    waiting = [(start, False)]
    while waiting:
        name, is_left = waiting.pop()
        if is_left:
            finished.append(name)
        elif name not in seen:
            seen.add(name)
            waiting.append((name, True))
            waiting.extend((target, False) for target in graph[name])
    return finished
