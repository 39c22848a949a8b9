"""Describes how the page replaces an old node of a saved workflow by a new one."""

from typing import Any, TypedDict


class InputMapOldId(TypedDict):
    """The new node's input *new_id* gets the value or link of the old node's *old_id*."""

    new_id: str
    old_id: str


class InputMapSetValue(TypedDict):
    """The new node's input *new_id* gets a fixed value."""

    new_id: str
    set_value: Any


InputMap = InputMapOldId | InputMapSetValue


class OutputMap(TypedDict):
    """The new node's output *new_idx* gets the links of the old node's *old_idx*."""

    new_idx: int
    old_idx: int


class NodeReplace:
    """One replacement. *old_widget_ids* names the old node's widgets in order, because saved workflows store their values by position."""

    def __init__(
        self,
        new_node_id: str,
        old_node_id: str,
        old_widget_ids: list[str] | None = None,
        input_mapping: list[InputMap] | None = None,
        output_mapping: list[OutputMap] | None = None,
    ) -> None:
        self.new_node_id = new_node_id
        self.old_node_id = old_node_id
        self.old_widget_ids = old_widget_ids
        self.input_mapping = input_mapping
        self.output_mapping = output_mapping

    def as_dict(self) -> dict[str, Any]:
        """The replacement as the page fetches it; empty mappings are null."""
        mappings = {name: list(getattr(self, name) or ()) or None for name in ("input_mapping", "output_mapping")}
        return {"new_node_id": self.new_node_id, "old_node_id": self.old_node_id, "old_widget_ids": self.old_widget_ids, **mappings}
