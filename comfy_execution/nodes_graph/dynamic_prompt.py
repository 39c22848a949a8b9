"""The nodes of one running prompt: those that were sent, and those that expansion adds."""

from collections.abc import Mapping
from typing import Any


class NodeNotFoundError(Exception):
    """An id that no node of the prompt has."""


class DynamicPrompt:
    """The prompt as it was sent and the nodes that expansion has added to it.

    ``original_prompt``, ``ephemeral_prompt``, ``ephemeral_parents`` and ``ephemeral_display`` may be read by others; nodes are added by
    the coroutine that runs the prompt only. Every question costs the same however deep expansions are nested.
    """

    def __init__(self, original_prompt: Mapping[str, Any]) -> None:
        self.original_prompt = original_prompt
        self.ephemeral_prompt: dict[str, Any] = {}
        self.ephemeral_parents: dict[str, str] = {}
        self.ephemeral_display: dict[str, str] = {}
        self._real_ids: dict[str, str] = {}
        self._display_ids: dict[str, str] = {}
        self._display_ends: set[str] = set()

    def get_node(self, node_id: str) -> Any:
        """The node, ``{"class_type": …, "inputs": {…}}``. Raises ``NodeNotFoundError``."""
        if node_id in self.ephemeral_prompt:
            return self.ephemeral_prompt[node_id]
        if node_id in self.original_prompt:
            return self.original_prompt[node_id]
        raise NodeNotFoundError(f"Node {node_id} is not in the prompt, nor has an expansion added it")

    def has_node(self, node_id: str) -> bool:
        """Whether a node has that id."""
        return node_id in self.original_prompt or node_id in self.ephemeral_prompt

    def add_ephemeral_node(self, node_id: str, node_info: Mapping[str, Any], parent_id: str, display_id: str) -> None:
        """Add a node that the expansion of *parent_id* made; messages about it name *display_id*."""
        self.ephemeral_prompt[node_id] = node_info
        self.ephemeral_parents[node_id] = parent_id
        self.ephemeral_display[node_id] = display_id
        self._real_ids[node_id] = self._real_ids.get(parent_id, parent_id)
        if node_id in self._display_ends:
            self._display_ids.clear()
            self._display_ends.clear()

    def get_real_node_id(self, node_id: str) -> str:
        """The node of the original prompt that the node comes from."""
        return self._real_ids.get(node_id, node_id)

    def get_parent_node_id(self, node_id: str) -> str | None:
        """The node whose expansion made this one, or None."""
        return self.ephemeral_parents.get(node_id)

    def get_display_node_id(self, node_id: str) -> str:
        """The node that messages about this one name. Nodes that name one another in a circle are shown as one of them."""
        current = node_id
        path: dict[str, None] = {}
        while current in self.ephemeral_display and current not in path:
            if current in self._display_ids:
                current = self._display_ids[current]
                break
            path[current] = None
            current = self.ephemeral_display[current]
        self._display_ids |= dict.fromkeys(path, current)
        self._display_ends.add(current)
        return current

    def all_node_ids(self) -> set[str]:
        """Every id, expansion's included."""
        return set(self.original_prompt) | set(self.ephemeral_prompt)

    def get_original_prompt(self) -> Mapping[str, Any]:
        """The prompt as it was sent."""
        return self.original_prompt
