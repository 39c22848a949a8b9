"""Running one prompt: which nodes are cached, which run next and where, and what clients hear of it."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from comfy_execution.executor.caches import CacheSet
from comfy_execution.executor.coming_models import cached_models
from comfy_execution.executor.engine import Engine, ExecutionResult, Surroundings
from comfy_execution.executor.foresight import Foresight
from comfy_execution.executor.hop import to_loop, to_worker
from comfy_execution.executor.node import PromptState
from comfy_execution.executor.node_call import CallSite, current_call_site
from comfy_execution.executor.threads import NodeWorker
from comfy_execution.local_caches.keys import FilesOfPrompt
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.nodes_graph.execution_list import ExecutionList
from comfy_execution.nodes_graph.loops import boundary_of, find_loops
from comfy_execution.nodes_graph.registered_classes import node_class
from comfy_execution.progress_board.state import add_progress_handler, get_progress_state, reset_progress_state
from comfy_execution.progress_board.web import WebUIProgressHandler
from comfy_execution.server_protocol import ExecutionServer

log = logging.getLogger(__name__)

INTERRUPT_POLL_S = 0.25
CANCEL_TIMEOUT_S = 5.0

Failure = tuple[dict, BaseException]


class Reporter(Protocol):
    """Who tells clients and the history about a prompt (the ``PromptExecutor``)."""

    def add_message(self, event: str, data: dict, broadcast: bool) -> None:
        """Note a message and send it to the prompt's owner, or to all."""

    def handle_execution_error(
        self, prompt_id: str, prompt: Mapping, current_outputs: Iterable[str], executed: set[str], error: dict, ex: BaseException
    ) -> None:
        """Report the error that ended a prompt."""


class Stops(Protocol):
    """Who knows which prompts were told to stop (the ``PromptExecutor``, from its queue)."""

    def asked(self, prompt_id: str) -> BaseException | None:
        """The interrupt, if the prompt was told to stop. Quick."""

    def conclude(self, prompt_id: str) -> BaseException | None:
        """The same, asked when all work is done: from then on nobody can stop the prompt."""


