"""The price on nodes that call paid services, which the page computes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ._io_base import Input


@dataclass
class PriceBadgeDepends:
    """What the price depends on: *widgets* by id (``group.name`` inside a group), connected *inputs*, and groups of inputs."""

    widgets: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    input_groups: list[str] = field(default_factory=list)

    def validate(self) -> None:
        """Raise ``ValueError`` unless the three are lists of strings."""
        for name in ("widgets", "inputs", "input_groups"):
            value = getattr(self, name)
            if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
                raise ValueError(f"PriceBadgeDepends.{name} must be a list of strings, not {value!r}")

    def as_dict(self, schema_inputs: Sequence[Input]) -> dict[str, Any]:
        """The dependencies as printed, each widget with its type. Raises ``ValueError`` for a widget that is not in *schema_inputs*."""
        types: dict[str, str] = {}
        for declared in schema_inputs:
            types[declared.id] = declared.get_io_type()
            for nested in declared.get_all()[1:]:
                types[f"{declared.id}.{nested.id}"] = nested.get_io_type()
        unknown = [name for name in self.widgets if name not in types]
        if unknown:
            raise ValueError(f"the price badge depends on {', '.join(unknown)}, but the node has {', '.join(types) or 'no inputs'}")
        widgets = [{"name": name, "type": types[name]} for name in self.widgets]
        return {"widgets": widgets, "inputs": self.inputs, "input_groups": self.input_groups}


@dataclass
class PriceBadge:
    """A price as a JSONata expression *expr* over what *depends_on* names."""

    expr: str
    depends_on: PriceBadgeDepends = field(default_factory=PriceBadgeDepends)
    engine: str = "jsonata"

    def validate(self) -> None:
        """Raise ``ValueError`` for an empty expression, another engine, or dependencies that are not names."""
        if self.engine != "jsonata":
            raise ValueError(f"PriceBadge.engine is {self.engine!r}, but the page only evaluates 'jsonata'")
        if not isinstance(self.expr, str) or not self.expr.strip():
            raise ValueError("PriceBadge.expr must be a JSONata expression, but it is empty")
        self.depends_on.validate()

    def as_dict(self, schema_inputs: Sequence[Input]) -> dict[str, Any]:
        """The badge as printed."""
        return {"engine": self.engine, "depends_on": self.depends_on.as_dict(schema_inputs), "expr": self.expr}
