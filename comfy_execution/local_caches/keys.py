"""The keys under which a prompt's nodes are cached: by what they compute, or by their ids."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence, ValuesView
from typing import Any, NamedTuple, Protocol

from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.nodes_graph.registered_classes import Classes, registered_classes
from comfy_execution.signatures import InputSignatures, NotCanonical, Uncacheable, canonical_bytes

NODE_CLASS_CONTAINS_UNIQUE_ID: dict[type, bool] = {}


class Unhashable(Uncacheable):
    """A key, or a part of one, that equals nothing."""

    __hash__ = object.__hash__

    def __init__(self, reason: str = "the value cannot be compared by content") -> None:
        super().__init__(reason)


class FileBoundKey(NamedTuple):
    """The key of a result that files went into: its input signature, and a text that covers the states of these files."""

    signature: str
    files: str


class FilesOfPrompt(Protocol):
    """What a cache asks about the files that nodes name (``PromptFiles``)."""

    async def survey(self, node_ids: Iterable[str]) -> None:
        """Note the states of the files of *node_ids*."""

    def mark(self, node_id: str) -> str:
        """A text that covers the states of the files that the node and those above it name; "" when they name none."""

    def own(self, node_id: str) -> Sequence[Any]:
        """The files that the node itself names, each with its ``path`` and ``state``."""

    def is_known(self, node_id: str) -> bool:
        """Whether the files that the node names are known."""

    def hold(self, node_id: str) -> bool:
        """Whether these files are still in these states."""


def to_hashable(obj: Any) -> Any:
    """*obj* as bytes that are equal exactly when type and content are; an ``Unhashable`` when it has no such form."""
    try:
        return canonical_bytes(obj)
    except NotCanonical as problem:
        return Unhashable(str(problem))


def include_unique_id_in_input(class_type: str) -> bool:
    """Whether nodes of that class are told their id by a hidden input of the older form, so that the id is part of what they compute."""
    return names_its_node(registered_classes()[class_type])


def names_its_node(class_def: Any) -> bool:
    """Whether a node class's results depend on the node's id."""
    if getattr(class_def, "NOT_IDEMPOTENT", False):
        return True
    if class_def not in NODE_CLASS_CONTAINS_UNIQUE_ID:
        hidden = class_def.INPUT_TYPES().get("hidden", {})
        NODE_CLASS_CONTAINS_UNIQUE_ID[class_def] = any(kind == "UNIQUE_ID" for kind in hidden.values())
    return NODE_CLASS_CONTAINS_UNIQUE_ID[class_def]


class CacheKeySet(ABC):
    """The keys of one prompt's nodes. *is_changed_cache* has ``async get(node_id)``."""

    def __init__(self, dynprompt: DynamicPrompt, node_ids: Iterable[str], is_changed_cache: Any) -> None:
        self.dynprompt = dynprompt
        self.is_changed_cache = is_changed_cache
        self.keys: dict[str, Any] = {}
        self.subcache_keys: dict[str, Any] = {}
        self.files: FilesOfPrompt | None = None

    @abstractmethod
    async def key_for(self, node_id: str) -> Any:
        """The key of one node that exists."""

    async def add_keys(self, node_ids: Iterable[str]) -> None:
        """Work out the keys of *node_ids*; ids of no node are passed over."""
        for node_id in node_ids:
            if node_id in self.keys or not self.dynprompt.has_node(node_id):
                continue
            self.keys[node_id] = await self.key_for(node_id)
            self.subcache_keys[node_id] = (node_id, self.dynprompt.get_node(node_id)["class_type"])

    def make_unique(self, node_id: str, reason: str) -> None:
        """Give the node a key that equals no other, so that its result is found in this prompt only."""
        if node_id in self.keys:
            self.keys[node_id] = Uncacheable(reason)

    def continue_from(self, outer: "CacheKeySet") -> None:
        """Use what *outer*, the keys of the graph around this one, has worked out."""

    def all_node_ids(self) -> set[str]:
        """The nodes that have keys."""
        return set(self.keys)

    def get_used_keys(self) -> ValuesView[Any]:
        """Every key."""
        return self.keys.values()

    def get_used_subcache_keys(self) -> ValuesView[Any]:
        """Every key of a cache for an expansion."""
        return self.subcache_keys.values()

    def get_data_key(self, node_id: str) -> Any:
        """The node's key, None when it has none."""
        return self.keys.get(node_id)

    def get_subcache_key(self, node_id: str) -> Any:
        """The key of the cache for the node's expansion, None when there is none."""
        return self.subcache_keys.get(node_id)


class CacheKeySetID(CacheKeySet):
    """Keys by (node id, class): for what belongs to the node itself, such as its instance."""

    async def key_for(self, node_id: str) -> Any:
        """(node id, class)."""
        return node_id, self.dynprompt.get_node(node_id)["class_type"]


class CacheKeySetInputSignature(CacheKeySet):
    """Keys by what the node computes (see ``comfy_execution.signatures``)."""

    def __init__(
        self, dynprompt: DynamicPrompt, node_ids: Iterable[str], is_changed_cache: Any, *, classes: Classes = registered_classes
    ) -> None:
        """*classes* gives the node classes by type."""
        super().__init__(dynprompt, node_ids, is_changed_cache)
        self._classes = classes
        self.signatures = InputSignatures(self._node_at, self._changed, self._names_itself)

    def include_node_id_in_input(self) -> bool:
        """Whether every key names its node; for subclasses."""
        return False

    async def key_for(self, node_id: str) -> Any:
        """The node's input signature, with the states of the files that it and those above it name, if any."""
        signature = await self.signatures.get(node_id)
        files = "" if self.files is None else self.files.mark(node_id)
        return FileBoundKey(signature, files) if files and isinstance(signature, str) else signature

    def continue_from(self, outer: CacheKeySet) -> None:
        """Share the signatures of the surrounding graph, so that none is worked out twice."""
        if isinstance(outer, CacheKeySetInputSignature):
            self.signatures = outer.signatures

    def _node_at(self, node_id: str) -> Mapping[str, Any] | None:
        return self.dynprompt.get_node(node_id) if self.dynprompt.has_node(node_id) else None

    async def _changed(self, node_id: str) -> Any:
        value = await self.is_changed_cache.get(node_id)
        return math.nan if isinstance(value, Uncacheable) else value

    def _names_itself(self, node_id: str) -> bool:
        return self.include_node_id_in_input() or names_its_node(self._classes()[self.dynprompt.get_node(node_id)["class_type"]])
