"""Every module has tests: a file that imports it by name, or the one that ``TESTED_THROUGH`` names for it."""

import ast
import functools

from mirrors import TESTED_THROUGH
from source_tree import ROOT, files, sources

TEST_FOLDERS = ("tests-unit", "tests", "patchset/modules")


@functools.cache
def names_in_tests() -> dict[str, set[str]]:
    """By test file, what it imports and the texts in it (paths of modules started in other processes)."""
    found = {}
    for path, _ in files(TEST_FOLDERS):
        if not path.startswith("patchset/") or path.endswith("_test.py"):
            found[path] = names = set()
            for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules() -> list:
    """The modules that do something: no package's docstring alone, no one-liners, no tables of names (test_placeholders.py runs all)."""
    return [
        source for source in sources() if source.lines > 2 and not source.path.endswith("__init__.py") and not is_table_of_names(source)
    ]


def is_table_of_names(source) -> bool:
    """Whether a module has a docstring, one import and assignments, of which one calls ``placeholders``."""
    documentation, *rest = source.tree.body
    imports = [node for node in rest if isinstance(node, ast.ImportFrom | ast.Import)]
    assigned = [node for node in rest if isinstance(node, ast.Assign | ast.AnnAssign)]
    called = [node for node in assigned if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "placeholders"]
    return len(called) == 1 and len(imports) == 1 and len(imports) + len(assigned) == len(rest)


def test_every_module_has_a_test_file():
    imported = set().union(*names_in_tests().values())
    untested = [source.path for source in modules() if source.module not in imported and source.path not in TESTED_THROUGH]
    assert not untested, "name the test file in mirrors.py, or write one"


def test_the_list_holds_what_exists_and_needs_it():
    imported = set().union(*names_in_tests().values())
    known = {source.path: source.module for source in modules()}
    stale = [path for path in TESTED_THROUGH if known.get(path, "gone") == "gone" or known[path] in imported]
    missing = [test for test in TESTED_THROUGH.values() if not (ROOT / test).is_file()]
    assert (stale, missing) == ([], [])
