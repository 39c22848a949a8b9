"""Rewrites texts as the page does when it sends them: ``{a|b}`` choices, comments, ``%date:…%`` and ``%node.widget%``."""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from app.workflow_pages.errors import WorkflowFormatError
from app.workflow_pages.graph import Node
from app.workflow_pages.values import as_text, is_missing

Choose = Callable[[Sequence[str]], str]
Now = Callable[[], datetime]

_COMMENTS = re.compile(r"/\*.*?\*/|//[^\n\r\u2028\u2029]*", re.DOTALL)
_ESCAPED = re.compile(r"\\([{}|])")
_NAMED = re.compile(r"%([^%]+)%")
_UNSAFE = re.compile(r'[/?<>\\:*|"\x00-\x1F\x7F]')
_DATE = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyy?y?")
_DEEPEST = 200


def choose_any(options: Sequence[str]) -> str:
    """One of *options* at random, as the page picks one at every run."""
    return random.choice(options)


def resolve_choices(text: str, choose: Choose, depth: int = 0) -> str:
    """*text* without comments and with every ``{a|b}`` replaced by what *choose* picks; ``\\{`` stands for a brace."""
    if depth > _DEEPEST:
        raise WorkflowFormatError(f"a text has choices within choices more than {_DEEPEST} deep: {text[:40]!r}")
    text = _COMMENTS.sub("", text)
    parts: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == "{":
            options, at = _options(text, at + 1)
            parts.append(resolve_choices(choose(options), choose, depth + 1))
        else:
            end = at + (2 if text[at] == "\\" else 1)
            parts.append(text[at:end] if text[at] != "\\" or end <= len(text) else "\\undefined")
            at = end
    return _ESCAPED.sub(r"\1", "".join(parts))


def _options(text: str, at: int) -> tuple[list[str], int]:
    """The options of the block that begins at *at*, and where it ends; without a closing brace it ends with the text."""
    options, current, depth = [], [], 0
    while at < len(text):
        letter = text[at]
        at += 1
        if letter == "\\":
            current.append("\\" + (text[at] if at < len(text) else "undefined"))
            at += 1
            continue
        if letter == "}" and not depth:
            break
        if letter == "|" and not depth:
            options.append("".join(current))
            current = []
            continue
        depth += (letter == "{") - (letter == "}")
        current.append(letter)
    return [*options, "".join(current)], at


class Replacements:
    """Fills ``%…%`` in file names with the time and with other nodes' values."""

    def __init__(self, nodes: Iterable[Node], now: Now) -> None:
        self._nodes = list(nodes)
        self._now = now

    def apply(self, text: str) -> str:
        """*text* with every known placeholder replaced."""
        return _NAMED.sub(self._replacement, text)

    def _replacement(self, match: re.Match[str]) -> str:
        parts = match.group(1).split(".")
        if len(parts) != 2:
            return _date(parts[0][5:], self._now()) if parts[0].startswith("date:") else match.group()
        node = next((one for one in self._nodes if _search_name(one) == parts[0]), None)
        node = node or next((one for one in self._nodes if one.title == parts[0]), None)
        widget = node.widget(parts[1]) if node is not None else None
        if widget is None:
            return match.group()
        return _UNSAFE.sub("_", "" if is_missing(widget.value) else as_text(widget.value))


def _search_name(node: Node) -> object:
    return node.saved.properties.get("Node name for S&R", node.kind)


def _date(pattern: str, moment: datetime) -> str:
    numbers = {"d": moment.day, "M": moment.month, "h": moment.hour, "m": moment.minute, "s": moment.second}

    def part(match: re.Match[str]) -> str:
        found = match.group()
        if found[0] == "y":
            return {2: f"{moment.year}"[2:], 4: str(moment.year)}.get(len(found), found)
        return str(numbers[found[0]]).rjust(len(found), "0")

    return _DATE.sub(part, pattern)
