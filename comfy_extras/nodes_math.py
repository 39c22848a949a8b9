"""The node that computes an expression over numbers."""

from __future__ import annotations

import math
import string
from typing import Any

from comfy_api.latest import io
from comfy_extras.expression import FUNCTIONS, LARGEST_EXPONENT, evaluate

MAX_EXPONENT = LARGEST_EXPONENT
MATH_FUNCTIONS = FUNCTIONS


def as_number(expression: str, result: Any) -> tuple[float, int, bool]:
    """*result* as a float, an integer (truncated) and a truth value. Raises ``ValueError`` if it is not a finite number."""
    if not isinstance(result, int | float):
        raise ValueError(f"{expression!r} gives a {type(result).__name__} and not a number")
    try:
        number = float(result)
    except OverflowError:
        raise ValueError(f"the result of {expression!r} is too large for a FLOAT") from None
    if not math.isfinite(number):
        raise ValueError(f"the result of {expression!r} is {number}, which no node can use")
    return number, int(result), bool(result)


class MathExpressionNode(io.ComfyNode):
    """Computes an expression over the inputs a, b, c …, which it can also reach as the list ``values``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        numbers = io.Autogrow.TemplateNames(
            io.MultiType.Input("value", [io.Float, io.Int, io.Boolean]), names=list(string.ascii_lowercase), min=1
        )
        return io.Schema(
            node_id="ComfyMathExpression",
            display_name="Math Expression",
            category="utilities",
            search_aliases=["expression", "formula", "calculate", "calculator", "eval", "math"],
            inputs=[io.String.Input("expression", default="a + b", multiline=True), io.Autogrow.Input("values", template=numbers)],
            outputs=[io.Float.Output(display_name="FLOAT"), io.Int.Output(display_name="INT"), io.Boolean.Output(display_name="BOOL")],
        )

    @classmethod
    def execute(cls, expression: str, values: Any) -> io.NodeOutput:
        """The result as FLOAT, INT and BOOLEAN. Raises ``ValueError`` for an invalid expression or a result that is not a finite number."""
        if not expression.strip():
            raise ValueError("the expression is empty; write one such as a + b")
        result = evaluate(expression, {**values, "values": list(values.values())})
        return io.NodeOutput(*as_number(expression, result))


NODE_CLASS_MAPPINGS = {"ComfyMathExpression": MathExpressionNode}

NODE_DISPLAY_NAME_MAPPINGS = {"ComfyMathExpression": "Math Expression"}
