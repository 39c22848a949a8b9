"""Asking and filling external caches during prompts without ever depending on them.

One ``ProviderRuntime`` per executor outlives prompts: it keeps a guarded client per registered provider, with its thread, its circuit
breaker, its numbers and its queue of stores. One ``PromptProviders`` per prompt keeps what this prompt asked: no key is asked for twice,
and all waiting together stays within the prompt's budget. Standard library only.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue, _get_cache_providers
from comfy_execution.providers.client import GRACE_S, ProviderClient, ProviderLimits
from comfy_execution.providers.snapshot import COPY_INLINE_BYTES, Handed, NotPlain, VersionBook, copy_plain, examine, take_copy
from comfy_execution.providers.statistics import ProviderStats
from comfy_execution.providers.store_queue import StoreJob
from comfy_execution.providers.thread import wait_briefly

log = logging.getLogger(__name__)

IsSound = Callable[[CacheValue], bool]


class ProviderRuntime:
    """The providers of one executor. ``begin_prompt`` is awaited on the loop that runs prompts; ``close`` and ``stats`` by any thread."""

    def __init__(
        self,
        limits: ProviderLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        registered: Callable[[], Iterable[CacheProvider]] = _get_cache_providers,
    ) -> None:
        """*registered* gives the providers in the order in which they are asked."""
        self.limits = limits or ProviderLimits()
        self._clock = clock
        self._registered = registered
        self._lock = threading.Lock()
        self._clients: dict[int, ProviderClient] = {}
        self._retired: list[ProviderClient] = []

    def clients(self) -> tuple[ProviderClient, ...]:
        """The registered providers' clients, in order. Those of providers no longer registered finish their stores and go."""
        with self._lock:
            providers = tuple(self._registered())
            for key in self._clients.keys() - {id(provider) for provider in providers}:
                self._retired.append(self._clients.pop(key))
            for provider in providers:
                if id(provider) not in self._clients:
                    self._clients[id(provider)] = ProviderClient(provider, self.limits, self._clock)
            return tuple(self._clients[id(provider)] for provider in providers)

    async def begin_prompt(self, prompt_id: str) -> "PromptProviders | None":
        """Tell the providers of a prompt; None when none is registered. ``end`` must be awaited on what is returned."""
        await self._release_retired()
        clients = self.clients()
        if not clients:
            return None
        prompt = PromptProviders(clients, self.limits, self._clock, prompt_id)
        await prompt.begin()
        return prompt

    def stats(self) -> list[ProviderStats]:
        """The numbers of each registered provider, in order."""
        return [client.stats() for client in self.clients()]

    def close(self) -> None:
        """Wait for queued stores, up to the shutdown's time limit, and let go of all providers. Blocks."""
        with self._lock:
            clients = [*self._clients.values(), *self._retired]
            self._clients, self._retired = {}, []
        _, late = concurrent.futures.wait([client.drained() for client in clients], timeout=self.limits.shutdown_timeout_s)
        if late:
            left = sum(client.stats().queued for client in clients)
            log.warning("%d results are given up: storing them takes longer than %.0f s", left, self.limits.shutdown_timeout_s)
        for client in clients:
            client.close(1.0)

    async def _release_retired(self) -> None:
        with self._lock:
            done = [client for client in self._retired if client.drained().done()]
            self._retired = [client for client in self._retired if client not in done]
        for client in done:
            await asyncio.to_thread(client.close, 1.0)


