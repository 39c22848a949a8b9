"""A merge of two changes of one text, by lines. Changes beside each other are both made; only what overlaps is a conflict."""

import difflib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class _Hunk:
    """The lines from *start* to *end* of the old text become *lines*."""

    start: int
    end: int
    lines: tuple[bytes, ...]


def merged(old: bytes, one: bytes, other: bytes) -> bytes | None:
    """*old* with what *one* and what *other* changed in it; None where both changed the same lines, or put lines in the same place."""
    lines = old.splitlines(keepends=True)
    hunks = sorted(set(_hunks(lines, one)) | set(_hunks(lines, other)))
    if any(_overlap(first, second) for first, second in zip(hunks, hunks[1:])):
        return None
    result: list[bytes] = []
    done = 0
    for hunk in hunks:
        result += [*lines[done : hunk.start], *hunk.lines]
        done = hunk.end
    return b"".join([*result, *lines[done:]])


def _hunks(lines: list[bytes], new: bytes) -> list[_Hunk]:
    after = new.splitlines(keepends=True)
    steps = difflib.SequenceMatcher(None, lines, after, autojunk=False).get_opcodes()
    return [_Hunk(start, end, tuple(after[first:last])) for kind, start, end, first, last in steps if kind != "equal"]


def _overlap(first: _Hunk, second: _Hunk) -> bool:
    """Of two in order: lines in common, or lines put in the same place."""
    return second.start < first.end or (first.start == first.end == second.start == second.end)
