"""The cache providers of one executor, as its cache of results sees them.

``ExecutorProviders`` lives as long as the executor. From the begin of a prompt to its end the cache reaches the providers through its
attribute ``external``; without providers that is None.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import nodes
from comfy_execution.caching import include_unique_id_in_input
from comfy_execution.graph import get_input_info
from comfy_execution.providers.cache import ExecutorHooks, ProviderCache
from comfy_execution.providers.client import ProviderLimits
from comfy_execution.providers.runtime import PromptProviders, ProviderRuntime
from comfy_execution.signatures import InputSignatures

_open: "WeakSet[ExecutorProviders]" = WeakSet()


class ExecutorProviders:
    """The registered providers, for one prompt at a time. ``begin`` and ``end`` are awaited by the coroutine that runs the prompt."""

    def __init__(self, make_entry: Callable[..., Any], limits: ProviderLimits | None = None) -> None:
        """*make_entry(ui=…, outputs=…)* makes what the cache of results keeps."""
        self._make_entry = make_entry
        self._runtime = ProviderRuntime(limits)
        self._prompt: PromptProviders | None = None
        self._outputs: Any = None
        _open.add(self)

    async def begin(self, prompt_id: str, outputs: Any) -> None:
        """Tell the providers of a prompt whose results *outputs* keeps."""
        self._prompt = await self._runtime.begin_prompt(prompt_id)
        if self._prompt is not None and getattr(outputs, "enable_providers", False):
            self._outputs = outputs
            outputs.external = PromptResults(self._prompt, outputs, self._make_entry)

    async def end(self) -> None:
        """Tell them that it has ended. Results that are not stored yet go on being stored."""
        prompt, self._prompt = self._prompt, None
        if self._outputs is not None:
            self._outputs.external = self._outputs = None
        if prompt is not None:
            await prompt.end()

    def close(self) -> None:
        """Wait, for a while, until everything is stored, and let go of the providers. Blocks."""
        self._runtime.close()


class PromptResults:
    """What a prompt's cache of results asks and tells the providers."""

    def __init__(self, providers: PromptProviders, outputs: Any, make_entry: Callable[..., Any]) -> None:
        self._providers = providers
        self._outputs = outputs
        self._make_entry = make_entry
        self._dynprompt: Any = None
        self._cache: ProviderCache
        self._keys: SignatureKeys
        self._declared: dict[Any, Any] = {}

    async def prefetch(self, node_ids: Iterable[str]) -> None:
        """Get into the cache what the results of *node_ids* need and providers have: nothing above a result that is found."""
        await self._bridge().prefetch(node_ids)

    def lookup(self, node_id: str) -> Awaitable[Any]:
        """The node's entry as a provider has it, or None; a node that was asked for before is not asked for again."""
        return self._bridge().lookup(node_id, None)

    def store(self, node_id: str, entry: Any) -> Awaitable[None]:
        """Hand an entry to the providers; does not wait for them."""
        return self._bridge().store(node_id, None, entry)

    def _bridge(self) -> ProviderCache:
        """Made when it is needed first: only then the cache serves the prompt."""
        if self._dynprompt is not self._outputs.dynprompt:
            self._dynprompt = self._outputs.dynprompt
            self._keys = SignatureKeys(self._dynprompt, self._outputs.is_changed_cache)
            local = SimpleNamespace(get_local=self._outputs.get_local, accept_external=self._outputs.set_local)
            hooks = ExecutorHooks(nodes.NODE_CLASS_MAPPINGS.__getitem__, self._find_input, self._make_entry, _stay)
            self._cache = ProviderCache(self._providers, self._dynprompt, local, self._keys, hooks)
        return self._cache

    def _find_input(self, class_def: Any, name: str, inputs: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """As the execution order sees it, which leaves lazy inputs alone and waits for all others."""
        if class_def not in self._declared:
            self._declared[class_def] = class_def.INPUT_TYPES()
        kind, section, options = get_input_info(class_def, name, self._declared[class_def])
        is_lazy = isinstance(options, dict) and options.get("lazy", False)
        return kind, section, {"lazy": is_lazy}


class SignatureKeys:
    """The providers' keys: hashes of what a node is and of all above it, each worked out once."""

    def __init__(self, dynprompt: Any, is_changed_cache: Any) -> None:
        self._dynprompt = dynprompt
        self._names_itself: dict[str, bool] = {}
        self._signatures = InputSignatures(self._node_at, is_changed_cache.get, self._covers_its_id, self._replaced_nodes)

    async def settle(self) -> None:
        """Nothing takes time once per process."""

    async def prepare(self, node_ids: Iterable[str]) -> None:
        """Work out the keys of *node_ids* and all above them."""
        await self._signatures.add(node_ids)

    def key(self, node_id: str) -> str | None:
        """The node's key; None while or because it has none."""
        signature = self._signatures.known(node_id)
        return signature if isinstance(signature, str) else None

    def _node_at(self, node_id: str) -> Any:
        return self._dynprompt.get_node(node_id) if self._dynprompt.has_node(node_id) else None

    def _replaced_nodes(self) -> Mapping[str, Any]:
        return getattr(self._dynprompt, "node_overrides", {})

    def _covers_its_id(self, node_id: str) -> bool:
        class_type = self._dynprompt.get_node(node_id)["class_type"]
        covers = self._names_itself.get(class_type)
        if covers is None:
            not_idempotent = getattr(nodes.NODE_CLASS_MAPPINGS[class_type], "NOT_IDEMPOTENT", False)
            covers = self._names_itself[class_type] = bool(not_idempotent) or include_unique_id_in_input(class_type)
        return covers


async def prefetch(outputs: Any, node_ids: Iterable[str]) -> None:
    """``PromptResults.prefetch`` of the cache *outputs*, if providers are in use."""
    external = getattr(outputs, "external", None)
    if external is not None:
        await external.prefetch(list(node_ids))


def close_providers() -> None:
    """At the end of the process: ``close`` for all executors. Blocks."""
    for providers in list(_open):
        providers.close()


async def _stay() -> None:
    """A prompt runs on its event loop throughout."""
