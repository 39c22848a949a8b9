"""Lookups in cache providers with a deadline: none waits longer than 3 s, all of one prompt together no longer than 5 s.

A lookup runs on the provider's own thread, so one that blocks it holds up nobody else. After three failures in a row a provider is
left alone for 15 s, then asked once: if that fails as well, for another 15 s.
"""

import asyncio
import logging
import time
import weakref
from dataclasses import dataclass
from typing import Any

from comfy_execution.cache_provider import CacheContext, CacheProvider
from comfy_execution.provider_loops import loop_of

LOOKUP_S, PROMPT_S = 3.0, 5.0
FAILURES, PAUSE_S = 3, 15.0

log = logging.getLogger(__name__)


@dataclass
class Breaker:
    """Whether a provider may be asked. Used on the thread that runs prompts."""

    failures: int = 0
    closed_at: float = 0.0
    is_trying: bool = False

    def allows(self) -> bool:
        """False while the provider is left alone; after that true for one call until its outcome is known."""
        if self.failures < FAILURES:
            return True
        if self.is_trying or time.monotonic() < self.closed_at:
            return False
        self.is_trying = True
        return True

    def note(self, went_well: bool, name: str) -> None:
        """The outcome of a call that was allowed."""
        was_open = self.failures >= FAILURES
        self.failures = 0 if went_well else self.failures + 1
        if not went_well and self.failures >= FAILURES and (self.is_trying or not was_open):
            self.closed_at = time.monotonic() + PAUSE_S
            log.warning("Cache provider %s fails again and again; it is not asked for %.0f s", name, PAUSE_S)
        self.is_trying = False


class Budget:
    """Seconds that a prompt waited for lookups; those that wait side by side count once."""

    def __init__(self) -> None:
        self._spent_s, self._since, self._waiting = 0.0, 0.0, 0

    def renew(self) -> None:
        """Another prompt begins."""
        self._spent_s, self._since = 0.0, time.monotonic()

    def left_s(self) -> float:
        """What the prompt may still wait."""
        return PROMPT_S - self._spent_s - (time.monotonic() - self._since if self._waiting else 0.0)

    def __enter__(self) -> None:
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting += 1

    def __exit__(self, *error: object) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._spent_s += time.monotonic() - self._since


_breakers: dict[int, Breaker] = {}
_budget = Budget()


def begin_prompt() -> None:
    """The budget is a new one."""
    _budget.renew()


async def look_up(provider: CacheProvider, context: CacheContext) -> Any:
    """What ``on_lookup`` returns; None if the provider is left alone or no time is left. Raises what it raises, and ``TimeoutError``."""
    breaker, timeout_s = _breaker_of(provider), min(LOOKUP_S, _budget.left_s())
    if timeout_s <= 0 or not breaker.allows():
        return None
    went_well = False
    answer = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(provider.on_lookup(context), loop_of(provider)))
    try:
        with _budget:
            await asyncio.wait({answer}, timeout=timeout_s)
        if not answer.done():
            raise TimeoutError(f"no answer within {timeout_s:.1f} s")
        error = CancelledCall() if answer.cancelled() else answer.exception()
        if error is not None:
            raise error if isinstance(error, Exception) else CancelledCall(type(error).__name__) from error
        went_well = True
        return answer.result()
    finally:
        answer.cancel()
        breaker.note(went_well, type(provider).__name__)


class CancelledCall(RuntimeError):
    """A provider ended its own call with an exception that is meant for tasks and threads."""


def _breaker_of(provider: CacheProvider) -> Breaker:
    if id(provider) not in _breakers:
        _breakers[id(provider)] = Breaker()
        weakref.finalize(provider, _breakers.pop, id(provider), None).atexit = False
    return _breakers[id(provider)]
