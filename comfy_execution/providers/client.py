"""One cache provider behind a guard: whatever it does, the caller gets a value, or None, in bounded time.

Everything of the provider runs on a thread of its own (``ProviderThread``): lookups while the prompt waits, stores whenever they are
done. Stores wait in a queue bounded in bytes that outlives the prompt.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue, _estimate_value_size
from comfy_execution.providers.breaker import CircuitBreaker
from comfy_execution.providers.statistics import ProviderCounters, ProviderStats
from comfy_execution.providers.store_queue import StoreJob, StoreQueue
from comfy_execution.providers.thread import ProviderThread, wait_briefly

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderLimits:
    """How long and how much. The prompt's budget covers all waiting for providers in one prompt."""

    lookup_timeout_s: float = 3.0
    store_timeout_s: float = 60.0
    prompt_budget_s: float = 5.0
    drain_timeout_s: float = 2.0
    shutdown_timeout_s: float = 10.0
    queue_bytes: int = 1024**3
    concurrent_lookups: int = 256
    concurrent_stores: int = 16

    def __post_init__(self) -> None:
        wrong = [name for name in self.__slots__ if getattr(self, name) <= 0]
        if wrong:
            raise ValueError(f"limits of cache providers must be positive: {', '.join(wrong)}")


# How much longer than a lookup may take the answer to it may be on its way.
GRACE_S = 0.05
_UNANSWERED = object()


class BadAnswer(TypeError):
    """A provider answered with something that is not a result."""


