"""The four requests about cache providers. Each stands alone, and they fit in any order; none changes a provider's keys."""

import libcst as cst

from patchset import anchors
from patchset.series import provider_fixes
from patchset.series.definition import Series, Version
from patchset.statement_transforms import InsertInFinally, RemoveStatement, RemoveUnused, ReplaceStatement
from patchset.transforms import AddImport, InsertAfter, Transform

CACHING, EXECUTION, MAIN = "comfy_execution/caching.py", "execution.py", "main.py"
CACHE, PROMPT = "BasicCache", "PromptExecutor.execute_async"
MODULES, TESTS = "patchset/modules/requests", "tests-unit/execution_test"
STORE, LOOKUP = f"{CACHE}._notify_providers_store", f"{CACHE}._check_providers_lookup"
LOOPS = (f"{MODULES}/provider_loops.py", "comfy_execution/provider_loops.py")
FAKES = provider_fixes.FAKES

CREATE_TASK = """
if provider.should_cache(context, cache_value):
    task = asyncio.create_task(self._safe_provider_store(provider, context, cache_value))
    self._pending_store_tasks.add(task)
    task.add_done_callback(self._pending_store_tasks.discard)
"""
HAND_OVER = """
if provider.should_cache(context, cache_value):
    store_result(provider, context, cache_value)
"""
NO_CONTEXT = "if context is None:\n    return\n"
IMPORT_STORES = "from comfy_execution.provider_stores import store_result\n"
CALL_LOOKUP, LOOK_UP = "result = await provider.on_lookup(context)", "result = await look_up(provider, context)\n"
FAILED_LOOKUP = "if context is None:\n    return None\n"
IMPORT_DEADLINE = "from comfy_execution.provider_deadline import look_up\n"
START = 'self._notify_prompt_lifecycle("start", prompt_id)\n'
CHECK = "external_result = await self._check_providers_lookup(node_id, cache_key)\n"
CHECK_ONCE = "external_result = None if cache_key in self.asked else await self._check_providers_lookup(node_id, cache_key)\n"
ASK_ALL = """
cache_results = await asyncio.gather(
    *(self.caches.outputs.get(node_id) for node_id in node_ids)
)
"""
ASK_NEEDED = """
await fetch_needed(self.caches.outputs, execute_outputs)
cache_results = [self.caches.outputs.get_local(node_id) for node_id in node_ids]
"""
LINK_LAZY = """
for i in required_inputs:
    execution_list.make_input_strong_link(unique_id, i)
"""
ASK_LAZY = "await fetch_needed(caches.outputs, [inputs[i][0] for i in required_inputs if is_link(inputs.get(i))])\n"
ADD_EXPANDED = """
for node_id in new_output_ids:
    execution_list.add_node(node_id)
    execution_list.cache_link(node_id, unique_id)
"""
ASK_EXPANDED = """
# What a provider has need not run, nor what is above it.
wanted = dict.fromkeys([*new_output_ids, *(link[0] for link in new_output_links)])
await asyncio.gather(*(caches.outputs.get(node_id) for node_id in wanted))
"""
PLAIN_SUBCACHE, SUBCACHE = (
    "subcache = BasicCache(self.key_class)",
    "subcache = BasicCache(self.key_class, enable_providers=self.enable_providers)\n",
)


def _calls_on_store(function: cst.FunctionDef) -> bool:
    return anchors.calls(function, "on_store")


def stores(version: Version) -> list[Transform]:
    """Stores are handed to the provider's own loop."""
    return [
        RemoveStatement(CACHING, f"{CACHE}.__init__", "self._pending_store_tasks: set = set()", STORE, IMPORT_STORES),
        ReplaceStatement(CACHING, STORE, NO_CONTEXT, NO_CONTEXT + IMPORT_STORES),
        ReplaceStatement(CACHING, STORE, CREATE_TASK, HAND_OVER),
        RemoveUnused(CACHING, f"{CACHE}._safe_provider_store", STORE, IMPORT_STORES, _calls_on_store),
        RemoveUnused(CACHING, "import asyncio", STORE, IMPORT_STORES),
        ReplaceStatement(
            "comfy_api/latest/_caching.py",
            "CacheProvider.on_store",
            '"""Called after local store. Dispatched via asyncio.create_task."""',
            '"""Called after local store, with a copy, on an event loop that the provider keeps. Prompts do not wait for it."""\n',
        ),
        AddImport(MAIN, "comfy_execution.provider_stores", "finish_stores", "protocol", "BinaryEventTypes"),
        InsertInFinally(MAIN, "finish_stores()\n"),
    ]


