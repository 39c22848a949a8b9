"""What a loader node will read, told from its inputs before it runs.

Foreseen are only nodes whose class says so itself: ``READS_AHEAD`` maps its inputs that name files to the kinds of model folder they are
in. A class must say that only if calling it early, on another thread, and dropping the result changes nothing but what is in memory.
"""

import inspect
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import folder_paths
from comfy_execution.executor.inference_scope import inference_scope
from comfy_execution.graph_utils import is_link
from comfy_execution.nodes_graph.schema_class import is_schema_class

DECLARATION = "READS_AHEAD"
States = tuple[tuple[str, int, int, int, int], ...]


class Load(Protocol):
    """Something that can be read ahead; equal keys load the same."""

    @property
    def key(self) -> Hashable:
        """What tells it from other loads."""

    @property
    def name(self) -> str:
        """What is loaded, for people."""

    def states(self) -> States | None:
        """What tells its files as they are now from others under their names; None while one is missing. Blocks on the file system."""

    def run(self) -> None:
        """Load, through the RAM model cache; what comes of it is dropped. Blocks; raises what the loader raises."""

    def settle(self) -> None:
        """Called after a run that succeeded, when nothing is read ahead any more."""


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """The call of a loader node: of *node_class*, registered as *class_type*, with constant *inputs*; *files* are (folder, name)."""

    class_type: str
    node_class: Any
    inputs: tuple[tuple[str, Any], ...]
    files: tuple[tuple[str, str], ...]

    @property
    def key(self) -> Hashable:
        """Node type and inputs."""
        return self.class_type, self.inputs

    @property
    def name(self) -> str:
        """The files' names."""
        return " + ".join(name for _, name in self.files)

    def states(self) -> States | None:
        """The state of each of its files that exists, None when there is none."""
        paths = [folder_paths.get_full_path(folder, name) for folder, name in self.files]
        try:
            return tuple(file_state(path) for path in paths if path is not None) or None
        except OSError:
            return None

    def run(self) -> None:
        """Call the node's function as the executor would."""
        with inference_scope(self.node_class):
            if is_schema_class(self.node_class):
                self.node_class.execute(**dict(self.inputs))
            else:
                getattr(self.node_class(), self.node_class.FUNCTION)(**dict(self.inputs))

    def settle(self) -> None:
        """Nothing is left to do."""


def file_state(path: str) -> tuple[str, int, int, int, int]:
    """What tells the file at *path* from another under its name. Raises ``OSError``."""
    real = os.path.realpath(path)
    status = os.stat(real)
    return real, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def node_load(node: Mapping[str, Any], classes: Mapping[str, type]) -> NodeLoad | None:
    """What *node* of a prompt will load; None for other nodes, and where an input is a link: what it will give is not guessed."""
    class_type, inputs = node["class_type"], node["inputs"]
    node_class: Any = classes.get(class_type)
    folders = None if node_class is None else vars(node_class).get(DECLARATION)
    if folders is None or any(is_link(value) for value in inputs.values()):
        return None
    function = node_class.execute.__func__ if is_schema_class(node_class) else getattr(node_class, node_class.FUNCTION)
    if function.__module__ != node_class.__module__ or hasattr(function, "__wrapped__"):
        return None  # a pack has put another in its place, and what that does early nobody knows
    given = _arguments(function, inputs)
    files = tuple((folder, given[name]) for name, folder in folders.items() if isinstance(given.get(name), str))
    if not files or not all(isinstance(value, str | int | float | None) for value in given.values()):
        return None
    return NodeLoad(class_type, node_class, tuple(sorted(given.items())), files)


def _arguments(function: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of *inputs* that *function* takes."""
    parameters = inspect.signature(function).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in inputs.items() if takes_all or name in parameters}
