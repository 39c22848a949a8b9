"""Which parts the running load has found in the store: reading those takes no memory."""

from collections.abc import Collection, Hashable
from contextvars import ContextVar

parts_at_hand: ContextVar[Collection[Hashable]] = ContextVar("parts_at_hand", default=())
