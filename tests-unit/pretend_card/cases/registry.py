"""The table of cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine import Engine

Run = Callable[[Engine], Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to do. *apart*: by how much samplers seed a host generator further than a card's (1), or not (0)."""

    run: Run
    apart: int = 1
    quick: bool = False


CASES: dict[str, Case] = {}


def case(name: str, apart: int = 1, quick: bool = False) -> Callable[[Run], Run]:
    """Enter a function as the case *name*; *quick* ones run in CI."""

    def enter(run: Run) -> Run:
        assert name not in CASES, name
        CASES[name] = Case(run, apart, quick)
        return run

    return enter
