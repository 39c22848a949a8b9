"""Reads weights in prompt text: ``(word)`` multiplies by 1.1, ``(word:1.3)`` sets, and ``\\(`` and ``\\)`` are plain parentheses."""

import contextlib

_ESCAPED_CLOSE, _ESCAPED_OPEN = "\0\1", "\0\2"
PARENTHESIS_WEIGHT = 1.1


def escape_important(text: str) -> str:
    """*text* with escaped parentheses replaced by marks that the weight parser ignores."""
    return text.replace("\\)", _ESCAPED_CLOSE).replace("\\(", _ESCAPED_OPEN)


def unescape_important(text: str) -> str:
    """*text* with the marks of :func:`escape_important` turned into plain parentheses."""
    return text.replace(_ESCAPED_CLOSE, ")").replace(_ESCAPED_OPEN, "(")


def parse_parentheses(string: str) -> list[str]:
    """Split *string* into its outermost parenthesised groups, with their parentheses, and the text between them.

    An unclosed group extends to the end. After a surplus closing parenthesis, text is one piece until the parentheses balance again.
    """
    pieces, piece, level = [], "", 0
    for character in string:
        if character == "(":
            if level == 0 and piece:
                pieces.append(piece)
                piece = ""
            piece += character
            level += 1
        elif character == ")":
            level -= 1
            piece += character
            if level == 0:
                pieces.append(piece)
                piece = ""
        else:
            piece += character
    return [*pieces, piece] if piece else pieces


def token_weights(string: str, current_weight: float) -> list[tuple[str, float]]:
    """Split escaped prompt text into (text, weight) pieces. Nested groups multiply their weights; an explicit weight replaces them."""
    weighted: list[tuple[str, float]] = []
    for piece in parse_parentheses(string):
        if len(piece) < 2 or piece[0] != "(" or piece[-1] != ")":
            weighted.append((piece, current_weight))
            continue
        inner, weight = piece[1:-1], current_weight * PARENTHESIS_WEIGHT
        text, colon, number = inner.rpartition(":")
        if colon and text:
            with contextlib.suppress(ValueError):  # a colon in ordinary text stays, and the group weighs 1.1
                inner, weight = text, float(number)
        weighted += token_weights(inner, weight)
    return weighted
