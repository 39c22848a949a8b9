"""What lookups may take into memory before anything is known to be sound: a size first, then a turn, then the bytes.

Whoever can write to a store can put anything there. So a store says how much it is about to read; what is larger than such a thing can
be, or than the memory that is free, is a miss, and of what is large only a few lookups hold any at a time.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from .entry_format import Rejected
from .free_memory import free_bytes
from .units import MIB

# What a lookup may hold without waiting for its turn.
SMALL_BYTES = 256 << 10
LARGE_AT_ONCE = 4
# What stays free for everything else.
SPARE_BYTES = 256 * MIB


class Intake:
    """One lookup's leave to read. On the loop of the lookup."""

    def __init__(self, gate: "IntakeGate", max_entry_bytes: int) -> None:
        self.max_entry_bytes = max_entry_bytes
        self._gate = gate
        self._held_bytes = 0
        self._turn: asyncio.Semaphore | None = None

    async def expect_entry(self, size: int) -> None:
        """Before *size* bytes of an entry are read: wait for a turn if they are many. Raises ``Rejected`` for too many."""
        if size > self.max_entry_bytes:
            raise Rejected(f"it has {size} bytes, more than the {self.max_entry_bytes} that it may have")
        await self.expect(size)

    async def expect(self, size: int) -> None:
        """Before *size* bytes are read. Raises ``Rejected`` where memory is too short for them."""
        if self._held_bytes + size > SMALL_BYTES:
            if self._turn is None:
                turn = self._gate.turns()
                await turn.acquire()
                self._turn = turn
            self._gate.promise(size)
            self._held_bytes += size

    def end(self) -> None:
        """Everything is read and judged."""
        self._gate.promised_bytes -= self._held_bytes
        self._held_bytes = 0
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release()


class IntakeGate:
    """All lookups of one provider. On the provider's loop; *free* gives the bytes that can still be allocated."""

    def __init__(self, free: Callable[[], int] = free_bytes) -> None:
        self.promised_bytes = 0
        self._free = free
        self._turns: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    @contextlib.asynccontextmanager
    async def lookup(self, max_entry_bytes: int) -> AsyncIterator[Intake]:
        """The intake of one lookup, for as long as that takes."""
        intake = Intake(self, max_entry_bytes)
        try:
            yield intake
        finally:
            intake.end()

    def turns(self) -> asyncio.Semaphore:
        """The turns of this loop's large lookups; a loop that has ended took its own along."""
        loop = asyncio.get_running_loop()
        if self._turns is None or self._turns[0] is not loop:
            self._turns = loop, asyncio.Semaphore(LARGE_AT_ONCE)
        return self._turns[1]

    def promise(self, size: int) -> None:
        """Count *size* bytes as taken. Raises ``Rejected`` where they are not free."""
        left_bytes = self._free() - self.promised_bytes
        if size + SPARE_BYTES > left_bytes:
            raise Rejected(f"it takes {size} bytes, and only {max(0, left_bytes)} are free")
        self.promised_bytes += size