class _LaterOnLoop:
    """A function that the loop calls after a delay unless it is cancelled; made and cancelled on any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay_s: float, function: Callable[[], None]) -> None:
        self._is_cancelled = False
        self._function = function
        loop.call_soon_threadsafe(loop.call_later, delay_s, self._fire)

    def cancel(self) -> None:
        """Do not call the function any more."""
        self._is_cancelled = True

    def _fire(self) -> None:
        if not self._is_cancelled:
            self._function()


class PromptRun:
    """One prompt, from its first look at the caches to its last message. Used once, inside ``travel`` on the execution loop."""

    def __init__(
        self,
        engine: Engine,
        surroundings: Surroundings,
        server: ExecutionServer,
        caches: CacheSet,
        worker: NodeWorker,
        is_changed: Callable[[str, DynamicPrompt, Any], Any],
        reporter: Reporter,
        open_external: Callable[[DynamicPrompt, Any], Any] | None = None,
        between_nodes: Callable[[], None] | None = None,
        stops: "Stops | None" = None,
        open_files: Callable[[DynamicPrompt], FilesOfPrompt] | None = None,
        foresight: Foresight | None = None,
    ) -> None:
        """*open_external(dynprompt, outputs)* makes the ``ExternalCache`` of the prompt; None when results stay in this process, which
        it may answer as well.

        *between_nodes* is called after each pass over a node, when no node function runs; it must be quick. *stops* tells of requests to
        stop that no node noticed, or that a node swallowed. *open_files* knows which files the prompt's nodes name. *foresight* is told
        which nodes come.
        """
        self._engine = engine
        self._surroundings = surroundings
        self._server = server
        self._caches = caches
        self._make_is_changed = is_changed
        self._reporter = reporter
        self._open_external = open_external
        self._open_files = open_files
        self._between_nodes = between_nodes or (lambda: None)
        self._stops = stops
        self._foresight = foresight
        self._site = CallSite(worker, asyncio.current_task())
        self.ui_outputs: dict[str, dict] = {}

    async def run(self, prompt: dict, prompt_id: str, extra_data: Mapping[str, Any], execute_outputs: Iterable[str]) -> bool:
        """Run the prompt; whether it succeeded. Errors of nodes are reported, and ``ui_outputs`` holds what there is to see."""
        token = current_call_site.set(self._site)
        dynprompt = DynamicPrompt(prompt)
        reset_progress_state(prompt_id, dynprompt)
        progress = get_progress_state()
        loop = asyncio.get_running_loop()
        add_progress_handler(WebUIProgressHandler(self._server, lambda delay_s, function: _LaterOnLoop(loop, delay_s, function)))
        try:
            await self._prepare_caches(dynprompt, prompt, prompt_id, execute_outputs)
            state = PromptState(
                self._server,
                dynprompt,
                self._caches,
                extra_data,
                set(),
                prompt_id,
                ExecutionList(dynprompt, self._caches.outputs),
                {},
                {},
                self.ui_outputs,
            )
            current_outputs = self._caches.outputs.all_node_ids()
            loops = find_loops(prompt, lambda node_id: boundary_of(node_class(prompt[node_id]["class_type"])))
            for node_id in execute_outputs:
                state.execution_list.add_node(loops.run_for(node_id))
            if self._foresight is not None:
                nodes = state.execution_list
                self._foresight.begin([(node_id, dynprompt.get_node(node_id)) for node_id in nodes.get_ready_nodes()])
            if models := cached_models(state.execution_list, dynprompt):
                self._surroundings.expects(models)
            failure = await self._run_nodes(state)
            await to_loop(self._site.worker)
            progress.close()
            if failure is None:
                await self._resend_intermediate_ui(state)
                if self._stops is not None and (interrupt := self._stops.conclude(prompt_id)) is not None:
                    failure = {"node_id": next(iter(execute_outputs), "")}, interrupt
            if failure is None:
                self._reporter.add_message("execution_success", {"prompt_id": prompt_id}, False)
            else:
                details, error = failure
                self._reporter.handle_execution_error(prompt_id, prompt, current_outputs, state.executed, details, error)
                # Its frames hold what the node was working on, perhaps all of a device's memory.
                BaseException.with_traceback(error, None)
            return failure is None
        finally:
            await to_loop(self._site.worker)
            progress.close()
            await self._end_calls(prompt_id)
            self._caches.outputs.external = self._caches.outputs.files = None
            current_call_site.reset(token)

    async def _prepare_caches(self, dynprompt: DynamicPrompt, prompt: dict, prompt_id: str, execute_outputs: Iterable[str]) -> None:
        """Compute the keys of all nodes, drop what is not used any more, fetch what others have, and say what is cached."""
        is_changed = self._make_is_changed(prompt_id, dynprompt, self._caches.outputs)
        self._caches.outputs.files = None if self._open_files is None else self._open_files(dynprompt)
        for cache in self._caches.all:
            await cache.set_prompt(dynprompt, prompt.keys(), is_changed)
            cache.clean_unused()
        outputs = self._caches.outputs
        if self._open_external is not None and outputs.enable_providers:
            outputs.external = self._open_external(dynprompt, outputs)
        if outputs.external is not None:
            await outputs.external.prefetch(execute_outputs)
            cached = [node_id for node_id in prompt if outputs.get_local(node_id) is not None]
        else:
            # Nobody outside is asked, so none of these waits: 10,000 tasks would cost a tenth of a second for nothing.
            cached = [node_id for node_id in prompt if await outputs.get(node_id) is not None]
        self._reporter.add_message("execution_cached", {"nodes": cached, "prompt_id": prompt_id}, False)

    async def _run_nodes(self, state: PromptState) -> Failure | None:
        """Run what the outputs depend on, in an order that the graph allows; the error that ended it, or None."""
        nodes = state.execution_list
        while not nodes.is_empty():
            failure = await self._wait_until_ready(state)
            if failure is not None:
                return failure
            node_id, details, cycle = await nodes.stage_node_execution()
            if cycle is not None:
                return details or {}, cycle
            assert node_id is not None, "a node or an error is staged while nodes are left"
            if self._stops is not None and (interrupt := self._stops.asked(state.prompt_id)) is not None:
                return {"node_id": state.dynprompt.get_real_node_id(node_id)}, interrupt
            await self._go_where_it_runs(state, node_id)
            result, details, error = await self._engine.execute(
                state.server,
                state.dynprompt,
                state.caches,
                node_id,
                state.extra_data,
                state.executed,
                state.prompt_id,
                nodes,
                state.pending_subgraph_results,
                state.pending_async_nodes,
                state.ui_outputs,
            )
            if result is ExecutionResult.FAILURE:
                return details or {"node_id": node_id}, error or RuntimeError(f"node {node_id} failed without saying why")
            if result is ExecutionResult.PENDING:
                nodes.unstage_node_execution()
            else:
                nodes.complete_node_execution()
                if self._foresight is not None:
                    self._foresight.ran(node_id)
            self._caches.relieve_ram()
            self._between_nodes()
        return None

    async def _wait_until_ready(self, state: PromptState) -> Failure | None:
        """While only async calls are left, wait for one to end; an interrupt ends the waiting."""
        self._site.release_finished()
        while state.pending_async_nodes and not state.execution_list.has_ready_nodes():
            await to_loop(self._site.worker)
            await self._site.wait_finished(INTERRUPT_POLL_S)
            self._site.release_finished()
            try:
                self._surroundings.before_call()
            except BaseException as error:
                if not self._surroundings.is_interrupt(error):
                    raise
                waiting = next(iter(state.pending_async_nodes))
                return {"node_id": state.dynprompt.get_real_node_id(waiting)}, error
        return None

    async def _go_where_it_runs(self, state: PromptState, node_id: str) -> None:
        """Sync nodes run whole on the worker, which saves a trip for each, unless something in their way may have to await."""
        class_def = node_class(state.dynprompt.get_node(node_id)["class_type"])
        if not self._engine.may_move_to_worker():
            await to_loop(self._site.worker)
        elif not inspect.iscoroutinefunction(getattr(class_def, getattr(class_def, "FUNCTION", ""), None)):
            await to_worker(self._site.worker)

    async def _resend_intermediate_ui(self, state: PromptState) -> None:
        """Nodes that are not output nodes but show something show it again when they were cached."""
        for node_id in state.dynprompt.all_node_ids():
            class_def = node_class(state.dynprompt.get_node(node_id)["class_type"])
            if node_id not in state.executed and getattr(class_def, "HAS_INTERMEDIATE_OUTPUT", False):
                entry = await self._caches.outputs.get(node_id)
                if entry is not None:
                    state.publish_cached_ui(node_id, entry)

    async def _end_calls(self, prompt_id: str) -> None:
        """Cancel the calls that still run, so that none goes on during the next prompt."""
        left = await self._site.cancel_tasks(CANCEL_TIMEOUT_S)
        if left:
            log.warning("%d async calls of prompt %s ignore being cancelled and go on in the background", left, prompt_id)
