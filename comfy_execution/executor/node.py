"""One pass over one node: use its cached result, or collect its inputs, call it, and store, publish or expand what it gives."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_execution.executor.caches import CacheEntry, CacheSet
from comfy_execution.executor.coming_models import model_values
from comfy_execution.executor.engine import Engine, ExecutionResult, Recalled, Surroundings
from comfy_execution.executor.errors import DuplicateNodeError, error_details
from comfy_execution.executor.hop import to_loop
from comfy_execution.executor.isolation import Isolation, is_own_end, log_failure
from comfy_execution.executor.node_call import call_sync, current_call_site, resolve_map_node_over_list_results, task_result
from comfy_execution.executor.results import get_output_from_returns, merge_resolved, valid_ui_output
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder, is_link
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.nodes_graph.execution_list import ExecutionList
from comfy_execution.nodes_graph.registered_classes import node_class
from comfy_execution.nodes_graph.schema_class import is_schema_class
from comfy_execution.progress_board.state import get_progress_state
from comfy_execution.server_protocol import ExecutionServer

log = logging.getLogger(__name__)

Outcome = tuple[ExecutionResult, dict | None, BaseException | None]


@dataclass(slots=True)
class PromptState:
    """What the passes of one prompt share. Changed only by the coroutine that runs the prompt."""

    server: ExecutionServer
    dynprompt: DynamicPrompt
    caches: CacheSet
    extra_data: Mapping[str, Any]
    executed: set[str]
    prompt_id: str
    execution_list: ExecutionList
    pending_subgraph_results: dict[str, list]
    pending_async_nodes: dict[str, list]
    ui_outputs: dict[str, dict]

    def send_to_owner(self, event: str, data: dict) -> None:
        """Send a message about this prompt to the client that owns it, if any."""
        if self.server.client_id is not None:
            self.server.send_sync(event, {**data, "prompt_id": self.prompt_id}, self.server.client_id)

    def ui_record(self, node_id: str, output: dict) -> dict:
        """A node's ui as cache and history keep it."""
        return {
            "meta": {
                "node_id": node_id,
                "display_node": self.dynprompt.get_display_node_id(node_id),
                "parent_node": self.dynprompt.get_parent_node_id(node_id),
                "real_node_id": self.dynprompt.get_real_node_id(node_id),
            },
            "output": output,
        }

    def publish_cached_ui(self, node_id: str, entry: Any) -> None:
        """Put a cached entry's ui into the history and send it again, as if the node had run."""
        output = valid_ui_output(entry.ui)
        if output is not None:
            self.ui_outputs[node_id] = self.ui_record(node_id, output)
        elif entry.ui is not None:
            log.warning("The cached ui of node %s has an unknown shape (%s) and is left out", node_id, type(entry.ui).__name__)
        display_id = self.dynprompt.get_display_node_id(node_id)
        self.send_to_owner("executed", {"node": node_id, "display_node": display_id, "output": output})


