"""The table of cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine import Engine

Run = Callable[[Engine], Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to do. *apart*: by how much samplers seed a host generator further than a card's (1), or not (0).

    *extra_mib*: what small cards have more for it, where it needs what the engine does not plan for, and which in life is small.
    """

    run: Run
    apart: int = 1
    quick: bool = False
    extra_mib: float = 0


CASES: dict[str, Case] = {}


def case(name: str, apart: int = 1, quick: bool = False, extra_mib: float = 0) -> Callable[[Run], Run]:
    """Enter a function as the case *name*; *quick* ones run in CI."""

    def enter(run: Run) -> Run:
        assert name not in CASES, name
        CASES[name] = Case(run, apart, quick, extra_mib)
        return run

    return enter
