"""What a series is: one pull request's files, edits, tests and message."""

from collections.abc import Callable
from dataclasses import dataclass, field

from patchset.transforms import Transform

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Series:
    """One pull request.

    *modules* and *tests* are files of this project copied as they are, ``(path here, path there)``; *edits* gives the transforms for a
    version (an empty list: not needed there).
    """

    name: str
    subject: str
    message: str
    edits: Callable[[Version], list[Transform]]
    modules: tuple[tuple[str, str], ...] = ()
    tests: tuple[tuple[str, str], ...] = field(default=())
