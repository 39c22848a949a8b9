"""Sizes, docstrings and habits that keep the code readable."""

import ast

import pytest
from source_tree import Source, sources

MODULE_LINES, FUNCTION_LINES = 600, 60
ALL = list(sources())
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def each(name):
    return pytest.mark.parametrize(name, ALL, ids=lambda source: source.path)


@each("source")
def test_sizes(source: Source):
    long = [
        f"{node.name}: {size} lines"
        for node in ast.walk(source.tree)
        if isinstance(node, FUNCTIONS) and (size := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert source.lines <= MODULE_LINES, f"{source.path} has {source.lines} lines; split it"
    assert not long, f"{source.path}: functions over {FUNCTION_LINES} lines: {long}"


@each("source")
def test_no_global_statement_and_no_bare_except(source: Source):
    found = [
        f"line {node.lineno}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Global) or (isinstance(node, ast.ExceptHandler) and node.type is None)
    ]
    assert not found


@each("source")
def test_public_names_have_docstrings(source: Source):
    missing = [] if source.lines <= 2 or ast.get_docstring(source.tree) else ["the module"]
    for node in source.tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_") and not ast.get_docstring(node):
            missing.append(node.name)
    assert not missing, f"{source.path}: no docstring: {missing}"


@each("source")
def test_modules_only_define_when_imported(source: Source):
    """No loop, no ``with``, no call for its effect alone at module level (except under ``if __name__ == "__main__"``)."""
    allowed_effects = {"comfy.options.enable_args_parsing", "parse", "configure", "globals().update"}
    effects = []
    for node in source.tree.body:
        if isinstance(node, ast.While | ast.With):
            effects.append(f"line {node.lineno}")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) not in allowed_effects:
            effects.append(f"line {node.lineno}: {ast.unparse(node.value.func)}()")
    assert not effects, f"{source.path}: work at import: {effects}"