class NodePass:
    """One pass over node *unique_id*; a node with lazy inputs, unfinished calls or an expansion takes several."""

    def __init__(self, engine: Engine, surroundings: Surroundings, state: PromptState, unique_id: str) -> None:
        self._engine = engine
        self._surroundings = surroundings
        self._state = state
        self._id = unique_id
        self._node = state.dynprompt.get_node(unique_id)
        self._class_type: str = self._node["class_type"]
        self._class_def = node_class(self._class_type)
        self._inputs: dict[str, Any] | None = None

    async def run(self) -> Outcome:
        """Do the pass. An error of the node is returned, not raised: ``(FAILURE, fields for the message, the error)``.

        That is whatever its code raises, ``KeyboardInterrupt``, ``SystemExit`` and ``CancelledError`` included.
        """
        state = self._state
        try:
            entry = await state.caches.outputs.get(self._id)
            if entry is not None:
                state.publish_cached_ui(self._id, entry)
                state.execution_list.cache_update(self._id, entry)
            elif not await self._advance():
                return ExecutionResult.PENDING, None, None
            else:
                state.executed.add(self._id)
            get_progress_state().finish_progress(self._id)
        except BaseException as error:
            site = current_call_site.get()
            if is_own_end(error, None if site is None else site.task):
                raise
            return ExecutionResult.FAILURE, self._describe(error), error
        return ExecutionResult.SUCCESS, None, None

    def _describe(self, error: BaseException) -> dict:
        with Isolation(f"Showing the failure of node {self._id}"):
            get_progress_state().fail_progress(self._id)
        real_id = self._state.dynprompt.get_real_node_id(self._id)
        if self._surroundings.is_interrupt(error):
            log.info("Processing interrupted at node %s (%s)", self._id, self._class_type)
            return {"node_id": real_id}
        log_failure(log, f"Node {self._id} ({self._class_type}) failed", error)
        hint = ""
        with Isolation(f"Looking for advice on the failure of node {self._id}"):
            hint = self._surroundings.error_hint(error, self._class_type)
        return error_details(real_id, error, hint, self._inputs)

    async def _advance(self) -> bool:
        """Take the node one step on; whether its result is complete."""
        state = self._state
        ui: dict = {}
        expanded = False
        if self._id in state.pending_async_nodes:
            returned = [task_result(call) for call in state.pending_async_nodes.pop(self._id)]
            outputs, ui, expanded = get_output_from_returns(returned, self._class_def)
        elif self._id in state.pending_subgraph_results:
            outputs = merge_resolved(state.pending_subgraph_results.pop(self._id), self._class_def, self._linked)
        else:
            called = await self._call()
            if called is None:
                return False
            outputs, ui, expanded = called
        if ui:
            record = state.ui_outputs[self._id] = state.ui_record(self._id, ui)
            display_id = record["meta"]["display_node"]
            state.send_to_owner("executed", {"node": self._id, "display_node": display_id, "output": ui})
        if expanded:
            await self._expand(outputs)
            return False
        entry = CacheEntry(ui=state.ui_outputs.get(self._id), outputs=outputs)
        state.execution_list.cache_update(self._id, entry)
        await state.caches.outputs.set(self._id, entry)
        self._surroundings.called(self._class_def, self._inputs)
        if models := model_values(self._class_def, outputs):
            self._surroundings.expects(models)
        return True

    def _linked(self, link: Any) -> list:
        entry = self._state.execution_list.get_cache(link[0], self._id)
        if entry is None or not 0 <= link[1] < len(entry.outputs):
            raise LookupError(f"node {self._id} was expanded to output {link[1]} of node {link[0]}, which has no such result")
        return entry.outputs[link[1]]

    async def _call(self) -> tuple[Any, Any, bool] | None:
        """Call the node: ``(outputs, ui, expanded)``, or None when it asked for lazy inputs or its calls are unfinished."""
        state, engine = self._state, self._engine
        get_progress_state().start_progress(self._id)
        self._inputs, missing, v3_data = engine.get_input_data(
            self._node["inputs"], self._class_def, self._id, state.execution_list, state.dynprompt, state.extra_data
        )
        display_id = state.dynprompt.get_display_node_id(self._id)
        if state.server.client_id is not None:
            state.server.last_node_id = display_id
        state.send_to_owner("executing", {"node": self._id, "display_node": display_id})
        obj = await self._instance()
        if hasattr(obj, "check_lazy_status") and await self._request_lazy(obj, missing, v3_data):
            return None
        recalled = await self._recall()
        if recalled is not None and recalled.outputs is not None:
            return recalled.outputs, {}, False
        outputs, ui, expanded, unfinished = await engine.get_output_data(
            state.prompt_id,
            self._id,
            obj,
            self._inputs,
            execution_block_cb=self._block,
            pre_execute_cb=self._name_expansion,
            v3_data=v3_data,
        )
        if unfinished:
            self._wait_for(outputs)
            return None
        if recalled is not None and not ui and not expanded and self._are_files_known():
            await self._keep(recalled, outputs)
        return outputs, ui, expanded

    async def _recall(self) -> Recalled | None:
        """What is remembered of the call, if calls of this class are, and if what its files hold is known."""
        if not self._surroundings.remembers(self._class_def) or not self._are_files_known():
            return None
        files = self._state.caches.outputs.files
        inputs, own = self._inputs or {}, () if files is None else files.own(self._id)
        recalled = await call_sync(self._class_def, lambda: self._surroundings.recall(self._class_def, inputs, own))
        if recalled is not None and recalled.outputs is not None:
            self._surroundings.before_call()
        return recalled

    def _are_files_known(self) -> bool:
        """Whether the node names no file, or ones whose states, which have not changed since, are known."""
        if not any(isinstance(value, str | dict | list) and not is_link(value) for value in self._node["inputs"].values()):
            return True
        files = self._state.caches.outputs.files
        return files is not None and files.is_known(self._id) and files.hold(self._id)

    async def _keep(self, recalled: Recalled, outputs: Any) -> None:
        def keep() -> None:
            with Isolation(f"Remembering what node {self._id} ({self._class_type}) made"):
                recalled.keep(outputs)

        await call_sync(self._class_def, keep)

    async def _instance(self) -> Any:
        """What the function is called on: an instance kept over prompts, or the class itself for classes without state."""
        if is_schema_class(self._class_def):
            return self._class_def
        caches, objects = self._state.caches, self._state.caches.objects
        instance = await objects.get(self._id)
        # Nodes keep what they read, by the name of the file (a LoRA).
        files = () if caches.outputs.files is None else caches.outputs.files.own(self._id)
        if (files and caches.knows_old_files(self._id, self._class_type, files)) or instance is None:
            instance = await call_sync(self._class_def, self._class_def)
            await objects.set(self._id, instance)
        return instance

    async def _request_lazy(self, obj: Any, missing: Mapping[str, bool], v3_data: Any) -> bool:
        """Ask which inputs are still needed and make the node wait for them; whether there are any."""
        inputs = self._inputs or {}
        answers = await self._engine._async_map_node_over_list(
            self._state.prompt_id, self._id, obj, inputs, "check_lazy_status", allow_interrupt=True, v3_data=v3_data
        )
        answers = await resolve_map_node_over_list_results(answers)
        names = [name for answer in answers if isinstance(answer, (list, tuple, set)) for name in answer if isinstance(name, str)]
        needed = [name for name in dict.fromkeys(names) if name not in inputs or name in missing]
        await self._prefetch(link[0] for name in needed if is_link(link := self._node["inputs"].get(name)))
        for name in needed:
            self._state.execution_list.make_input_strong_link(self._id, name)
        return bool(needed)

    def _block(self, blocker: ExecutionBlocker) -> ExecutionBlocker:
        """Show a blocker's message once; the nodes below are blocked without one."""
        if blocker.message is None:
            return blocker
        state = self._state
        state.send_to_owner(
            "execution_error",
            {
                "node_id": self._id,
                "node_type": self._class_type,
                "executed": list(state.executed),
                "exception_message": f"Execution Blocked: {blocker.message}",
                "exception_type": "ExecutionBlocked",
                "traceback": [],
                "current_inputs": [],
                "current_outputs": [],
            },
        )
        return ExecutionBlocker(None)

    def _name_expansion(self, call_index: int) -> None:
        GraphBuilder.set_default_prefix(self._id, call_index, 0)

    def _wait_for(self, calls: list) -> None:
        """Keep the node from running until its unfinished calls ended; other nodes run meanwhile."""
        state = self._state
        state.pending_async_nodes[self._id] = calls
        site = current_call_site.get()
        assert site is not None, "only a running prompt has unfinished calls"
        tasks = [call for call in calls if isinstance(call, asyncio.Task)]
        site.when_done(tasks, state.execution_list.add_external_block(self._id))

    async def _expand(self, calls: list[tuple[Mapping[str, dict] | None, Any]]) -> None:
        """Add the graphs that the calls returned, and make the node wait for what its result links to."""
        state = self._state
        site = current_call_site.get()
        if site is not None:
            # Keys of the new nodes may take awaiting (IS_CHANGED, providers).
            await to_loop(site.worker)
        added: list[str] = []
        for graph, _ in calls:
            for node_id, info in (graph or {}).items():
                self._add_node(node_id, info)
                added.append(node_id)
        for cache in state.caches.all:
            subcache = await cache.ensure_subcache_for(self._id, set(added))
            subcache.clean_unused()
        acting = [
            node_id for node_id in added if getattr(node_class(state.dynprompt.get_node(node_id)["class_type"]), "OUTPUT_NODE", False)
        ]
        results = [value for graph, values in calls if graph is not None for value in values or () if is_link(value)]
        await self._prefetch([*acting, *(link[0] for link in results)])
        for node_id in acting:
            state.execution_list.add_node(node_id)
            state.execution_list.cache_link(node_id, self._id)
        for link in results:
            state.execution_list.add_strong_link(link[0], link[1], self._id)
        state.pending_subgraph_results[self._id] = [(graph is not None, values) for graph, values in calls]

    async def _prefetch(self, node_ids: Iterable[str]) -> None:
        """Let other machines' results stand for what these nodes need, before they join those that wait to run."""
        external = self._state.caches.outputs.external
        if external is not None:
            await external.prefetch(node_ids)

    def _add_node(self, node_id: str, info: Mapping[str, Any]) -> None:
        dynprompt = self._state.dynprompt
        if dynprompt.has_node(node_id):
            raise DuplicateNodeError(
                f"node {self._id} ({self._class_type}) expands to a node with id {node_id!r}, which the prompt already has; "
                "make ids with GraphBuilder"
            )
        node_class(info["class_type"])
        dynprompt.add_ephemeral_node(node_id, info, self._id, info.get("override_display_id", self._id))
