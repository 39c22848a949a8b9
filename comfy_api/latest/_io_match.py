"""Sockets that accept several types, and sockets whose types must be equal."""

import copy
from collections.abc import Iterable
from typing import Any

from . import _io_base as base
from ._io_base import ComfyTypeIO, WidgetInput, _ComfyType, comfytype
from ._io_data import AnyType


def _type_class(declared: Any) -> type[_ComfyType]:
    """The type class of *declared*, a type or an instance of one. Raises ``ValueError`` for anything else."""
    kind = declared if isinstance(declared, type) else type(declared)
    if not issubclass(kind, _ComfyType):
        raise ValueError(f"{kind.__name__} is not a type of comfy_api.latest.io; pass classes such as io.Image or io.Custom('NAME')")
    return kind


@comfytype(io_type="COMFY_MULTITYPED_V3")
class MultiType(ComfyTypeIO):
    """An input for values of more than one type."""

    class Input(base.Input):
        """Accepts any of *types*. If *id* is an input, its widget, id and options are used, and its type is accepted as well."""

        def __init__(
            self,
            id: str | base.Input,
            types: list[Any],
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            self.input_override: Any = None
            if not isinstance(id, str):
                template = self.input_override = copy.copy(id)
                if isinstance(template, WidgetInput):
                    template.widget_type = template.get_io_type()
                id = template.id
                optional = template.optional or optional
                tooltip = tooltip if template.tooltip is None else template.tooltip
                display_name = display_name if template.display_name is None else template.display_name
                lazy = lazy if template.lazy is None else template.lazy
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
            self._io_types = types

        @property
        def io_types(self) -> list[type[_ComfyType]]:
            """The accepted types as classes."""
            return [_type_class(declared) for declared in self._io_types]

        def get_io_type(self) -> str:
            """The names of the accepted types joined by commas, each once, the widget's own first."""
            names = [] if self.input_override is None else [self.input_override.get_io_type()]
            return ",".join(dict.fromkeys(names + [str(kind.io_type) for kind in self.io_types]))

        def as_dict(self) -> dict[str, Any]:
            """The printed options: the widget's, with this input's on top."""
            return ({} if self.input_override is None else self.input_override.as_dict()) | super().as_dict()

        def validate(self) -> None:
            """Raise ``ValueError`` when something in *types* is not a type."""
            self.get_io_type()


@comfytype(io_type="COMFY_MATCHTYPE_V3")
class MatchType(ComfyTypeIO):
    """Sockets of one template, which all take the type of the first connection."""

    class Template:
        """A group of sockets: *template_id* names it within the node, *allowed_types* limits its type."""

        def __init__(self, template_id: str, allowed_types: Any = AnyType) -> None:
            several = isinstance(allowed_types, Iterable) and not isinstance(allowed_types, type)
            self.template_id = template_id
            self.allowed_types = [_type_class(declared) for declared in (allowed_types if several else [allowed_types])]

        def as_dict(self) -> dict[str, str]:
            """The template as printed."""
            return {"template_id": self.template_id, "allowed_types": ",".join(str(kind.io_type) for kind in self.allowed_types)}

    class Input(base.Input):
        """An input of the group."""

        def __init__(
            self,
            id: str,
            template: "MatchType.Template",
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
            self.template = template

        def as_dict(self) -> dict[str, Any]:
            """The printed options with the template."""
            return super().as_dict() | {"template": self.template.as_dict()}

    class Output(base.Output):
        """An output of the group; without a name of its own it shows ``MATCHTYPE``."""

        def __init__(
            self,
            template: "MatchType.Template",
            id: str | None = None,
            display_name: str | None = None,
            tooltip: str | None = None,
            is_output_list: bool = False,
        ) -> None:
            super().__init__(id, display_name if id or display_name else "MATCHTYPE", tooltip, is_output_list)
            self.template = template

        def as_dict(self) -> dict[str, Any]:
            """The printed options with the template."""
            return super().as_dict() | {"template": self.template.as_dict()}
