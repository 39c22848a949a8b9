"""Executing prompts, under the names that node packs import and replace; the work is done in ``comfy_execution``.

This module is also the engine that ``comfy_execution`` calls back: functions are looked up here when they are needed, so that a
pack that replaces ``execute``, ``get_input_data``, ``get_output_data`` or ``_async_map_node_over_list`` is heard.
"""

import asyncio
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from app.running.surroundings import OUT_OF_MEMORY_HINT, SHAPE_HINT, ServerSurroundings, StopRequests
from comfy.cli_args import args
from comfy.interruption import interrupt_flag
from comfy.progress_bar import set_progress_bar_global_hook
from comfy.ram_model_cache.null import NullRamModelCache
from comfy_execution.executor import changed as executor_changed
from comfy_execution.executor import inputs as input_data
from comfy_execution.executor.caches import CacheEntry, CacheSet, CacheType
from comfy_execution.executor.engine import ExecutionResult
from comfy_execution.executor.errors import DuplicateNodeError, format_value, full_type_name
from comfy_execution.executor.hop import to_loop, travel
from comfy_execution.executor.inference_scope import inference_scope
from comfy_execution.executor.isolation import Isolation, is_own_end, log_failure
from comfy_execution.executor.node import NodePass, PromptState
from comfy_execution.executor.node_call import MappedCall, resolve_map_node_over_list_results, task_result, unfinished_calls
from comfy_execution.executor.reports import PromptReports
from comfy_execution.executor.results import get_output_from_returns, merge_values
from comfy_execution.executor.run import PromptRun
from comfy_execution.executor.threads import CLOSE_TIMEOUT_S, STUCK_TIMEOUT_S, ExecutionThreads, WorkerLost
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder, is_link
from comfy_execution.nodes_graph.declared_inputs import DeclaredInputs, get_input_info
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.nodes_graph.execution_list import ExecutionList
from comfy_execution.nodes_graph.registered_classes import node_class, registered_classes
from comfy_execution.progress_board.state import get_progress_state
from comfy_execution.progress_board.web import ProgressHook
from comfy_execution.prompt_checks import walk as prompt_validation
from comfy_execution.prompt_files.known_folders import FolderNames, server_roots
from comfy_execution.prompt_files.prompt_files import PromptFiles
from comfy_execution.prompts import queue as prompt_queue
from comfy_execution.prompts.queue import MAXIMUM_HISTORY_SIZE, ExecutionStatus
from comfy_execution.providers.cache import ExecutorHooks, ProviderCache
from comfy_execution.providers.runtime import PromptProviders, ProviderRuntime
from comfy_execution.server_protocol import ExecutionServer
from comfy_execution.shared_keys.keys import HermeticKeys
from comfy_execution.shared_keys.world import HermeticWorld, make_world

__all__ = [
    "MAXIMUM_HISTORY_SIZE",
    "OUT_OF_MEMORY_HINT",
    "SENSITIVE_EXTRA_DATA_KEYS",
    "SHAPE_HINT",
    "CacheEntry",
    "CacheSet",
    "CacheType",
    "DuplicateNodeError",
    "DynamicPrompt",
    "ExecutionBlocker",
    "ExecutionList",
    "ExecutionResult",
    "ExecutionStatus",
    "GraphBuilder",
    "IsChangedCache",
    "PromptExecutor",
    "PromptQueue",
    "before_call",
    "error_hint",
    "execute",
    "format_value",
    "full_type_name",
    "get_input_data",
    "get_input_info",
    "get_output_data",
    "get_output_from_returns",
    "get_progress_state",
    "inference_scope",
    "install_progress_hook",
    "is_interrupt",
    "is_link",
    "map_node_over_list",
    "may_move_to_worker",
    "merge_result_data",
    "node_class",
    "resolve_map_node_over_list_results",
    "validate_prompt",
]

log = logging.getLogger(__name__)

