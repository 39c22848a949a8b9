"""What running a prompt needs from the layers above, as one interface. The ``execution`` module is the implementation.

Everything is looked up on the implementation when it is called, so that what node packs replace there takes effect.
"""

import contextlib
from collections.abc import Mapping
from enum import Enum
from typing import Any, Protocol

from comfy_execution.graph import DynamicPrompt


class ExecutionResult(Enum):
    """How one pass over a node ended."""

    SUCCESS = 0
    FAILURE = 1
    PENDING = 2


class Engine(Protocol):
    """The names that ``execution`` provides to the modules that do its work."""

    def node_class(self, class_type: str) -> Any:
        """The class of a node type; raises ``KeyError`` with the name for an unknown one."""

    def get_input_data(
        self,
        inputs: Mapping[str, Any],
        class_def: Any,
        unique_id: str,
        execution_list: Any = None,
        dynprompt: DynamicPrompt | None = None,
        extra_data: Mapping | None = None,
    ) -> tuple[dict[str, Any], dict[str, bool], dict[str, Any]]:
        """See ``input_data.get_input_data``."""

    async def get_output_data(
        self,
        prompt_id: str,
        unique_id: str,
        obj: Any,
        input_data_all: Mapping[str, Any],
        execution_block_cb: Any = None,
        pre_execute_cb: Any = None,
        v3_data: Any = None,
    ) -> tuple[Any, Any, bool, bool]:
        """Call a node: ``(outputs, ui, was it expanded, are calls unfinished)``; unfinished ones stand in outputs as tasks."""

    async def _async_map_node_over_list(
        self,
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
        """Call a function of a node for each item of its inputs."""

    def get_output_from_returns(self, return_values: list, obj: Any) -> tuple[Any, Any, bool]:
        """Merge what the calls returned: ``(outputs, ui, was it expanded)``."""

    async def execute(
        self,
        server: Any,
        dynprompt: DynamicPrompt,
        caches: Any,
        current_item: str,
        extra_data: Mapping,
        executed: set[str],
        prompt_id: str,
        execution_list: Any,
        pending_subgraph_results: dict,
        pending_async_nodes: dict,
        ui_outputs: dict,
    ) -> tuple[ExecutionResult, dict | None, BaseException | None]:
        """One pass over a node."""

    def before_call(self) -> None:
        """A cancellation point."""

    def inference_scope(self, class_def: type) -> contextlib.AbstractContextManager:
        """What code of this class runs inside."""

    def is_interrupt(self, error: BaseException) -> bool:
        """Whether *error* says that the user stopped the prompt."""

    def error_hint(self, error: BaseException, class_type: str) -> str:
        """Advice for the user on this error ("" for none); frees memory first when memory ran out."""

    def may_move_to_worker(self) -> bool:
        """Whether whole passes over nodes may run on the worker thread: nothing in their way may need to await
        (no pack replaced one of these functions)."""
