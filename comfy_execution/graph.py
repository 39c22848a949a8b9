"""The graph of a running prompt, under the names that node packs import."""

from comfy_execution.graph_utils import ExecutionBlocker, is_link
from comfy_execution.nodes_graph.declared_inputs import get_input_info
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt, NodeNotFoundError
from comfy_execution.nodes_graph.execution_list import DependencyCycleError, ExecutionList
from comfy_execution.nodes_graph.topological_sort import NodeInputError, TopologicalSort

__all__ = [
    "DependencyCycleError",
    "DynamicPrompt",
    "ExecutionBlocker",
    "ExecutionList",
    "NodeInputError",
    "NodeNotFoundError",
    "TopologicalSort",
    "get_input_info",
    "is_link",
]
