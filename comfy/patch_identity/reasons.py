"""Why something was not remembered, counted."""

from collections import OrderedDict

REASONS_KEPT = 32


class Reasons:
    """How often each reason came up, of very many only the latest ``REASONS_KEPT``. Whoever shares it brings the lock."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def note(self, reason: str) -> None:
        """Count *reason*."""
        self._counts[reason] = self._counts.pop(reason, 0) + 1
        while len(self._counts) > REASONS_KEPT:
            self._counts.popitem(last=False)

    def counts(self) -> dict[str, int]:
        """Each reason with its count, the latest last."""
        return dict(self._counts)