@dataclass(slots=True)
class ProviderClient:
    """The guarded provider. ``lookup_all`` and ``notify`` are awaited on the caller's loop; the rest may be called from any thread."""

    provider: CacheProvider
    limits: ProviderLimits = field(default_factory=ProviderLimits)
    clock: Callable[[], float] = time.monotonic
    name: str = field(init=False)
    breaker: CircuitBreaker = field(init=False)
    _counters: ProviderCounters = field(init=False)
    _thread: ProviderThread = field(init=False)
    _queue: StoreQueue = field(init=False)
    _last_told: "Future[None] | None" = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.name = str(_attribute(self.provider, "url", type(self.provider).__name__))
        self.breaker = CircuitBreaker(self.clock)
        self._counters = ProviderCounters()
        self._thread = ProviderThread(f"cache-provider-{type(self.provider).__name__}")
        self._queue = StoreQueue(
            self._store, self._stored, self._thread, self.limits.queue_bytes, self.limits.concurrent_stores, self.limits.store_timeout_s
        )

    def stats(self) -> ProviderStats:
        """The numbers now."""
        return self._counters.stats(self.name, self.breaker.state, self._queue.count, self._queue.bytes)

    def is_writable(self) -> bool:
        """Whether it is worth handing results over; a provider may say ``read_only = True``."""
        return not _attribute(self.provider, "read_only", False)

    async def lookup_all(self, contexts: list[CacheContext], timeout_s: float) -> list[CacheValue | None]:
        """For each context the provider's value; None when it has none, fails, or does not answer within *timeout_s*.

        All are asked for side by side, by one trip to the provider's thread.
        """
        asked = contexts
        if not self.breaker.allows():
            return [None] * len(contexts)
        if self.breaker.state != "closed":
            # One call is enough to find out whether it works again.
            asked = contexts[:1]
        outcomes: list[Any] = [_UNANSWERED] * len(asked)
        future = self._thread.submit(self._ask_all(asked, outcomes, timeout_s))
        try:
            await asyncio.wait({asyncio.wrap_future(future)}, timeout=timeout_s + GRACE_S)
        except asyncio.CancelledError:
            self.breaker.abandon()
            raise
        finally:
            future.cancel()
        return [*self._judge(asked, outcomes, timeout_s), *[None] * (len(contexts) - len(asked))]

    async def notify(self, event: str, prompt_id: str, timeout_s: float) -> None:
        """Call the provider's ``on_prompt_start`` or ``on_prompt_end``. If it is late it is still called, in order.

        Not waited for while the provider is still busy with what it was told before, or where it left the method as it is; its thread is
        told of the start nevertheless, which shows whether it reacts.
        """
        is_heeded = not _left_as_it_is(self.provider, f"on_prompt_{event}")
        if event == "end" and not is_heeded:
            return
        try:
            was_reacting = self.is_reacting()
            # What is late is done nevertheless: an end must follow each start.
            told: Future[None] = Future()
            future = self._thread.submit(self._tell(event, prompt_id))
            future.add_done_callback(lambda _: told.set_result(None) if told.set_running_or_notify_cancel() else None)
            self._last_told = future
            if was_reacting and is_heeded:
                await wait_briefly([told], timeout_s)
        except Exception:
            log.warning("Cache provider %s could not be told of a prompt", self.name, exc_info=True)

    def is_reacting(self) -> bool:
        """Whether the provider has received the last notice; one that blocks its thread has not."""
        return self._last_told is None or self._last_told.done()

    def offer(self, job: StoreJob) -> bool:
        """Queue a store; False when the queue has no room for it."""
        return self._queue.put(job)

    def has_room(self, size_bytes: int) -> bool:
        """Whether the queue has room for *size_bytes* now."""
        return self._queue.has_room(size_bytes)

    async def wait_for_room(self, size_bytes: int, timeout_s: float) -> bool:
        """Wait until the queue has room for *size_bytes*; whether it has. ``has_room`` tells without waiting."""
        return await self._queue.wait_for_room(size_bytes, timeout_s)

    def give_up(self, count: int = 1) -> None:
        """Count results that were not queued."""
        self._counters.add(not_stored=count)

    def drained(self) -> "Future[None]":
        """Done when nothing is queued or being stored any more."""
        return self._queue.drained()

    def close(self, timeout_s: float) -> None:
        """Let go of the provider: call its ``aclose()`` if it has one, and end its thread. Blocks up to twice *timeout_s*."""
        close = getattr(self.provider, "aclose", None)
        if self._thread.is_started() and callable(close):
            try:
                self._thread.submit(_awaited(close)).result(timeout_s)
            except Exception:
                log.warning("Cache provider %s could not be closed", self.name, exc_info=True)
        self._queue.stop()
        self._thread.close(timeout_s)

    def _judge(self, contexts: list[CacheContext], outcomes: list[Any], timeout_s: float) -> list[CacheValue | None]:
        """The values, None for what failed; counts the outcomes of the lookups, and warns of failures."""
        values: list[CacheValue | None] = []
        took_s: list[float] = []
        fetched = 0
        was_answered = False
        for context, outcome in zip(contexts, outcomes):
            if outcome is _UNANSWERED:
                self._counters.add(timeouts=1)
                outcome = TimeoutError(f"no answer within {timeout_s:.1f} s")
            if isinstance(outcome, BaseException):
                self._failed("looked up", context, outcome)
                values.append(None)
                was_answered = False
            else:
                if not was_answered:
                    self.breaker.succeed()
                was_answered = True
                values.append(outcome[0])
                took_s.append(outcome[1])
                fetched += outcome[2]
        hits = sum(value is not None for value in values)
        self._counters.looked_up(took_s, hits=hits, misses=len(took_s) - hits, bytes_fetched=fetched)
        return values

    async def _ask_all(self, contexts: list[CacheContext], outcomes: list[Any], timeout_s: float) -> None:
        """On the provider's loop: write into *outcomes* (value, seconds, bytes) or an exception for each that is answered in time."""
        loop = asyncio.get_running_loop()
        all_answered = loop.create_future()
        waiting = iter(enumerate(contexts))
        provider, clock = self.provider, self.clock
        open_count = len(contexts)
        is_over = False

        async def ask_next() -> None:
            """Ask for one after the other."""
            nonlocal open_count
            for number, context in waiting:
                began_s = clock()
                try:
                    value = await provider.on_lookup(context) if provider.should_cache(context) else None
                    if value is None:
                        outcomes[number] = None, clock() - began_s, 0
                    else:
                        _check_answer(value)
                        outcomes[number] = value, clock() - began_s, _estimate_value_size(value)
                except Exception as error:
                    outcomes[number] = error
                except BaseException as error:
                    if loop.is_closed() or (is_over and issubclass(type(error), asyncio.CancelledError)):
                        raise
                    outcomes[number] = _aborted(error)
                if is_over:
                    return
                open_count -= 1
            if not open_count and not all_answered.done():
                all_answered.set_result(None)

        tasks = [loop.create_task(ask_next()) for _ in range(min(len(contexts), self.limits.concurrent_lookups))]
        try:
            await asyncio.wait({all_answered}, timeout=timeout_s)
        finally:
            is_over = True
            for task in tasks:
                task.cancel()

    async def _tell(self, event: str, prompt_id: str) -> None:
        try:
            (self.provider.on_prompt_start if event == "start" else self.provider.on_prompt_end)(prompt_id)
        except BaseException:  # it has not awaited, so nobody else cancelled it, and Ctrl-C comes to the main thread only
            log.warning("Cache provider %s failed at the %s of a prompt", self.name, event, exc_info=True)

    async def _store(self, job: StoreJob) -> bool | None:
        """On the provider's loop: whether the provider wanted it; None when it was not asked. Raises what the provider raises."""
        if not self.breaker.allows():
            return None
        provider = self.provider
        try:
            if not provider.should_cache(job.context, job.value):
                return False
            await provider.on_store(job.context, job.value)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:
            if asyncio.get_running_loop().is_closed():
                raise
            raise _aborted(error) from error
        return True

    def _stored(self, job: StoreJob, outcome: Any) -> None:
        """Count the outcome of one store, and warn of a failure."""
        if outcome is True:
            self.breaker.succeed()
            self._counters.stored(job.size_bytes)
        elif outcome is False:
            self.breaker.abandon()
        elif outcome is None:
            self._counters.add(not_stored=1)
        else:
            self._failed("stored", job.context, _aborted(outcome) if isinstance(outcome, asyncio.CancelledError) else outcome)
            self._counters.add(not_stored=1)

    def _failed(self, what: str, context: CacheContext, error: BaseException) -> None:
        self._counters.add(errors=1)
        opened = self.breaker.fail()
        log.warning(
            "Cache provider %s: node %s (%s) cannot be %s: %s: %s",
            self.name,
            context.node_id,
            context.class_type,
            what,
            type(error).__name__,
            error,
            exc_info=not isinstance(error, TimeoutError | BadAnswer | OSError),
        )
        if opened:
            log.warning("Cache provider %s failed repeatedly and is left alone for a while", self.name)


