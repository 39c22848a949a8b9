"""What nodes answer when asked whether something outside the prompt changed (``IS_CHANGED``, ``fingerprint_inputs``)."""

import logging
from collections.abc import Callable
from typing import Any

from comfy_execution.executor.engine import Engine
from comfy_execution.executor.isolation import is_own_end, log_failure
from comfy_execution.executor.node_call import current_call_site, resolve_map_node_over_list_results
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.nodes_graph.registered_classes import node_class

log = logging.getLogger(__name__)


class IsChangedCache:
    """Asks each node at most once per prompt. Used on the prompt's own coroutine only."""

    def __init__(
        self,
        engine: Engine,
        prompt_id: str,
        dynprompt: DynamicPrompt,
        outputs_cache: Any,
        is_interrupt: Callable[[BaseException], bool] = lambda error: False,
    ) -> None:
        """*is_interrupt* tells the errors that stop the prompt from those of the node."""
        self._engine = engine
        self._is_interrupt = is_interrupt
        self.prompt_id = prompt_id
        self.dynprompt = dynprompt
        self.outputs_cache = outputs_cache
        self.is_changed: dict[str, Any] = {}

    async def get(self, node_id: str) -> Any:
        """The node's answers as a list, False for classes that are not asked, NaN (with a warning) when asking failed.

        The node sees constants and hidden inputs; linked inputs are None.
        """
        if node_id not in self.is_changed:
            self.is_changed[node_id] = await self._ask(node_id)
        return self.is_changed[node_id]

    async def _ask(self, node_id: str) -> Any:
        node = self.dynprompt.get_node(node_id)
        class_def = node_class(node["class_type"])
        if not hasattr(class_def, "IS_CHANGED"):
            return False
        try:
            inputs, _, v3_data = self._engine.get_input_data(node["inputs"], class_def, node_id, None)
            answers = await self._engine._async_map_node_over_list(
                self.prompt_id, node_id, class_def, inputs, "IS_CHANGED", v3_data=v3_data
            )
            answers = await resolve_map_node_over_list_results(answers)
        except BaseException as error:
            site = current_call_site.get()
            if is_own_end(error, None if site is None else site.task) or self._is_interrupt(error):
                raise
            log_failure(log, f"IS_CHANGED of node {node_id} ({node['class_type']}) failed, so the node runs again", error)
            return float("nan")
        return [None if isinstance(answer, ExecutionBlocker) else answer for answer in answers]