# Moved out of ``extra_data`` before a prompt is queued; nodes get them through hidden inputs only.
SENSITIVE_EXTRA_DATA_KEYS = ("auth_token_comfy_org", "api_key_comfy_org")

# Packs look for this name to find out that functions are mapped asynchronously.
map_node_over_list = None

_engine: Any = sys.modules[__name__]

# The program around the executor; nothing here is replaced by packs.
_surroundings = ServerSurroundings()
before_call = _surroundings.before_call
is_interrupt = _surroundings.is_interrupt
error_hint = _surroundings.error_hint


def install_progress_hook(server: ExecutionServer) -> None:
    """Let ``comfy.utils.ProgressBar`` report to the owner of the running prompt, and be a cancellation point."""
    set_progress_bar_global_hook(ProgressHook(server, before_call))


get_input_data = input_data.get_input_data
merge_result_data = merge_values


async def _async_map_node_over_list(
    prompt_id: str,
    unique_id: str,
    obj: Any,
    input_data_all: Mapping[str, Any],
    func: str,
    allow_interrupt: bool = False,
    execution_block_cb: Any = None,
    pre_execute_cb: Any = None,
    v3_data: Any = None,
) -> list:
    call = MappedCall(
        before_call,
        prompt_id,
        unique_id,
        obj,
        func,
        allow_interrupt=allow_interrupt,
        execution_block_cb=execution_block_cb,
        pre_execute_cb=pre_execute_cb,
        v3_data=v3_data,
    )
    return await call.run(input_data_all)


async def get_output_data(
    prompt_id: str,
    unique_id: str,
    obj: Any,
    input_data_all: Mapping[str, Any],
    execution_block_cb: Any = None,
    pre_execute_cb: Any = None,
    v3_data: Any = None,
) -> tuple[Any, Any, bool, bool]:
    """Call a node's function over its inputs: ``(outputs, ui, was it expanded, are calls unfinished)``.

    Unfinished calls stand among the outputs as tasks.
    """
    returned = await _engine._async_map_node_over_list(
        prompt_id,
        unique_id,
        obj,
        input_data_all,
        obj.FUNCTION,
        allow_interrupt=True,
        execution_block_cb=execution_block_cb,
        pre_execute_cb=pre_execute_cb,
        v3_data=v3_data,
    )
    if unfinished_calls(returned):
        return returned, {}, False, True
    return *get_output_from_returns([task_result(call) for call in returned], obj), False


async def execute(
    server: ExecutionServer,
    dynprompt: DynamicPrompt,
    caches: CacheSet,
    current_item: str,
    extra_data: Mapping[str, Any],
    executed: set[str],
    prompt_id: str,
    execution_list: ExecutionList,
    pending_subgraph_results: dict,
    pending_async_nodes: dict,
    ui_outputs: dict,
) -> tuple[ExecutionResult, dict | None, BaseException | None]:
    """One pass over node *current_item*: ``(how it ended, fields of the error message, the error)``."""
    state = PromptState(
        server,
        dynprompt,
        caches,
        extra_data,
        executed,
        prompt_id,
        execution_list,
        pending_subgraph_results,
        pending_async_nodes,
        ui_outputs,
    )
    return await NodePass(_engine, _surroundings, state, current_item).run()


_AWAITED_BY_PASSES = (execute, get_output_data, _async_map_node_over_list)


def may_move_to_worker() -> bool:
    """Whether passes over nodes may run whole on the worker thread.

    Not when a pack replaced a coroutine function that passes go through. Cache providers do not matter here: see ``ProviderCache``.
    """
    return (execute, get_output_data, _async_map_node_over_list) == _AWAITED_BY_PASSES


async def validate_prompt(prompt_id: str, prompt: dict, partial_execution_list: Iterable[str] | None) -> tuple[bool, Any, list, dict]:
    """Check a prompt before it is queued: ``(is it good, error or None, output ids to run, errors by node id)``."""
    return await prompt_validation.validate_prompt(prompt_id, prompt, partial_execution_list, registered_classes())


