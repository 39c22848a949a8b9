"""The bridge between a prompt's cache of results and the cache providers: which nodes take part, under which keys, and when."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from comfy_execution.cache_provider import CacheContext, CacheValue
from comfy_execution.graph_utils import is_link
from comfy_execution.providers.runtime import IsSound, PromptProviders
from comfy_execution.providers.traits import NodeTraits, names_files, read_traits
from comfy_execution.providers.waves import walk_in_waves

log = logging.getLogger(__name__)


class ExternalKeys(Protocol):
    """What gives nodes their keys outside this process."""

    def settle(self) -> Awaitable[None]:
        """Do what takes time once per process."""

    def prepare(self, node_ids: Iterable[str]) -> Awaitable[None]:
        """Do what takes time (reading files) for *node_ids* and all above them."""

    def key(self, node_id: str) -> str | None:
        """The node's key, 64 hexadecimal digits; None while or because it has none."""


@dataclass(frozen=True, slots=True)
class ExecutorHooks:
    """What the bridge needs from the executor.

    *node_class* gives node classes by type, *find_input(class, name, inputs)* an input's (type, section, options), *make_entry(ui=…,
    outputs=…)* what the cache of results keeps, *to_loop* is awaited before anything that waits.
    """

    node_class: Callable[[str], Any]
    find_input: Callable[[Any, str, Mapping[str, Any]], tuple[Any, Any, Any]]
    make_entry: Callable[..., Any]
    to_loop: Callable[[], Awaitable[Any]]


class ProviderCache:
    """The external cache of one prompt. Awaited by the coroutine that runs the prompt; nothing raises: where a key cannot be made, or
    anything else here fails, results are not shared, which one warning per prompt says.

    That coroutine may be on a thread without a loop; it stays there unless something must be waited for: a node that was asked for, or
    a small result, costs no trip.
    """

    def __init__(self, providers: PromptProviders, dynprompt: Any, outputs: Any, keys: ExternalKeys, hooks: ExecutorHooks) -> None:
        """*outputs*: the cache of results."""
        self._providers = providers
        self._dynprompt = dynprompt
        self._outputs = outputs
        self._keys = keys
        self._hooks = hooks
        self._traits: dict[str, NodeTraits] = {}
        self._traits_by_node: dict[str, NodeTraits] = {}
        self._accepts: dict[str, IsSound] = {}
        self._contexts: dict[str, CacheContext] = {}
        self._has_failed = False
        self.missing: set[str] = set()

    async def prefetch(self, targets: Iterable[str]) -> None:
        """Find out what need not run for the results of *targets*; what providers have of it is then in the local cache."""
        try:
            await self._prefetch(targets)
        except Exception:
            self._note_failure("looked up")

    async def lookup(self, node_id: str, key: Any) -> Any:
        """The entry of a node, which waves may or may not have asked for before; or None."""
        try:
            context = self._contexts.get(node_id)
            if context is None or not self._providers.has_asked(context.cache_key_hash):
                context = await self._ask(node_id)
            value = None if context is None else self._providers.answer(context.cache_key_hash)
            if value is not None:
                return self._entry(value)
            if context is not None:
                self.missing.add(node_id)
            return None
        except Exception:
            self._note_failure("looked up")
            return None

    async def store(self, node_id: str, key: Any, value: Any) -> None:
        """Hand the entry to the providers; does not wait for them."""
        try:
            traits = self._traits_by_node.get(node_id) or self._traits_of(node_id)
            if not traits.is_shareable or (value.ui is not None and names_files(value.ui)):
                return
            if traits.accepts(value) and (node_id in self._contexts or await self._is_keyed(node_id)):
                await self._providers.store(self._context(node_id), value, self._hooks.to_loop)
        except Exception:
            self._note_failure("stored")

    def _note_failure(self, what: str) -> None:
        if not self._has_failed:
            self._has_failed = True
            log.warning("Results of this prompt, one or more, cannot be %s outside this process; the prompt goes on", what, exc_info=True)

    async def _prefetch(self, targets: Iterable[str]) -> None:
        targets = [node_id for node_id in targets if self._dynprompt.has_node(node_id)]
        await self._hooks.to_loop()
        await self._keys.settle()
        await self._prepare(targets)
        values: dict[str, CacheValue] = {}

        async def ask(wave: list[str]) -> set[str]:
            contexts = [self._context(node_id) for node_id in wave]
            answers = await self._providers.lookup_all([(context, self._accepts[context.class_type]) for context in contexts])
            found = {node_id: value for node_id, value in zip(wave, answers) if value is not None}
            values.update(found)
            self.missing.update(node_id for node_id in wave if node_id not in found)
            return set(found)

        hits = await walk_in_waves(targets, self._parents, self._is_local, self._may_ask, ask)
        for node_id in hits:
            self._outputs.accept_external(node_id, self._entry(values[node_id]))

    async def _ask(self, node_id: str) -> CacheContext | None:
        """Ask for one node; None when it cannot be outside at all."""
        if node_id not in self._contexts and not self._may_ask(node_id):
            return None
        context = self._context(node_id)
        await self._hooks.to_loop()
        await self._providers.lookup_all([(context, self._accepts[context.class_type])])
        return context

    async def _is_keyed(self, node_id: str) -> bool:
        """Whether the node has a key, which is made now if nobody needed it so far."""
        if self._keys.key(node_id) is None:
            await self._hooks.to_loop()
            await self._prepare([node_id])
        return self._keys.key(node_id) is not None

    async def _prepare(self, targets: list[str]) -> None:
        try:
            await self._providers.wait_for(self._keys.prepare(targets))
        except TimeoutError:
            # Files that take longer to read: what depends on them has no key yet, and runs.
            await asyncio.sleep(0)

    def _context(self, node_id: str) -> CacheContext:
        context = self._contexts.get(node_id)
        if context is None:
            key = self._keys.key(node_id)
            assert key is not None, "only nodes with a key are asked for"
            context = CacheContext(node_id, self._dynprompt.get_node(node_id)["class_type"], key)
            self._contexts[node_id] = context
        return context

    def _may_ask(self, node_id: str) -> bool:
        return self._traits_of(node_id).is_shareable and self._keys.key(node_id) is not None

    def _is_local(self, node_id: str) -> bool:
        return not self._dynprompt.has_node(node_id) or self._outputs.get_local(node_id) is not None

    def _traits_of(self, node_id: str) -> NodeTraits:
        traits = self._traits_by_node.get(node_id)
        if traits is None:
            class_type = self._dynprompt.get_node(node_id)["class_type"]
            traits = self._traits.get(class_type)
            if traits is None:
                traits = self._traits[class_type] = read_traits(self._hooks.node_class(class_type))
                self._accepts[class_type] = traits.accepts
            self._traits_by_node[node_id] = traits
        return traits

    def _parents(self, node_id: str) -> list[str]:
        """The nodes that must run before this one can; those at lazy inputs are not known to be needed yet."""
        node = self._dynprompt.get_node(node_id)
        inputs = node["inputs"]
        links = [(name, value[0]) for name, value in inputs.items() if isinstance(value, list) and is_link(value)]
        if not links:
            return []
        class_def, find = self._hooks.node_class(node["class_type"]), self._hooks.find_input
        return [parent for name, parent in links if not _waits(find(class_def, name, inputs)[2] or {})]

    def _entry(self, value: CacheValue) -> Any:
        return self._hooks.make_entry(ui=value.ui, outputs=[list(items) for items in value.outputs])


def _waits(options: dict[str, Any]) -> bool:
    return bool(options.get("lazy") or options.get("rawLink"))
