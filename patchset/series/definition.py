"""What a series is: one pull request's files, edits, tests and message."""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass

from patchset.transforms import Transform

PROJECT = pathlib.Path(__file__).resolve().parents[2]
Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Series:
    """One pull request.

    *modules* are folders of this project copied whole, *files* and *tests* single files, each as ``(path here, path there)``; *edits* gives
    the transforms for a version (an empty list: not needed there). *rivals* names series that do the same in the same places: a checkout
    has one of them at most. Naming it on one side is enough. *builds_on* names what it stands on, in that order.
    """

    name: str
    subject: str
    message: str
    edits: Callable[[Version], list[Transform]]
    modules: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    tests: tuple[tuple[str, str], ...] = ()
    rivals: tuple[str, ...] = ()
    builds_on: tuple[str, ...] = ()

    def is_rival_of(self, other: "Series") -> bool:
        """Whether a checkout cannot have both."""
        return other.name in self.rivals or self.name in other.rivals

    def copied(self, with_tests: bool) -> list[tuple[str, str]]:
        """Every file that is copied, ``(path here, path there)``: those of the folders in the order of their names, then the others."""
        inside = [
            (f"{here}/{path.name}", f"{there}/{path.name}")
            for here, there in self.modules
            for path in sorted((PROJECT / here).glob("*.py"))
            if not path.name.endswith("_test.py")
        ]
        return [*inside, *self.files, *(self.tests if with_tests else ())]
