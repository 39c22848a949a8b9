"""What a transform found at its anchor."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Verdict(enum.Enum):
    """How one transform ended."""

    APPLIED = "applied"
    ALREADY_THERE = "already there"
    NOT_NEEDED = "not needed in this version"
    MISSING = "anchor missing"
    AMBIGUOUS = "anchor ambiguous"

    @property
    def is_failure(self) -> bool:
        """Whether the series cannot be applied because of it."""
        return self in (Verdict.MISSING, Verdict.AMBIGUOUS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One transform's verdict: *file* and *anchor* (a function, class or statement), and what was *expected* there."""

    verdict: Verdict
    file: str
    anchor: str
    expected: str

    def __str__(self) -> str:
        text = f"{self.verdict.value}: {self.file}: {self.anchor}"
        return f"{text} (expected {self.expected})" if self.verdict.is_failure else text


class PatchsetError(Exception):
    """Nothing was changed; the message says why and what to do."""


class AnchorError(PatchsetError):
    """Some anchors of a series are missing or ambiguous."""

    def __init__(self, series: str, failures: Iterable[Outcome], leave_out: bool = False) -> None:
        self.failures = tuple(failures)
        lines = "\n".join(f"  {failure}" for failure in self.failures)
        way = f"\nThe others fit: leave out --strict, or leave out {series}." if leave_out else ""
        super().__init__(
            f"does not fit this checkout: {series}; nothing was changed:\n{lines}\n"
            f"If these places were edited by hand, undo that first; otherwise this version is not supported yet.{way}"
        )
