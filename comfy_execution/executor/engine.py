"""What running a prompt needs of the layers above it, as two interfaces.

``Engine`` holds the functions that node packs replace on the ``execution`` module: they are looked up there at each call, so that a
replacement takes effect. ``Surroundings`` is the program around the executor. Everything else is imported and called directly.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from comfy_execution.executor.caches import CacheSet
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.nodes_graph.execution_list import ExecutionList
from comfy_execution.server_protocol import ExecutionServer


class ExecutionResult(Enum):
    """How one pass over a node ended."""

    SUCCESS = 0
    FAILURE = 1
    PENDING = 2


class Recalled(Protocol):
    """What is remembered of one call of a node; *outputs* (a list of values per socket) is None when nothing is."""

    outputs: Any

    def keep(self, outputs: Any) -> None:
        """The node was called and gave *outputs*."""


class Surroundings(Protocol):
    """The program around the executor. Any thread."""

    def before_call(self) -> None:
        """A cancellation point: raises when the user asked to stop."""

    def set_interrupt(self, is_wanted: bool) -> None:
        """Ask the running prompt to stop at its next cancellation point, or withdraw that request."""

    def is_interrupt(self, error: BaseException) -> bool:
        """Whether *error* says that the user stopped the prompt."""

    def error_hint(self, error: BaseException, class_type: str) -> str:
        """Advice for the user on this error ("" for none); frees memory first when memory ran out."""

    def choose_previews(self, method: str | None) -> None:
        """Apply a prompt's own preview method; None goes back to the one of the start."""

    def expects(self, values: Sequence[Any]) -> None:
        """Nodes that are still to run will use the models *values*. Quick."""

    def called(self, class_def: Any, inputs: Mapping[str, Any] | None) -> None:
        """A node of *class_def* has run with the lists *inputs* (None: not known any more). Quick."""

    def prompt_ended(self) -> None:
        """A prompt has ended: let go what the flags say is not kept from one prompt to the next."""

    def remembers(self, class_def: Any) -> bool:
        """Whether calls of nodes of *class_def* are remembered. Quick."""

    def recall(self, class_def: Any, inputs: Mapping[str, Any], files: Any) -> Recalled | None:
        """What is remembered of calling a node of *class_def* with the lists *inputs* and with *files*, their states included.

        None when that could not be found out. On the worker thread; reads tensors.
        """

    def deployment(self) -> str:
        """What kind of device and precision computes here. May block."""


class Engine(Protocol):
    """The replaceable functions. The ``execution`` module is the implementation."""

    def get_input_data(
        self,
        inputs: Mapping[str, Any],
        class_def: Any,
        unique_id: str,
        execution_list: Any = None,
        dynprompt: DynamicPrompt | None = None,
        extra_data: Mapping | None = None,
    ) -> tuple[dict[str, Any], dict[str, bool], dict[str, Any]]:
        """Collect a node's inputs: (lists by input name, names whose link has no result, hidden data for V3 classes)."""

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

    async def execute(
        self,
        server: ExecutionServer,
        dynprompt: DynamicPrompt,
        caches: CacheSet,
        current_item: str,
        extra_data: Mapping,
        executed: set[str],
        prompt_id: str,
        execution_list: ExecutionList,
        pending_subgraph_results: dict,
        pending_async_nodes: dict,
        ui_outputs: dict,
    ) -> tuple[ExecutionResult, dict | None, BaseException | None]:
        """One pass over a node."""

    def may_move_to_worker(self) -> bool:
        """Whether whole passes over nodes may run on the worker thread: no pack replaced one of the coroutine functions above, so
        nothing in their way needs to await."""
