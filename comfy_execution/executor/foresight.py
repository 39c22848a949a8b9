"""Who is told which nodes of the running prompt are still to come, so that what they will read can be read before."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Foresight(Protocol):
    """Called by the coroutine that runs the prompt; every call is quick and raises nothing."""

    def begin(self, nodes: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """A prompt begins: (id, node) of its nodes that wait for no other, in the order in which they will run."""

    def ran(self, node_id: str) -> None:
        """A node has run."""