def _check_answer(value: Any) -> None:
    if not isinstance(value, CacheValue) or not isinstance(value.outputs, list | tuple):
        raise BadAnswer(f"on_lookup returned {type(value).__name__}, not a CacheValue whose outputs are a list")


class CallAborted(RuntimeError):
    """A provider ended its own call with an exception meant for threads and tasks."""


def _aborted(error: BaseException) -> CallAborted:
    """What stands for *error*, which is no ``Exception`` and would end the provider's thread or task."""
    is_cancelled = issubclass(type(error), asyncio.CancelledError)
    return CallAborted("the call cancelled itself" if is_cancelled else f"the call raised {type(error).__name__}")


def _attribute(provider: Any, name: str, default: Any) -> Any:
    """An attribute that a provider may have; it may also be a property that fails."""
    try:
        return getattr(provider, name, default)
    except BaseException as error:
        if issubclass(type(error), KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        log.warning("The attribute %r of cache provider %s cannot be read", name, type(provider).__name__, exc_info=True)
        return default


def _left_as_it_is(provider: Any, name: str) -> bool:
    """Whether calling *name* on *provider* would do nothing."""
    return getattr(_attribute(provider, name, None), "__func__", None) is getattr(CacheProvider, name)


async def _awaited(function: Callable[[], Any]) -> None:
    try:
        result = function()
        if hasattr(result, "__await__"):
            await result
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise _aborted(error) from error