def deadline(version: Version) -> list[Transform]:
    """Lookups have a deadline, prompts a budget, failing providers a pause."""
    return [
        ReplaceStatement(CACHING, LOOKUP, FAILED_LOOKUP, FAILED_LOOKUP + IMPORT_DEADLINE),
        ReplaceStatement(CACHING, LOOKUP, CALL_LOOKUP, LOOK_UP),
        AddImport(EXECUTION, "comfy_execution.provider_deadline", "begin_prompt", "comfy_execution.graph_utils", "is_link"),
        ReplaceStatement(EXECUTION, PROMPT, START, "begin_prompt()\n" + START),
    ]


def demand(version: Version) -> list[Transform]:
    """Lookups start at the outputs, and no key is asked for twice in a prompt."""
    return [
        InsertAfter(CACHING, f"{CACHE}.set_prompt", "self.initialized = True", "self.asked = set()\n"),
        ReplaceStatement(CACHING, f"{CACHE}._get_immediate", CHECK, CHECK_ONCE + "self.asked.add(cache_key)\n"),
        AddImport(EXECUTION, "comfy_execution.provider_demand", "fetch_needed", "comfy_execution.graph_utils", "is_link"),
        ReplaceStatement(EXECUTION, PROMPT, ASK_ALL, ASK_NEEDED),
        ReplaceStatement(EXECUTION, "execute", LINK_LAZY, ASK_LAZY + LINK_LAZY.lstrip()),
    ]


def subgraphs(version: Version) -> list[Transform]:
    """The caches of expanded graphs have providers, and what a node expands into is asked for before it runs."""
    return [
        ReplaceStatement(CACHING, f"{CACHE}._ensure_subcache", PLAIN_SUBCACHE, SUBCACHE),
        ReplaceStatement(EXECUTION, "execute", ADD_EXPANDED, ASK_EXPANDED.lstrip() + ADD_EXPANDED.lstrip()),
    ]


STORES = Series(
    name="provider-stores",
    subject="Finish cache providers' stores after the prompt",
    message="""
on_store runs in tasks of the prompt's event loop, and execute() is asyncio.run(...): what is not stored when the prompt ends is
cancelled. Of 200 results whose store takes 50 ms none arrives when the prompt ends at once.

on_store now runs on an event loop that the provider keeps, on a thread of its own, with a copy of the result. At shutdown ComfyUI
waits up to 10 s for stores on their way.
""",
    edits=stores,
    rivals=("provider-fixes",),
    files=(LOOPS, (f"{MODULES}/provider_stores.py", "comfy_execution/provider_stores.py")),
    tests=(FAKES, (f"{MODULES}/provider_stores_test.py", f"{TESTS}/provider_stores_test.py")),
)
DEADLINE = Series(
    name="provider-deadline",
    subject="Bound how long cache providers hold up a prompt",
    message="""
A provider that hangs holds up the prompt for as long as it hangs, at every lookup.

A lookup now has 3 s, and all of one prompt together 5 s. It runs on the provider's own thread, so that one that blocks it is
covered too. After three failures in a row a provider is not asked for 15 s.
""",
    edits=deadline,
    rivals=("provider-fixes",),
    files=(LOOPS, (f"{MODULES}/provider_deadline.py", "comfy_execution/provider_deadline.py")),
    tests=(FAKES, (f"{MODULES}/provider_deadline_test.py", f"{TESTS}/provider_deadline_test.py")),
)
DEMAND = Series(
    name="provider-demand",
    subject="Ask cache providers only for what the outputs need",
    message="""
At the start of a prompt every node's result is asked for, also above results that are found, and each that was missing is asked for
again when its node runs, one after the other.

Lookups now start at the outputs and go up in waves that end at what is found. No key is asked for twice in a prompt.
""",
    edits=demand,
    rivals=("provider-fixes",),
    files=(
        ("comfy_execution/providers/waves.py", "comfy_execution/provider_waves.py"),
        (f"{MODULES}/provider_demand.py", "comfy_execution/provider_demand.py"),
    ),
    tests=(FAKES, (f"{MODULES}/provider_demand_test.py", f"{TESTS}/provider_demand_test.py")),
)
SUBGRAPHS = Series(
    name="provider-subgraphs",
    subject="Let nodes of expanded graphs take part in cache providers",
    message="""
The caches of graphs that nodes expand into are made without providers, so their nodes are neither stored nor asked for.

They now have the providers of the cache above. What a node expands into is asked for before anything of it runs.
""",
    edits=subgraphs,
    tests=(FAKES, (f"{MODULES}/provider_subgraphs_test.py", f"{TESTS}/provider_subgraphs_test.py")),
)