class IsChangedCache(executor_changed.IsChangedCache):
    """What nodes answer to ``IS_CHANGED`` in one prompt; ``await get(node_id)``."""

    def __init__(self, prompt_id: str, dynprompt: DynamicPrompt, outputs_cache: Any) -> None:
        super().__init__(_engine, prompt_id, dynprompt, outputs_cache, is_interrupt)


class PromptQueue(prompt_queue.PromptQueue):
    """The queue of prompts and their history."""

    def __init__(self, server: ExecutionServer) -> None:
        super().__init__(
            server, interrupt=lambda: _surroundings.set_interrupt(True), withdraw_interrupt=functools.partial(interrupt_flag.set, False)
        )


class PromptExecutor(PromptReports):
    """Runs prompts one after the other and keeps their results.

    ``execute`` blocks and may be called from any one thread; ``execute_async`` is awaited on an event loop. Results stay in
    ``caches`` until ``reset()``. After a run, ``success``, ``status_messages`` and ``history_result`` describe it.
    """

    def __init__(
        self,
        server: ExecutionServer,
        cache_type: CacheType | bool | None = False,
        cache_args: Mapping[str, float] | None = None,
        threads: ExecutionThreads | None = None,
        providers: ProviderRuntime | None = None,
        world: HermeticWorld | None = None,
        model_cache: Any = None,
        forget_patches: Callable[[], object] = bool,
        read_ahead: Any = None,
    ) -> None:
        """*cache_args* may hold ``lru`` (entries), ``ram`` and ``ram_inactive`` (GB). *threads* start at the first prompt.

        *providers* guards the external caches, *world* knows what results depend on besides the prompt. *model_cache*
        (``RamModelCache``, if any) is told of prompts and safe points between nodes; *forget_patches* lets go what was kept of patched
        models. *read_ahead* (``ReadAhead``, if any) reads models before their loaders run.
        """
        super().__init__(server, is_interrupt)
        self.cache_type = cache_type if isinstance(cache_type, CacheType) else CacheType.CLASSIC
        self.cache_args = dict(cache_args or {})
        self.threads = threads or ExecutionThreads()
        self.providers = providers or ProviderRuntime()
        self._world = world
        self._model_cache = NullRamModelCache() if model_cache is None else model_cache
        self._folder_names = FolderNames()
        self._forget_patches = forget_patches
        self._read_ahead = read_ahead
        self._idle = threading.Event()
        self._idle.set()
        self.reset()

    def reset(self) -> None:
        """Forget all results and node instances."""
        self.caches = CacheSet(cache_type=self.cache_type, cache_args=self.cache_args)
        self.forget_reports()

    def clear_models(self, why: str) -> None:
        """Let the models go that are kept in RAM, and what is kept of patched ones."""
        if self._read_ahead is not None:
            self._read_ahead.pause(why)
        self._model_cache.clear(why)
        self._forget_patches()

    def close(self) -> None:
        """Interrupt the prompt that runs, if any, and end the threads. They start again with the next prompt.

        Not for the execution loop's own thread; waits up to ``CLOSE_TIMEOUT_S`` for a node that does not stop.
        """
        if self._read_ahead is not None:
            self._read_ahead.close()
        is_idle = self._idle.is_set()
        if not is_idle:
            _surroundings.set_interrupt(True)
            is_idle = self._idle.wait(CLOSE_TIMEOUT_S)
        self.providers.close()
        self.threads.close(CLOSE_TIMEOUT_S if is_idle else STUCK_TIMEOUT_S)

    def execute(
        self, prompt: dict, prompt_id: str, extra_data: Mapping[str, Any] | None = None, execute_outputs: Iterable[str] = ()
    ) -> None:
        """Run *prompt* for the outputs *execute_outputs* and block until it ended; errors are reported, not raised.

        Raises ``WorkerLost`` when the thread of the execution loop was ended from outside meanwhile; nobody else reports that.
        """
        try:
            self.threads.run(self.execute_async(prompt, prompt_id, extra_data, execute_outputs))
        except WorkerLost:
            self._idle.set()
            raise

    async def execute_async(
        self, prompt: dict, prompt_id: str, extra_data: Mapping[str, Any] | None = None, execute_outputs: Iterable[str] = ()
    ) -> None:
        """The same, awaited on an event loop."""
        extra_data = extra_data or {}
        self._idle.clear()
        self.forget_reports(success=False)
        run, providers = None, None
        try:
            self._begin(prompt_id, extra_data)
            self._model_cache.begin_prompt(prompt_id)
            providers = await self.providers.begin_prompt(prompt_id)
            run = self._make_run(providers)
            self.success = await travel(run.run(prompt, prompt_id, extra_data, execute_outputs))
        except BaseException as error:
            self.success = False
            self._report_failure(prompt_id, prompt, execute_outputs, error)
            if is_own_end(error, asyncio.current_task()):
                raise
        finally:
            self._idle.set()
            self._end(prompt_id, {} if run is None else run.ui_outputs)
            if providers is not None:
                await providers.end()

    def _begin(self, prompt_id: str, extra_data: Mapping[str, Any]) -> None:
        _surroundings.choose_previews(extra_data.get("preview_method"))
        is_running = getattr(self._queue(), "is_running", None)
        if is_running is None or not is_running(prompt_id):
            # The queue does this when it gives a prompt out: later, and a request to stop this prompt would be lost.
            _surroundings.set_interrupt(False)
        self.server.client_id = extra_data.get("client_id")
        self.server.last_prompt_id = prompt_id
        self.add_message("execution_start", {"prompt_id": prompt_id}, broadcast=False)

    def _make_run(self, providers: PromptProviders | None) -> PromptRun:
        return PromptRun(
            _engine,
            _surroundings,
            self.server,
            self.caches,
            self.threads.worker,
            _engine.IsChangedCache,
            self,
            None if providers is None else functools.partial(self._open_external, providers),
            self._model_cache.safe_point,
            StopRequests(self._queue()),
            self._open_files,
            self._read_ahead,
        )

    def _report_failure(self, prompt_id: str, prompt: Mapping, execute_outputs: Iterable[str], error: BaseException) -> None:
        if not is_interrupt(error):
            log_failure(log, f"Prompt {prompt_id} could not be run", error)
        with Isolation(f"Reporting the failure of prompt {prompt_id}"):
            self.handle_execution_error(prompt_id, prompt, [], set(), {"node_id": next(iter(execute_outputs), "")}, error)

    def _end(self, prompt_id: str, ui_outputs: Mapping[str, Mapping[str, Any]]) -> None:
        self.keep_outputs(ui_outputs)
        if self._read_ahead is not None:
            with Isolation("Telling that nothing is read ahead any more"):
                self._read_ahead.end()
        with Isolation("Ending the prompt at the model cache"):
            if receipts := self._model_cache.end_prompt(prompt_id):
                self.history_result["models"] = receipts
        self.server.last_node_id = None
        with Isolation("Unloading models at the end of the prompt"):
            _surroundings.prompt_ended()

    def _queue(self) -> Any:
        """The queue that prompts come from, if any; packs may put another in its place."""
        return getattr(self.server, "prompt_queue", None)

    def _open_files(self, dynprompt: DynamicPrompt) -> PromptFiles:
        return PromptFiles(server_roots, self._folder_names, dynprompt, node_class)

    def _open_external(self, providers: PromptProviders, dynprompt: DynamicPrompt, outputs: Any) -> ProviderCache | None:
        try:
            self._world = self._world or make_world(_surroundings.deployment, args.cache_namespace)
        except Exception:
            log.warning("What results depend on outside prompts cannot be found out, so they are not shared", exc_info=True)
            return None
        keys = HermeticKeys(self._world, dynprompt, outputs, node_class)
        hooks = ExecutorHooks(node_class, DeclaredInputs().find, CacheEntry, functools.partial(to_loop, self.threads.worker))
        return ProviderCache(providers, dynprompt, outputs, keys, hooks)
