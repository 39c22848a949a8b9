"""The states of a model in the RAM model cache and the moves between them: docs/architecture.md draws this table, a test compares both.

Portable: standard library only.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class State(enum.Enum):
    """Where a model stands. ``ABSENT`` is both ends, drawn as ``[*]``."""

    ABSENT = "absent"  # not known, or dropped
    RESERVED = "reserved"  # a loader reads it
    KEPT = "kept"  # counted against the cap
    LENT = "lent"  # not kept, but still used by somebody, so that asking again must not make a second copy
    DOOMED = "doomed"  # waits to be dropped


MOVES: Mapping[tuple[State, State], str] = {
    (State.ABSENT, State.RESERVED): "reserve: a miss, room is made before the read",
    (State.RESERVED, State.ABSENT): "abandon: the load failed or cannot be cached",
    (State.RESERVED, State.KEPT): "admit",
    (State.RESERVED, State.LENT): "admit, the policy refuses, or it was read ahead",
    (State.LENT, State.KEPT): "lookup, the policy agrees",
    (State.KEPT, State.LENT): "evicted while in use",
    (State.KEPT, State.DOOMED): "evicted",
    (State.LENT, State.DOOMED): "nobody uses it any more, or it was loaded again",
    (State.DOOMED, State.ABSENT): "dropped, no critical section being open",
}
