"""Finding places in a parsed file by name and by the shape of a statement, never by line number."""

import ast
import functools
import textwrap
from collections.abc import Callable, Iterator, Sequence

import libcst as cst
import libcst.matchers as m

Body = Sequence[cst.BaseStatement]
Block = cst.Module | cst.IndentedBlock
# The fields of statements that hold statements, or blocks of them.
NESTING = ("body", "handlers", "orelse", "finalbody")
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


@functools.lru_cache(maxsize=512)
def shape(text: str) -> Callable[[cst.CSTNode], bool]:
    """A test for a statement that reads like *text*, spaces and comments aside."""
    statement = cst.parse_statement(text)
    wanted, kind = _normal(statement), _kind(statement)

    def matches(node: cst.CSTNode) -> bool:
        return isinstance(node, cst.BaseStatement) and _kind(node) == kind and _normal(node) == wanted

    return matches


def _kind(statement: cst.BaseStatement) -> tuple[type[cst.CSTNode], ...]:
    """What can be told apart without writing the statement out."""
    body = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
    return (type(statement), *map(type, body))


@functools.lru_cache(maxsize=8192)  # every edit of a file looks at the same nodes
def _normal(statement: cst.CSTNode) -> str:
    return ast.dump(ast.parse(textwrap.dedent(source_of(statement))))


def blocks(node: cst.CSTNode) -> Iterator[Block]:
    """Every block of statements in *node*: the file itself, and what is indented at any depth."""
    if isinstance(node, cst.Module | cst.IndentedBlock):
        yield node
    for below in _below(node):
        yield from blocks(below)


def replaced(module: cst.Module, old: cst.CSTNode, new: cst.CSTNode | None) -> cst.Module:
    """*module* with the statement or block *old* replaced; None takes a statement away."""
    found = _replaced(module, old, new)
    return found if isinstance(found, cst.Module) else module


def _replaced(node: cst.CSTNode, old: cst.CSTNode, new: cst.CSTNode | None) -> cst.CSTNode | None:
    if node is old:
        return new
    for field in NESTING:
        value = getattr(node, field, None)
        if isinstance(value, cst.CSTNode):
            after = _replaced(value, old, new)
            if after is not value:
                return node.with_changes(**{field: after})
        elif value and not isinstance(node, cst.SimpleStatementLine):
            rows = [_replaced(each, old, new) for each in value]
            if any(after is not before for after, before in zip(rows, value)):
                return node.with_changes(**{field: [row for row in rows if row is not None]})
    return node


def _below(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    for field in NESTING:
        value = getattr(node, field, None)
        if isinstance(value, cst.CSTNode):
            yield value
        elif value and not isinstance(node, cst.SimpleStatementLine):
            yield from value


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
