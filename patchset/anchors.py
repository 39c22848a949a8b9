"""Finding places in a parsed file by name and by the shape of a statement, never by line number."""

import ast
import textwrap
from collections.abc import Callable, Iterator, Sequence

import libcst as cst
import libcst.matchers as m

Body = Sequence[cst.BaseStatement]
Definition = cst.FunctionDef | cst.ClassDef


def statements(module: cst.Module) -> Iterator[cst.BaseStatement]:
    """The top-level statements of a file."""
    yield from module.body


def definitions(body: Sequence[cst.CSTNode], name: str) -> list[Definition]:
    """The functions and classes called *name* that stand directly in *body*."""
    return [node for node in body if isinstance(node, cst.FunctionDef | cst.ClassDef) and node.name.value == name]


def find(module: cst.Module, qualified_name: str) -> list[Definition]:
    """Every definition at the dotted *qualified_name*, e.g. ``BasicCache.set_prompt``; more than one is an ambiguous anchor."""
    found: list[Definition] = []
    bodies: list[Sequence[cst.CSTNode]] = [module.body]
    for part in qualified_name.split("."):
        found = [definition for body in bodies for definition in definitions(body, part)]
        bodies = [definition.body.body for definition in found]
    return found


def simple(statement: cst.CSTNode) -> cst.BaseSmallStatement | None:
    """The only small statement on a line, e.g. an assignment; None for compound statements and ``a; b`` lines."""
    if isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1:
        return statement.body[0]
    return None


def source_of(node: cst.CSTNode) -> str:
    """The node as text, without the blank lines and comments around it."""
    return cst.Module(body=[]).code_for_node(node).strip()


def shape(text: str) -> Callable[[cst.CSTNode], bool]:
    """A test for a statement that reads like *text*, spaces and comments aside."""
    wanted = _normal(cst.parse_statement(text))

    def matches(node: cst.CSTNode) -> bool:
        return isinstance(node, cst.BaseStatement) and _normal(node) == wanted

    return matches


def _normal(statement: cst.CSTNode) -> str:
    return ast.dump(ast.parse(textwrap.dedent(source_of(statement))))


def calls(node: cst.CSTNode, name: str) -> bool:
    """Whether *node* contains a call of ``name(...)`` or ``anything.name(...)``."""
    named = m.Call(func=m.Name(name) | m.Attribute(attr=m.Name(name)))
    return bool(m.findall(node, named))


def is_import_of(statement: cst.CSTNode, module: str, name: str) -> bool:
    """Whether the line is ``from module import … name …``."""
    line = simple(statement)
    if not isinstance(line, cst.ImportFrom) or line.module is None or isinstance(line.names, cst.ImportStar):
        return False
    return source_of(line.module) == module and any(source_of(alias.name) == name for alias in line.names)
