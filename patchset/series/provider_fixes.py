"""Series ``provider-fixes``: no store lost, no prompt held up, lookups from the outputs backwards."""

from collections.abc import Callable

import libcst as cst

from patchset import anchors
from patchset.series.definition import Series, Version
from patchset.statement_transforms import InsertInFinally, RemoveUnused, ReplaceStatement
from patchset.transforms import AddImport, InsertAfter, Transform

CACHING, EXECUTION, MAIN = "comfy_execution/caching.py", "execution.py", "main.py"
INTERFACE, API = "comfy_api/latest/_caching.py", "comfy_api/latest/__init__.py"
CACHE, EXECUTOR = "BasicCache", "PromptExecutor"
EXTERNAL = "self.external = None"
PROVIDERS = "self.cache_providers = ExecutorProviders(CacheEntry)"

STORE_NOW = """
if self.external is not None:
    await self.external.store(node_id, value)
"""
ASK_OUTPUTS = """
await prefetch(self.caches.outputs, execute_outputs)
cache_results = [self.caches.outputs.get_local(node_id) for node_id in node_ids]
"""
ASK_ALL = """
cache_results = await asyncio.gather(
    *(self.caches.outputs.get(node_id) for node_id in node_ids)
)
"""
LINK_LAZY = """
for i in required_inputs:
    execution_list.make_input_strong_link(unique_id, i)
"""
ASK_LAZY = "await prefetch(caches.outputs, [inputs[i][0] for i in required_inputs if is_link(inputs.get(i))])\n"
ADD_EXPANDED = """
for node_id in new_output_ids:
    execution_list.add_node(node_id)
    execution_list.cache_link(node_id, unique_id)
"""
ASK_EXPANDED = "await prefetch(caches.outputs, [*new_output_ids, *(link[0] for link in new_output_links)])\n"
API_TYPES = "from ._caching import CacheProvider, CacheContext, CacheValue"
GUARDS = f"""{API_TYPES}
# Providers need no thread, deadlines or copies of their own.
guards_providers = True
"""
ABOUT_PROVIDERS = '''
"""Abstract base class for external cache providers.
    Exceptions from provider methods are caught by the caller and never break execution.
    """
'''
ABOUT_THEIR_LOOP = '''
"""Abstract base class for external cache providers.
    Exceptions from provider methods are caught by the caller and never break execution.
    All methods run on a thread of the provider's own, on an event loop that lives as long as it is registered.
    """
'''

MESSAGE = """
Results on their way to a cache provider are lost when the prompt ends first, because they are stored by tasks of its event loop. A
provider that hangs holds up the prompt for as long as it hangs. Every node's result is asked for at the start and again when the node
runs, one node after the other, also what lies above results that are found. Nodes of expanded subgraphs take no part.

Each provider now has a thread with an event loop that lives as long as the server (comfy_execution/providers/runtime.py). Lookups have a
deadline and every prompt a budget of 5 s; stores wait in a queue that outlives the prompt. Lookups start at the outputs and go up in
waves that end at what is found, and no key is asked for twice.
"""


