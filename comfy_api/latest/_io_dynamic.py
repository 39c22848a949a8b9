"""Inputs that grow: lists of equal sockets, and choices and slots that add inputs."""

import copy
from collections.abc import Sequence
from typing import Any

from ._io_base import ComfyTypeI, Input, Output, WidgetInput, comfytype


def add_to_dict_v1(i: Input, d: dict[str, Any]) -> None:
    """Add the input *i* to the ``INPUT_TYPES`` dictionary *d*, in the section that its ``optional`` names."""
    options = i.as_dict()
    options.pop("optional", None)
    d.setdefault("optional" if i.optional else "required", {})[i.id] = (i.get_io_type(), options)


def create_input_dict_v1(inputs: Sequence[Input]) -> dict[str, Any]:
    """The ``INPUT_TYPES`` dictionary of *inputs*; it always has a ``required`` section."""
    sections: dict[str, Any] = {"required": {}}
    for declared in inputs:
        add_to_dict_v1(declared, sections)
    return sections


class DynamicInput(Input):
    """An input whose argument is a dictionary, built from several flat inputs ``<id>.<name>``."""


class DynamicOutput(Output):
    """Reserved for outputs that grow."""


class _GrowingTemplate:
    """The template for each socket of a growing list; a widget is shown as a socket."""

    def __init__(self, input: Input, names: Sequence[str], min: int) -> None:
        if isinstance(input, DynamicInput):
            raise ValueError(f"Autogrow template {input.id!r}: a dynamic input cannot be repeated; use a plain one")
        if min < 0:
            raise ValueError(f"Autogrow template {input.id!r}: min is {min}, but it must not be negative")
        self.input = copy.copy(input)
        if isinstance(self.input, WidgetInput):
            self.input.force_input = True
        self.names = list(names)
        self.min = min

    def get_all(self) -> list[Input]:
        """One input per possible name."""
        grown = []
        for name in self.names:
            one = copy.copy(self.input)
            one.id = name
            grown.append(one)
        return grown

    def as_dict(self) -> dict[str, Any]:
        """The repeated input as printed, with how many of them are required."""
        return {"input": create_input_dict_v1([self.input]), "min": self.min}

    def validate(self) -> None:
        """Raise ``ValueError`` when the repeated input is not valid."""
        self.input.validate()


@comfytype(io_type="COMFY_AUTOGROW_V3")
class Autogrow(ComfyTypeI):
    """A list of equal sockets that grows as they are connected; the argument is {name: value}."""

    Type = dict[str, Any]
    _MaxNames = 100
    _AutogrowTemplate = _GrowingTemplate

    class TemplatePrefix(_GrowingTemplate):
        """Sockets ``<prefix>0`` to ``<prefix><max - 1>``, the first *min* of them required."""

        def __init__(self, input: Input, prefix: str, min: int = 1, max: int = 10) -> None:
            if not 1 <= max <= Autogrow._MaxNames:
                raise ValueError(f"Autogrow template {input.id!r}: max is {max}, but it must lie between 1 and {Autogrow._MaxNames}")
            super().__init__(input, [f"{prefix}{number}" for number in range(max)], min)
            self.prefix = prefix
            self.max = max

        def as_dict(self) -> dict[str, Any]:
            """The template as printed."""
            return super().as_dict() | {"prefix": self.prefix, "max": self.max}

    class TemplateNames(_GrowingTemplate):
        """Sockets with the given *names* (the first 100), the first *min* of them required."""

        def __init__(self, input: Input, names: list[str], min: int = 1) -> None:
            super().__init__(input, names[: Autogrow._MaxNames], min)

        def as_dict(self) -> dict[str, Any]:
            """The template as printed."""
            return super().as_dict() | {"names": self.names}

    class Input(DynamicInput):
        """The growing list."""

        def __init__(
            self,
            id: str,
            template: _GrowingTemplate,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict)
            self.template = template

        def as_dict(self) -> dict[str, Any]:
            """The printed options with the template."""
            return super().as_dict() | {"template": self.template.as_dict()}

        def get_all(self) -> list[Input]:
            """The list and every socket that it may grow."""
            return [self, *self.template.get_all()]

        def validate(self) -> None:
            """Raise ``ValueError`` when the template is not valid."""
            self.template.validate()


@comfytype(io_type="COMFY_DYNAMICCOMBO_V3")
class DynamicCombo(ComfyTypeI):
    """A choice whose options add inputs; the argument is ``{<id>: key, <sub-input>: value, …}``."""

    Type = dict[str, Any]

    class Option:
        """One choice: its *key*, and the *inputs* that are shown while it is chosen."""

        def __init__(self, key: str, inputs: list[Input]) -> None:
            self.key = key
            self.inputs = inputs

        def as_dict(self) -> dict[str, Any]:
            """The option as printed."""
            return {"key": self.key, "inputs": create_input_dict_v1(self.inputs)}

    class Input(DynamicInput):
        """The choice."""

        def __init__(
            self,
            id: str,
            options: list["DynamicCombo.Option"],
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict)
            self.options = options

        def as_dict(self) -> dict[str, Any]:
            """The printed options with every choice."""
            return super().as_dict() | {"options": [option.as_dict() for option in self.options]}

        def get_all(self) -> list[Input]:
            """The choice and the inputs of all its options."""
            return [self, *(declared for option in self.options for declared in option.inputs)]

        def validate(self) -> None:
            """Raise ``ValueError`` when an option's input is not valid."""
            for declared in self.get_all()[1:]:
                declared.validate()


@comfytype(io_type="COMFY_DYNAMICSLOT_V3")
class DynamicSlot(ComfyTypeI):
    """A socket that adds inputs once it is connected."""

    Type = dict[str, Any]

    class Input(DynamicInput):
        """The socket *slot*, always optional; a widget in it is shown as a socket."""

        PRINTED = (("force_input", "forceInput"),)

        def __init__(
            self,
            slot: Input,
            inputs: list[Input],
            display_name: str | None = None,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict | None = None,
        ) -> None:
            if isinstance(slot, DynamicInput):
                raise ValueError(f"DynamicSlot {slot.id!r}: the slot itself cannot be dynamic; use a plain input")
            self.slot = copy.copy(slot)
            for name, fallback in (("display_name", display_name), ("tooltip", tooltip), ("lazy", lazy)):
                if getattr(slot, name) is None:
                    setattr(self.slot, name, fallback)
            options = slot.extra_dict or extra_dict
            super().__init__(slot.id, self.slot.display_name, True, self.slot.tooltip, self.slot.lazy, options)
            self.inputs = inputs
            self.force_input: bool | None = None
            if isinstance(self.slot, WidgetInput):
                self.force_input = self.slot.force_input = True

        def as_dict(self) -> dict[str, Any]:
            """The printed options with the slot's type and the inputs that it adds."""
            return super().as_dict() | {"slotType": str(self.slot.get_io_type()), "inputs": create_input_dict_v1(self.inputs)}

        def get_all(self) -> list[Input]:
            """The slot and the inputs that it adds."""
            return [self.slot, *self.inputs]

        def validate(self) -> None:
            """Raise ``ValueError`` when the slot or an input that it adds is not valid."""
            for declared in self.get_all():
                declared.validate()
