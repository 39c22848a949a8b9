"""The functions that the drawn walks name exist, in the files that they name."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEP = re.compile(r"`([\w/]+\.py):([\w.]+)`")


def defined(tree: ast.AST, qualified_name: str) -> bool:
    """Whether the file has the function or class (or, at the top, a name that is assigned)."""
    first, _, rest = qualified_name.partition(".")
    for node in getattr(tree, "body", ()):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == first:
            return not rest or defined(node, rest)
        if isinstance(node, ast.Assign) and not rest and any(isinstance(one, ast.Name) and one.id == first for one in node.targets):
            return True
    return False


def test_every_step_names_a_function_that_exists():
    steps = [(page.name, *step) for page in sorted(ROOT.glob("docs/walks/*.md")) for step in STEP.findall(page.read_text(encoding="utf-8"))]
    assert len(steps) > 20
    wrong = [
        f"{page}: {path}:{name}"
        for page, path, name in steps
        if not (ROOT / path).is_file() or not defined(ast.parse((ROOT / path).read_text(encoding="utf-8")), name)
    ]
    assert not wrong
