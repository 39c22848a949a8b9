"""Evaluates arithmetic written by the user by walking its syntax tree; only the listed operations are possible."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

LARGEST_EXPONENT = 4000
LARGEST_BITS = 2**17
LONGEST_EXPRESSION = 10_000
DEEPEST_NESTING = 200


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > LARGEST_EXPONENT or (isinstance(base, int) and base.bit_length() * abs(exponent) > LARGEST_BITS):
        raise ValueError(f"{_short(base)} to the power of {_short(exponent)} is too large; the exponent may be {LARGEST_EXPONENT} at most")
    return base**exponent


def _multiply(first: Any, second: Any) -> Any:
    if not all(isinstance(value, int | float) for value in (first, second)):
        raise ValueError("only numbers can be multiplied")
    if isinstance(first, int) and isinstance(second, int) and first.bit_length() + second.bit_length() > LARGEST_BITS:
        raise ValueError("the product is too large")
    return first * second


def _shift_left(value: Any, places: Any) -> Any:
    if value.bit_length() + places > LARGEST_BITS:
        raise ValueError(f"a shift by {_short(places)} places is too large")
    return value << places


def _short(value: Any) -> str:
    bits = value.bit_length() if isinstance(value, int) else 0
    return f"a number of {bits} bits" if bits > 128 else str(value)


def _sum(*values: Any) -> Any:
    return sum(values[0]) if len(values) == 1 and isinstance(values[0], list | tuple) else sum(values)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "cos": math.cos,
    "float": float,
    "floor": math.floor,
    "int": int,
    "log": math.log,
    "log10": math.log10,
    "log2": math.log2,
    "max": max,
    "min": min,
    "pow": _power,
    "round": round,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "sum": _sum,
    "tan": math.tan,
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _multiply,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: _shift_left,
    ast.RShift: operator.rshift,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}


def evaluate(expression: str, names: Mapping[str, Any]) -> Any:
    """The value of *expression*, in which *names* (numbers and lists of numbers) and ``FUNCTIONS`` may be used.

    An expression consists of numbers, ``+ - * / // % ** & | ^ << >>``, comparisons, ``and or not``, ``x if y else z``, lists and
    ``values[0]``. Raises ``ValueError`` for anything else, for values that are too large, too deep nesting, and undefined results.
    """
    if len(expression) > LONGEST_EXPRESSION:
        raise ValueError(f"the expression is longer than {LONGEST_EXPRESSION} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return _value(tree.body, names, 0)
    except SyntaxError as error:
        raise ValueError(f"{expression!r} is not a valid expression: {error.msg}") from None
    except (ArithmeticError, TypeError, IndexError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression!r} cannot be computed: {error or type(error).__name__}") from error


def _value(node: ast.expr, names: Mapping[str, Any], depth: int) -> Any:
    if depth > DEEPEST_NESTING:
        raise ValueError(f"the expression is nested deeper than {DEEPEST_NESTING} levels")

    def value_of(part: ast.expr) -> Any:
        return _value(part, names, depth + 1)

    match node:
        case ast.Constant(value=bool() | int() | float() as constant):
            return constant
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Name(id=name):
            raise ValueError(f"there is no value named {name!r}; known are {', '.join(names)}")
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _BINARY:
            return _BINARY[type(kind)](value_of(left), value_of(right))
        case ast.UnaryOp(op=kind, operand=operand):
            return _UNARY[type(kind)](value_of(operand))
        case ast.BoolOp():
            return _truth(node, value_of)
        case ast.Compare():
            return _compare(node, value_of)
        case ast.IfExp(test=test, body=body, orelse=otherwise):
            return value_of(body) if value_of(test) else value_of(otherwise)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*map(value_of, arguments))
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [value_of(item) for item in items]
        case ast.Subscript(value=collection, slice=index):
            return value_of(collection)[value_of(index)]
    raise ValueError(f"{ast.unparse(node)[:80]!r} is not allowed here; use numbers, operators and {', '.join(FUNCTIONS)}")


def _truth(node: ast.BoolOp, value_of: Callable[[ast.expr], Any]) -> Any:
    stops_at = isinstance(node.op, ast.Or)
    result: Any = None
    for part in node.values:
        result = value_of(part)
        if bool(result) is stops_at:
            break
    return result


def _compare(node: ast.Compare, value_of: Callable[[ast.expr], Any]) -> bool:
    left = value_of(node.left)
    for kind, part in zip(node.ops, node.comparators):
        if type(kind) not in _COMPARISONS:
            raise ValueError("'is' is not allowed; compare with ==")
        right = value_of(part)
        if not _COMPARISONS[type(kind)](left, right):
            return False
        left = right
    return True
