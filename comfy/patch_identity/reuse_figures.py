"""How often what was made before was given out again, and why not: the figures of everything that remembers by content."""

from collections import OrderedDict
from dataclasses import dataclass, field, fields
from typing import Any

REASONS_KEPT = 32


@dataclass(slots=True)
class ReuseFigures:
    """Totals since the one that remembers was made. Whoever shares it brings the lock.

    *hits* were given out again, *misses* made and kept. *unique*: made, because something could not be compared; *refused*: made, not
    kept; *outdated*: kept, but something in it was changed; *base_gone*: let go with the model that it was made for. *made_seconds* is
    what making took, *saved_seconds* what hits saved. Of very many reasons only the latest ``REASONS_KEPT`` are known.
    """

    hits: int = 0
    misses: int = 0
    unique: int = 0
    refused: int = 0
    outdated: int = 0
    evictions: int = 0
    base_gone: int = 0
    made_seconds: float = 0.0
    saved_seconds: float = 0.0
    _reasons: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def hit(self, saved_seconds: float) -> None:
        """Something was given out again, which saved *saved_seconds*; less than nothing counts as nothing."""
        self.hits += 1
        self.saved_seconds += max(0.0, saved_seconds)

    def incomparable(self, reason: str) -> None:
        """Something equals nothing else."""
        self.unique += 1
        self._note(reason)

    def not_kept(self, reason: str) -> None:
        """Something was made and cannot be kept."""
        self.refused += 1
        self._note(reason)

    def described(self) -> dict[str, Any]:
        """As plain data, for ``GET /caches``; *reasons* with how often each came up, the latest last."""
        totals = {one.name: getattr(self, one.name) for one in fields(self) if not one.name.startswith("_")}
        return {**totals, "reasons": dict(self._reasons)}

    def _note(self, reason: str) -> None:
        self._reasons[reason] = self._reasons.pop(reason, 0) + 1
        while len(self._reasons) > REASONS_KEPT:
            self._reasons.popitem(last=False)