def edits(version: Version) -> list[Transform]:
    """The same places in every supported version."""
    return [
        ReplaceStatement(CACHING, f"{CACHE}.__init__", "self._pending_store_tasks: set = set()", EXTERNAL),
        ReplaceStatement(CACHING, f"{CACHE}._set_immediate", "await self._notify_providers_store(node_id, cache_key, value)", STORE_NOW),
        ReplaceStatement(
            CACHING,
            f"{CACHE}._get_immediate",
            "external_result = await self._check_providers_lookup(node_id, cache_key)",
            "external_result = None if self.external is None else await self.external.lookup(node_id)\n",
        ),
        *(
            _remove(f"{CACHE}.{name}", mark)
            for name, mark in (
                ("_notify_providers_store", "_safe_provider_store"),
                ("_safe_provider_store", "on_store"),
                ("_check_providers_lookup", "on_lookup"),
                ("_is_external_cacheable_value", "hasattr"),
                ("_get_class_type", "get_node"),
                ("_build_context", "_serialize_cache_key"),
            )
        ),
        ReplaceStatement(
            CACHING,
            f"{CACHE}._ensure_subcache",
            "await subcache.set_prompt(self.dynprompt, children_ids, self.is_changed_cache)",
            "subcache.external = self.external\nawait subcache.set_prompt(self.dynprompt, children_ids, self.is_changed_cache)\n",
        ),
        RemoveUnused(CACHING, "import asyncio", f"{CACHE}.__init__", EXTERNAL),
        ReplaceStatement(
            EXECUTION,
            "",
            "from comfy_execution.cache_provider import _has_cache_providers, _get_cache_providers, _logger as _cache_logger",
            "from comfy_execution.provider_prompts import ExecutorProviders, prefetch\n",
        ),
        InsertAfter(EXECUTION, f"{EXECUTOR}.__init__", "self.server = server", PROVIDERS),
        RemoveUnused(EXECUTION, f"{EXECUTOR}._notify_prompt_lifecycle", f"{EXECUTOR}.__init__", PROVIDERS, _calls("on_prompt_end")),
        ReplaceStatement(
            EXECUTION,
            f"{EXECUTOR}.execute_async",
            'self._notify_prompt_lifecycle("start", prompt_id)',
            "await self.cache_providers.begin(prompt_id, self.caches.outputs)\n",
        ),
        ReplaceStatement(
            EXECUTION, f"{EXECUTOR}.execute_async", 'self._notify_prompt_lifecycle("end", prompt_id)', "await self.cache_providers.end()\n"
        ),
        ReplaceStatement(EXECUTION, f"{EXECUTOR}.execute_async", ASK_ALL, ASK_OUTPUTS),
        ReplaceStatement(EXECUTION, "execute", LINK_LAZY, ASK_LAZY + LINK_LAZY.lstrip()),
        ReplaceStatement(EXECUTION, "execute", ADD_EXPANDED, ASK_EXPANDED + ADD_EXPANDED.lstrip()),
        ReplaceStatement(INTERFACE, "CacheProvider", ABOUT_PROVIDERS, ABOUT_THEIR_LOOP),
        ReplaceStatement(
            INTERFACE,
            "CacheProvider.on_store",
            '"""Called after local store. Dispatched via asyncio.create_task."""',
            '"""Called with a copy of the result, also after the prompt has ended."""\n',
        ),
        ReplaceStatement(API, "ComfyAPI_latest.Caching", API_TYPES, GUARDS),
        AddImport(MAIN, "comfy_execution.provider_prompts", "close_providers", "protocol", "BinaryEventTypes"),
        InsertInFinally(MAIN, "close_providers()\n"),
    ]


def _remove(name: str, mark: str) -> RemoveUnused:
    """The removal of a method that is known by what it calls."""
    return RemoveUnused(CACHING, name, f"{CACHE}.__init__", EXTERNAL, _calls(mark))


def _calls(name: str) -> Callable[[cst.FunctionDef], bool]:
    """A test for functions whose body calls *name*."""

    def recognise(function: cst.FunctionDef) -> bool:
        return anchors.calls(function, name)

    return recognise


FAKES = ("tests-unit/patchset_test/provider_fakes.py", "tests-unit/execution_test/provider_fakes.py")
TESTED = ("breaker", "cache", "client", "runtime", "snapshot", "traits", "waves")

SERIES = Series(
    name="provider-fixes",
    subject="Lose no store, hold up no prompt for cache providers",
    message=MESSAGE,
    edits=edits,
    modules=(("comfy_execution/providers", "comfy_execution/providers"),),
    files=(
        ("comfy_execution/signatures.py", "comfy_execution/signatures.py"),
        ("patchset/modules/provider_prompts.py", "comfy_execution/provider_prompts.py"),
    ),
    tests=(
        ("tests-unit/execution_test/test_signatures.py", "tests-unit/execution_test/signatures_test.py"),
        *(
            (f"tests-unit/execution_test/providers/test_provider_{name}.py", f"tests-unit/execution_test/provider_{name}_test.py")
            for name in TESTED
        ),
        FAKES,
        ("patchset/modules/provider_prompts_test.py", "tests-unit/execution_test/provider_prompts_test.py"),
    ),
)
