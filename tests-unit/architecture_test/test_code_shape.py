"""Sizes, docstrings and habits that keep the code readable. Each rule is one test that lists its offenders."""

import ast
import collections
import pathlib

from source_tree import CHECKED_FOLDERS, ROOT, Source, files, sources

MODULE_LINES, FUNCTION_LINES, FOLDER_MODULES = 400, 60, 30
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# A module's own, the root, and that of a program that has a log of its own.
LOGGERS = (["__name__"], [], ["'serverless'"])
EFFECTS_AT_IMPORT = {"comfy.options.enable_args_parsing", "parse", "configure", "globals().update"}
# Folders whose modules ComfyUI names: their number is not ours to choose.
NAMED_BY_COMFYUI = {"comfy", "comfy/text_encoders", "comfy_extras"}


def offenders(rule) -> list[str]:
    """``path: what`` for everything that *rule*, called with each source, complains of."""
    return [f"{source.path}: {complaint}" for source in sources() for complaint in rule(source)]


def test_files_are_short():
    long = [f"{path}: {lines} lines" for path, lines in files(("", *CHECKED_FOLDERS)) if lines > MODULE_LINES]
    assert not long, f"over {MODULE_LINES} lines; split them"


def test_functions_are_short():
    def rule(source: Source):
        for node in ast.walk(source.tree):
            if isinstance(node, FUNCTIONS) and (size := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES:
                yield f"{node.name} has {size} lines"

    assert not offenders(rule), f"over {FUNCTION_LINES} lines"


def test_folders_hold_few_modules():
    count = collections.Counter(str(pathlib.PurePosixPath(path).parent) for path, _ in files(CHECKED_FOLDERS))
    for folder in NAMED_BY_COMFYUI:
        del count[folder]
    assert not {folder: number for folder, number in count.items() if number > FOLDER_MODULES + 1}, "an __init__.py is not counted"


def test_no_global_statement_and_no_bare_except():
    def rule(source: Source):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Global) or (isinstance(node, ast.ExceptHandler) and node.type is None):
                yield f"line {node.lineno}"

    assert not offenders(rule)


def test_public_names_have_docstrings():
    def rule(source: Source):
        if source.lines > 2 and not ast.get_docstring(source.tree):
            yield "the module"
        for node in source.tree.body:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_") and not ast.get_docstring(node):
                yield node.name

    assert not offenders(rule)


def test_no_docstring_only_refers_to_another():
    """An override needs no docstring; any other says what the function does."""

    def rule(source: Source):
        for node in ast.walk(source.tree):
            text = ast.get_docstring(node) if isinstance(node, (*FUNCTIONS, ast.ClassDef)) else None
            if text and text.startswith(("See ", "As :")) and "\n" not in text:
                yield f"line {node.body[0].lineno}: {text}"

    assert not offenders(rule)


def test_modules_only_define_when_imported():
    """No loop, no ``with``, no call for its effect alone at module level (except under ``if __name__ == "__main__"``)."""

    def rule(source: Source):
        for node in source.tree.body:
            if isinstance(node, ast.While | ast.With):
                yield f"line {node.lineno}"
            called = ast.unparse(node.value.func) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
            if called is not None and called not in EFFECTS_AT_IMPORT:
                yield f"line {node.lineno}: {called}()"

    assert not offenders(rule)


def test_loggers_are_made_in_one_way():
    """``log = logging.getLogger(__name__)``; messages go through it, not through the root logger."""

    def rule(source: Source):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "logging":
                if node.func.attr in ("debug", "info", "warning", "error", "exception", "critical", "log"):
                    yield f"line {node.lineno}: logging.{node.func.attr}"
                elif node.func.attr == "getLogger" and [ast.unparse(argument) for argument in node.args] not in LOGGERS:
                    yield f"line {node.lineno}: {ast.unparse(node)}"

    assert not offenders(rule)


def test_the_negation_is_spelled_in_one_way():
    spelled_apart = "can" + " not"
    found = [path for path, _ in files(("", *CHECKED_FOLDERS)) if spelled_apart in (ROOT / path).read_text(encoding="utf-8")]
    assert not found


def test_no_test_imports_a_conftest():
    """There are several of that name, and which one an import finds depends on the folders that a run collects."""
    imports = ("from " + "conftest import", "import " + "conftest")
    assert not [path for path, _ in files(CHECKED_FOLDERS) if any(text in (ROOT / path).read_text(encoding="utf-8") for text in imports)]


def test_modules_of_tests_have_names_of_their_own():
    """pytest imports them by their file's name alone, so two of one name cannot be collected in one run."""
    names = [path.rpartition("/")[2] for path, _ in files(("tests", "tests-unit"))]
    repeated = {name for name, count in collections.Counter(names).items() if count > 1}
    assert not repeated - {"conftest.py", "__init__.py"}
