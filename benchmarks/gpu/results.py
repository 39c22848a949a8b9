"""Figures with their bounds: kept in one JSON file, which is written anew after each part, and printed as a table."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One number. *at_least* and *at_most* are bounds, *goal* is what is hoped for; None: there is none.

    *is_exact*: it does not depend on how fast the machine is, so that its bounds hold on a pretend card, too.
    """

    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    goal: float | None = None
    is_exact: bool = False

    def is_met(self) -> bool:
        """Whether the value is within its bounds."""
        return (self.at_least is None or self.value >= self.at_least) and (self.at_most is None or self.value <= self.at_most)

    def bound(self) -> str:
        """The bounds and the goal in words."""
        limits = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        limits += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        limits += [f"goal {self.goal:g}"] if self.goal is not None else []
        return ", ".join(limits)


class Results:
    """The parts that are done, in the file *path*. A file of another machine or tree (*setting* differs) is begun anew."""

    def __init__(self, path: pathlib.Path, setting: Mapping[str, Any]) -> None:
        self._path = path
        self._known: dict[str, Any] = {"setting": dict(setting), "parts": {}}
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        if isinstance(before, dict) and before.get("setting") == self._known["setting"]:
            self._known = before
        self._write()

    def done(self) -> list[str]:
        """The parts that have figures."""
        return [name for name, part in self._known["parts"].items() if "figures" in part]

    def keep(self, name: str, figures: Mapping[str, Figure], seconds: float) -> None:
        """Part *name* is done."""
        self._known["parts"][name] = {
            "seconds": round(seconds, 2),
            "figures": {key: dataclasses.asdict(one) for key, one in figures.items()},
        }
        self._write()

    def fail(self, name: str, why: str) -> None:
        """Part *name* has no figures this time."""
        self._known["parts"][name] = {"failed": why}
        self._write()

    def refresh(self) -> None:
        """Read what another process has written."""
        self._known = json.loads(self._path.read_text(encoding="utf-8"))

    def figures(self, name: str) -> dict[str, Figure]:
        """The figures of part *name*; none if it is not done."""
        return {key: Figure(**one) for key, one in self._known["parts"].get(name, {}).get("figures", {}).items()}

    def _judges(self, figure: Figure) -> bool:
        return bool(figure.bound()) and (figure.is_exact or not self._known["setting"].get("pretends"))

    def table(self) -> str:
        """Every figure in a line, as Markdown."""
        lines = ["| part | what | value | bound | met |", "| --- | --- | --- | --- | --- |"]
        for name, part in self._known["parts"].items():
            if "failed" in part:
                lines.append(f"| {name} | failed: {part['failed']} | | | no |")
            for what, figure in self.figures(name).items():
                met = "" if not self._judges(figure) else "yes" if figure.is_met() else "**no**"
                lines.append(f"| {name} | {what} | {figure.value:.4g} {figure.unit} | {figure.bound()} | {met} |")
        return "\n".join(lines)

    def broken(self) -> list[str]:
        """The bounds that are not met, and the parts that failed, in words."""
        words = [f"{name}: {part['failed']}" for name, part in self._known["parts"].items() if "failed" in part]
        for name in self.done():
            words += [
                f"{name}, {what}: {one.value:.4g}, {one.bound()}"
                for what, one in self.figures(name).items()
                if self._judges(one) and not one.is_met()
            ]
        return words

    def _write(self) -> None:
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._known, indent=1), encoding="utf-8")
        os.replace(partial, self._path)