class PromptProviders:
    """The providers as one prompt sees them. Everything is awaited by the coroutine that runs the prompt; nothing raises."""

    def __init__(self, clients: tuple[ProviderClient, ...], limits: ProviderLimits, clock: Callable[[], float], prompt_id: str) -> None:
        self._clients = clients
        self._writable = tuple(client for client in clients if client.is_writable())
        self._limits = limits
        self._clock = clock
        self._prompt_id = prompt_id
        self._waited_s = 0.0
        self._is_out_of_time = False
        self._answers: dict[str, CacheValue | None] = {}
        self._book = VersionBook()

    @property
    def remaining_s(self) -> float:
        """What is left of the prompt's budget."""
        return max(0.0, self._limits.prompt_budget_s - self._waited_s)

    async def begin(self) -> None:
        """Tell all providers that the prompt begins."""
        await self._tell_all("start")

    async def end(self) -> None:
        """Give queued stores some time, then tell all providers that the prompt has ended. What is not stored yet goes on being stored."""
        self._answers.clear()
        limit_s = self._limits.drain_timeout_s
        drains = [client.drained() for client in self._clients if client.is_reacting()]
        if drains:
            began_s = self._clock()
            await wait_briefly(drains, min(limit_s, self.remaining_s))
            self._waited_s += self._clock() - began_s
        await self._tell_all("end")

    def has_asked(self, key: str) -> bool:
        """Whether *key* was looked up in this prompt."""
        return key in self._answers

    async def wait_for(self, awaitable: Awaitable[Any], timeout_s: float | None = None) -> Any:
        """Await something that providers need, at the budget's cost. Raises ``TimeoutError`` when the time is up."""
        return await self._within_budget(awaitable, self.remaining_s if timeout_s is None else timeout_s)

    async def lookup_all(self, wanted: Iterable[tuple[CacheContext, IsSound]]) -> list[CacheValue | None]:
        """For each context the first value that a provider has and that its check accepts, or None. All are asked for at once.

        A key asked for before in this prompt gets the answer it got then. Once the budget is used up no provider is asked.
        """
        wanted = list(wanted)
        answers = self._answers
        new = {key: one for one in wanted if (key := one[0].cache_key_hash) not in answers}
        answers.update(dict.fromkeys(new))
        await self._ask_in_order(new)
        return [answers[context.cache_key_hash] for context, _ in wanted]

    def answer(self, key: str) -> CacheValue | None:
        """What was found for a key that ``has_asked``."""
        return self._answers[key]

    def store(self, context: CacheContext, value: CacheValue, before_waiting: Callable[[], Awaitable[Any]]) -> Awaitable[bool]:
        """Hand a result to every provider that stores; does not wait for them, but for room in their queues if need be.

        *before_waiting* is awaited first then, or when copying takes a while. False when the result stays in this process: it is no
        plain data, it was changed, or there was no room in time.
        """
        return self._hand_over(context, value, self._writable, before_waiting)

    async def _hand_over(
        self,
        context: CacheContext,
        value: CacheValue,
        clients: Iterable[ProviderClient],
        before_waiting: Callable[[], Awaitable[Any]] | None = None,
    ) -> bool:
        if not clients:
            return False
        plain = copy_plain(value.outputs) if value.ui is None else None
        if plain is not None and plain[1] <= COPY_INLINE_BYTES:
            job = StoreJob(context, CacheValue(plain[0], None), plain[1])
        else:
            try:
                handed = examine([value.outputs, value.ui], self._book)
            except NotPlain as reason:
                log.debug("The result of node %s (%s) is not shared: %s", context.node_id, context.class_type, reason)
                return False
            job = await self._copied(context, handed, clients, before_waiting)
        is_taken = False
        for client in clients:
            if client.offer(job) or await self._offer_later(client, job, before_waiting):
                is_taken = True
                continue
            client.give_up()
            log.warning(
                "Cache provider %s is too slow: the result of node %s (%s) is not stored", client.name, context.node_id, context.class_type
            )
        return is_taken

    async def _copied(
        self, context: CacheContext, handed: Handed, clients: Iterable[ProviderClient], before_waiting: Callable[[], Awaitable[Any]] | None
    ) -> StoreJob:
        if handed.bytes > COPY_INLINE_BYTES:
            if before_waiting is not None:
                await before_waiting()
            for client in clients:
                await self._make_room(client, handed.bytes)
            outputs, ui = await take_copy(handed)
        else:
            outputs, ui = handed.rebuild()
        return StoreJob(context, CacheValue(outputs, ui), handed.bytes)

    async def _offer_later(self, client: ProviderClient, job: StoreJob, before_waiting: Callable[[], Awaitable[Any]] | None) -> bool:
        """Offer *job* once more, when *client* has room for it or no time is left."""
        if before_waiting is not None:
            await before_waiting()
        await self._make_room(client, job.size_bytes)
        return client.offer(job)

    async def _make_room(self, client: ProviderClient, size_bytes: int) -> None:
        if not client.has_room(size_bytes):
            with contextlib.suppress(TimeoutError):
                await self._within_budget(client.wait_for_room(size_bytes, self.remaining_s), self.remaining_s)

    async def _ask_in_order(self, wanted: dict[str, tuple[CacheContext, IsSound]]) -> None:
        """Ask one provider after the other for what those before it did not have; a hit fills those."""
        missed: list[ProviderClient] = []
        for client in self._clients:
            if not wanted:
                return
            timeout_s = min(self._limits.lookup_timeout_s, self.remaining_s - GRACE_S)
            if timeout_s <= 0:
                self._note_out_of_time()
                return
            began_s = self._clock()
            values = await client.lookup_all([context for context, _ in wanted.values()], timeout_s)
            self._waited_s += self._clock() - began_s
            for (context, is_sound), value in zip(list(wanted.values()), values):
                if value is not None and _accepts(is_sound, value, client, context):
                    self._answers[context.cache_key_hash] = value
                    del wanted[context.cache_key_hash]
                    await self._hand_over(context, value, [one for one in missed if one in self._writable])
            missed.append(client)

    async def _tell_all(self, event: str) -> None:
        # Always told, but waited for only while there is time.
        timeout_s = max(0.01, min(self._limits.lookup_timeout_s, self.remaining_s))
        calls = [client.notify(event, self._prompt_id, timeout_s) for client in self._clients]
        began_s = self._clock()
        await (calls[0] if len(calls) == 1 else asyncio.gather(*calls))
        self._waited_s += self._clock() - began_s

    async def _within_budget(self, awaitable: Awaitable[Any], timeout_s: float) -> Any:
        began_s = self._clock()
        task = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait({task}, timeout=min(timeout_s, self.remaining_s))
            if not task.done():
                raise TimeoutError
            return task.result()
        finally:
            task.cancel()
            self._waited_s += self._clock() - began_s

    def _note_out_of_time(self) -> None:
        if not self._is_out_of_time:
            self._is_out_of_time = True
            log.warning("Prompt %s waited %.1f s for cache providers; it goes on without them", self._prompt_id, self._waited_s)


def _accepts(is_sound: IsSound, value: CacheValue, client: ProviderClient, context: CacheContext) -> bool:
    try:
        if is_sound(value):
            return True
    except Exception as error:
        log.debug("The value cannot even be looked at: %r", error)
    log.warning(
        "Cache provider %s returned a value for node %s (%s) that such a node cannot have; it is ignored",
        client.name,
        context.node_id,
        context.class_type,
    )
    return False
