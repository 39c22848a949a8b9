"""Progress of running nodes, under the names that node packs import; see ``progress_state`` and ``progress_web``."""

from comfy_execution.progress_board.state import (
    NodeProgressState,
    NodeState,
    ProgressHandler,
    ProgressRegistry,
    add_progress_handler,
    get_progress_state,
    reset_progress_state,
)
from comfy_execution.progress_board.web import ProgressHook, WebUIProgressHandler

__all__ = [
    "NodeProgressState",
    "NodeState",
    "ProgressHandler",
    "ProgressHook",
    "ProgressRegistry",
    "WebUIProgressHandler",
    "add_progress_handler",
    "get_progress_state",
    "reset_progress_state",
]
